"""RayS: flips the signs of ever smaller blocks and keeps what brings the boundary nearer, asking only for the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, labels
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.settings import check_number, check_whole

FINEST = 40  # level at which blocks of any image have come down to one value
GROWTH = 4.0  # of the leap inwards, each time one succeeds


@dataclass
class RaySState(State):
    """One row per image.

    Args:
        signs: [N, C, H, W] of ±1, the best direction so far.
        radius: [N], how far along it the goal is reached; 1 leads to a corner of the box.
        level, block: [N] int64, which block is flipped: one of 2^level; level -1 flips none.
        measures: [N] bool, was the flip found good, so that its own radius is being measured?
        low, high: [N], radii of the flip known not to suffice and to suffice.
        leap: [N], share by which the next radius is below ``high``; 0 once a leap failed.
    """

    signs: Tensor
    radius: Tensor
    level: Tensor
    block: Tensor
    measures: Tensor
    low: Tensor
    high: Tensor
    leap: Tensor


@dataclass(frozen=True)
class RayS(Attack):
    """Searches the corners of the cube for the ray that meets the boundary first (Chen and Gu, 2020).

    The direction is +1 everywhere at first. Blocks of it are flipped in turn: the whole, halves, quarters …
    down to single values. One query tells whether a flip reaches the goal at the best radius known; if so its
    own radius is measured and the flip is kept. Nothing is drawn at random. There is no starting point: where
    the goal is not reached at the corners of the box, flips go on there.

    Two things differ from the authors' code. The radius is measured by leaps inwards of growing length and
    then by bisection, because most flips gain little; and to a share of itself rather than to 0.001.

    Args:
        queries: forward passes per image.
        tolerance: to which share of itself a radius is measured.
    """

    queries: int = 10_000
    tolerance: float = 0.003

    norms: ClassVar[tuple[str, ...]] = ("linf",)
    access: ClassVar[str] = "label"
    kind: ClassVar[str] = "minimal"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "J. Chen and Q. Gu. RayS: A Ray Searching Method for Hard-label Adversarial Attack. KDD 2020. arXiv:2006.12792"
    )
    choose_when: ClassVar[str] = "only the class is known, under L∞: much nearer than HopSkipJump for as many queries"

    def __post_init__(self) -> None:
        check_whole(self, "queries", least=1)
        check_number(self, "tolerance", high=0.5)

    @property
    def total_steps(self) -> int:
        return self.queries

    def start(self, problem: Problem) -> RaySState:
        none, nothing = torch.zeros_like(problem.y), torch.zeros_like(problem.eps)
        signs = torch.ones_like(problem.x)
        if problem.start_from is not None:
            signs = torch.where(problem.start_from < problem.x, -1.0, signs)
        return RaySState(
            none,
            signs=signs,
            radius=nothing + 1,
            level=none - 1,
            block=none,
            measures=none.bool(),
            low=nothing,
            high=nothing + 1,
            leap=nothing,
        )

    def step(self, problem: Problem, state: RaySState) -> RaySState:
        s = state
        trial = torch.where(_block(s), -s.signs, s.signs)
        inner = torch.where(s.leap > 0, s.high * (1 - s.leap), (s.low + s.high) / 2)
        radius = torch.where(s.measures, inner, s.radius)
        candidate = geometry.ascend(problem.x, trial, radius, "linf").clamp_(0, 1)
        reached = labels.ask(problem, candidate)
        good = s.measures | reached
        low = torch.where(s.measures & ~reached, radius, torch.where(s.measures, s.low, 0.0))
        high = torch.where(reached, radius, s.high)
        kept = good & (high - low <= self.tolerance * high)
        ended = kept | ~good
        _, last = _extent(s)
        return RaySState(
            s.t,
            signs=torch.where(geometry.per_image(kept, trial), trial, s.signs),
            radius=torch.where(kept, high, s.radius),
            level=s.level + (ended & last),
            block=torch.where(ended, torch.where(last, 0, s.block + 1), s.block),
            measures=good & ~ended,
            low=low,
            high=high,
            leap=torch.where(s.measures, torch.where(reached, s.leap * GROWTH, 0.0), self.tolerance).clamp_max(0.5),
        )


def _extent(s: RaySState) -> tuple[Tensor, Tensor]:
    """How many values each image's blocks have, [N] int64, and whether its block is the last of its level, [N] bool."""
    values = s.signs[0].numel()
    blocks = 2 ** s.level.clamp(0, FINEST)
    size = (values + blocks - 1) // blocks
    return size, (s.block + 1) * size >= values


def _block(s: RaySState) -> Tensor:
    """[N, C, H, W] bool: the values flipped, a run of them in the order channel, row, column."""
    size, _ = _extent(s)
    begin = s.block * size
    end = torch.where(s.level < 0, begin, begin + size)
    place = torch.arange(s.signs[0].numel(), device=begin.device)
    return ((place >= begin[:, None]) & (place < end[:, None])).view(s.signs.shape)
