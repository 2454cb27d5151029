"""Square: random search with squares, asking only for logits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.settings import check_flag, check_number, check_whole

SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Squares after which the area of a square is halved, for a run of 10 000."""


@cache
def _schedule(device: torch.device) -> Tensor:
    return torch.tensor(SCHEDULE, device=device)


@dataclass
class SquareState(State):
    """The best point so far, [N, C, H, W], and its loss, [N]."""

    best: Tensor
    best_loss: Tensor


@dataclass(frozen=True)
class Square(Attack):
    """Random search that repaints one square at a time at the edge of the budget (Andriushchenko et al., 2020).

    Begins with vertical stripes of ±eps; each further query tries one square in which every channel
    sits at +eps or -eps, and keeps it if the margin shrinks. Squares and signs are drawn per image,
    as in the paper (AutoAttack shares them within a batch), and reach the last row and column.

    Args:
        queries: forward passes per image; the stripes are the first.
        p_init: share of the image a square covers at first.
        rescale_schedule: fit the shrinking of the squares to ``queries`` (true), or follow the schedule
            of a run of 10 000 whatever the number (false, as AutoAttack does).
    """

    queries: int = 5000
    p_init: float = 0.8
    rescale_schedule: bool = False

    norms: ClassVar[tuple[str, ...]] = ("linf",)
    access: ClassVar[str] = "score"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "M. Andriushchenko, F. Croce, N. Flammarion and M. Hein. Square Attack: a Query-efficient Black-box "
        "Adversarial Attack via Random Search. ECCV 2020. arXiv:1912.00049"
    )
    choose_when: ClassVar[str] = "gradients are missing, or you suspect that they mislead"
    keeps: ClassVar[str] = "best"  # the last offer is a trial, not what the search stands at

    def __post_init__(self) -> None:
        check_whole(self, "queries", least=1)
        check_number(self, "p_init", high=1.0)
        check_flag(self, "rescale_schedule")

    @property
    def total_steps(self) -> int:
        return self.queries

    def start(self, problem: Problem) -> SquareState:
        x0, eps, norm = problem.x, problem.eps, problem.norm
        if problem.start_from is not None:
            best = geometry.project(problem.start_from, x0, eps, norm)
        else:
            channels, _, width = x0.shape[1:]
            stripes = problem.streams.signs("stripes", (channels, 1, width))
            best = geometry.ascend(x0, stripes, eps, norm).clamp_(0, 1)
        return SquareState(torch.zeros_like(problem.y), best, torch.full_like(eps, -torch.inf))

    def step(self, problem: Problem, state: SquareState) -> SquareState:
        candidate = self._propose(problem, state)
        logits = problem.query(candidate)
        problem.offer(candidate, logits)
        loss = losses.goal_margin(problem)(logits, problem.y)
        better = loss > state.best_loss
        return SquareState(
            state.t,
            torch.where(geometry.per_image(better, candidate), candidate, state.best),
            torch.where(better, loss, state.best_loss),
        )

    def side(self, t: Tensor, height: int, width: int) -> Tensor:
        """Side in pixels of the square tried at step ``t`` (1: the first square), [N] int64."""
        done = (t - 1).clamp_min(0)  # squares tried before this one
        if self.rescale_schedule:
            done = done * 10_000 // self.queries
        halvings = torch.bucketize(done, _schedule(t.device))
        area = self.p_init * height * width * torch.pow(0.5, halvings.double())
        return area.sqrt().round().long().clamp(1, min(height, width))

    def _propose(self, problem: Problem, state: SquareState) -> Tensor:
        """The best point with one square repainted; at step 0 the starting point itself."""
        x0, streams, t = problem.x, problem.streams, state.t
        channels, height, width = x0.shape[1:]
        side = self.side(t, height, width)
        top = streams.integers("row", height - side + 1, (), t)
        left = streams.integers("column", width - side + 1, (), t)
        side = torch.where(t == 0, 0, side)
        rows = _within(height, top, side)
        columns = _within(width, left, side)
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        signs = streams.signs("sign", (channels, 1, 1), t)
        edge = geometry.ascend(x0, signs, problem.eps, problem.norm).clamp_(0, 1)
        return torch.where(inside, edge, state.best)


def _within(length: int, begin: Tensor, extent: Tensor) -> Tensor:
    """[N, length] bool: the places from ``begin`` on, ``extent`` many, of each image."""
    place = torch.arange(length, device=begin.device)
    return (place >= begin[:, None]) & (place < (begin + extent)[:, None])
