"""Square: random search with squares or windows, asking only for logits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.settings import check_flag, check_number, check_whole

SMALL = 0.15  # share of the image below which a square is painted pixel by pixel, on a CPU
SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Squares after which the area of a square is halved, for a run of 10 000."""

DECAY = {"l2": 2, "l1": 4}  # how fast a window's pattern falls off towards its edge


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

    Under L∞ it begins with vertical stripes of ±eps; each further query tries one square in which every channel
    sits at +eps or -eps, and keeps it if the margin shrinks. Under L2 and L1 it begins with tiles of bumps; each
    further query empties one window and moves its mass, with what the budget has left, to another, in
    which a pair of bumps of opposite sign is added (L1 as in AutoAttack). Squares, windows and signs are drawn
    per image, as in the paper (AutoAttack shares them within a batch), and reach the last row and column.

    Args:
        queries: forward passes per image; the starting point is the first.
        p_init: share of the image a square covers at first.
        rescale_schedule: fit the shrinking of the squares to ``queries`` (true), or follow the schedule
            of a run of 10 000 whatever the number (false, as AutoAttack does).
    """

    queries: int = 5000
    p_init: float = 0.8
    rescale_schedule: bool = False

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
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
        elif norm != "linf":
            best = geometry.stretch_(x0 + _tiles(problem), x0, eps, norm)
        else:
            channels, _, width = x0.shape[1:]
            stripes = problem.streams.signs("stripes", (channels, 1, width))
            best = geometry.ascend(x0, stripes, eps, norm).clamp_(0, 1)
        return SquareState(torch.zeros_like(problem.y), best, torch.full_like(eps, -torch.inf))

    def step(self, problem: Problem, state: SquareState) -> SquareState:
        candidate = (self._propose if problem.norm == "linf" else self._move)(problem, state)
        logits = problem.query(candidate)
        problem.offer(candidate, logits)
        loss = losses.goal_margin(problem)(logits, problem.y)
        better = loss > state.best_loss
        return SquareState(
            state.t, _replaced(state.best, candidate, better), torch.where(better, loss, state.best_loss)
        )

    def side(self, t: Tensor, height: int, width: int) -> Tensor:
        """Side in pixels of the square tried at step ``t`` (1: the first square), [N] int64."""
        area = self.p_init * height * width * torch.pow(0.5, self._halvings(t).double())
        return area.sqrt().round().long().clamp(1, min(height, width))

    def _halvings(self, t: Tensor) -> Tensor:
        """How often the area has been halved by step ``t``, [N] int64."""
        done = (t - 1).clamp_min(0)  # squares tried before this one
        if self.rescale_schedule:
            done = done * 10_000 // self.queries
        return torch.bucketize(done, _schedule(t.device))

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
        if x0.is_cuda or int(side.max()) ** 2 > SMALL * height * width:
            edge = geometry.ascend(x0, signs, problem.eps, problem.norm).clamp_(0, 1)
            return torch.where(inside, edge, state.best)
        # Small squares: only their pixels are touched.
        at, row, column = inside.squeeze(1).nonzero(as_tuple=True)
        painted = state.best.clone()
        edge = x0[at, :, row, column] + signs[at, :, 0, 0] * problem.eps[at, None]
        painted[at, :, row, column] = edge.clamp_(0, 1)
        return painted

    def _move(self, problem: Problem, state: SquareState) -> Tensor:
        """The best point with the mass of one window moved to another; at step 0 the starting point itself."""
        x0, eps, norm, streams, t = problem.x, problem.eps, problem.norm, problem.streams, state.t
        channels, height, width = x0.shape[1:]
        level = self._halvings(t)
        sides, patterns = _windows(height, width, self.p_init, norm, x0.device)
        side = sides[level]
        top = streams.integers("row", height - side + 1, (), t)
        left = streams.integers("column", width - side + 1, (), t)
        receives = _window(height, width, top, left, side)
        gives = _window(
            height,
            width,
            streams.integers("other-row", height - side + 1, (), t),
            streams.integers("other-column", width - side + 1, (), t),
            side,
        )
        # The pattern, laid into the receiving window, upright or on its side.
        down = (torch.arange(height, device=t.device) - top[:, None]).clamp(0, patterns.shape[1] - 1)[:, :, None]
        along = (torch.arange(width, device=t.device) - left[:, None]).clamp(0, patterns.shape[1] - 1)[:, None, :]
        turned = streams.integers("turn", 2, (1, 1), t) > 0
        first, second = torch.where(turned, along, down), torch.where(turned, down, along)
        bumps = patterns[level[:, None, None], first, second][:, None].to(x0.dtype)
        bumps = bumps * streams.signs("sign", (channels, 1, 1), t)

        change = state.best - x0
        old = change * receives
        fresh = (bumps + old / (geometry.channel_size(old, norm) + 1e-12)) * receives
        mass = geometry.channel_size(change * (receives | gives), norm)
        mass = geometry.refilled(mass, geometry.size(change, norm), eps, norm)
        if norm == "l1":
            mass = mass * channels  # as in AutoAttack: more than fits, so that the projection thins out the rest
        fresh = fresh * (mass / (geometry.channel_size(fresh, norm) + 1e-12))
        change = torch.where(receives, fresh, change * ~gives)
        moved = geometry.stretch_(x0 + change, x0, eps, norm)
        return torch.where(geometry.per_image(t == 0, moved), state.best, moved)


def _replaced(best: Tensor, candidate: Tensor, better: Tensor) -> Tensor:
    """The candidates of the images where they are better, else what was best."""
    if best.is_cuda:
        return torch.where(geometry.per_image(better, best), candidate, best)
    at = better.nonzero().squeeze(1)  # a few: the others need not be copied
    return best.index_copy(0, at, candidate[at]) if len(at) else best


def _within(length: int, begin: Tensor, extent: Tensor) -> Tensor:
    """[N, length] bool: the places from ``begin`` on, ``extent`` many, of each image."""
    place = torch.arange(length, device=begin.device)
    return (place >= begin[:, None]) & (place < (begin + extent)[:, None])


def _window(height: int, width: int, top: Tensor, left: Tensor, side: Tensor) -> Tensor:
    """[N, 1, H, W] bool: the square window of each image."""
    return _within(height, top, side)[:, None, :, None] & _within(width, left, side)[:, None, None, :]


@lru_cache(maxsize=8)
def _windows(height: int, width: int, p_init: float, norm: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sides [L] of the windows after 0, 1, 2 … halvings of their area, odd where they fit; their patterns [L, S, S]."""
    least = min(height, width)
    areas = [p_init * height * width / 2**k for k in range(len(SCHEDULE) + 1)]
    sides = [min(max(round(area**0.5), 3) | 1, least) for area in areas]
    patterns = torch.zeros(len(sides), max(sides), max(sides), dtype=torch.float64)
    for k, side in enumerate(sides):
        patterns[k, :side, :side] = _pattern(side, norm)
    return torch.tensor(sides, device=device), patterns.to(device, torch.float32)


def _pattern(side: int, norm: str) -> Tensor:
    """Two bumps of opposite sign and equal size, one above the other, [side, side] float64 of size 1."""
    upper, lower = _bump(side // 2, side, norm), _bump(side - side // 2, side, norm)
    return _unit(torch.cat((upper, -lower)), norm)


def _bump(height: int, width: int, norm: str) -> Tensor:
    """A sum of nested squares around the middle, the k-th of weight 1 / k^2 (L2) or 1 / k^4 (L1), of size 1."""
    rings = max(height // 2, width // 2) + 1
    weights = torch.arange(1, rings + 1, dtype=torch.float64) ** -DECAY[norm]
    inner = torch.cat((torch.zeros(1, dtype=torch.float64), weights.cumsum(0)))
    down, along = (torch.arange(n) - n // 2 for n in (height, width))
    ring = torch.maximum(down.abs()[:, None], along.abs()[None, :])
    return _unit(inner[-1] - inner[ring], norm)


def _unit(v: Tensor, norm: str) -> Tensor:
    return v / geometry.channel_size(v[None, None], norm)[0, 0].clamp_min(1e-12)


def _tiles(problem: Problem) -> Tensor:
    """The start under L2 and L1: a grid of tiles, a fifth of the image wide, each with its own sign and turn."""
    channels, height, width = problem.x.shape[1:]
    side = max(min(height, width) // 5, 1)
    pattern = _pattern(side, problem.norm).to(problem.x.device, problem.x.dtype)
    down, along = height // side, width // side
    upright = problem.streams.integers("tile-turn", 2, (1, down, 1, along, 1)) > 0
    tile = torch.where(upright, pattern[:, None, :], pattern.T[:, None, :])
    tile = tile * problem.streams.signs("tile-sign", (channels, down, 1, along, 1))
    grid = tile.reshape(len(tile), channels, down * side, along * side)
    margin = [(width - along * side) // 2, (height - down * side) // 2]
    return F.pad(grid, (margin[0], width - along * side - margin[0], margin[1], height - down * side - margin[1]))
