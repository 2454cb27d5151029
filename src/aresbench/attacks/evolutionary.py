"""Evolutionary: a random walk that learns which values matter, asking only for the class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aresbench.attacks import geometry, labels
from aresbench.attacks.base import Attack, Problem
from aresbench.attacks.settings import check_number, check_whole

CHOSEN = 20  # one in this many values of the grid changes at a time
MOVES = 30  # answers after which mu is adjusted
GOAL = 0.2  # share of moves that should succeed: the 1/5 rule of evolution strategies


@dataclass
class EvolutionaryState(labels.WalkState):
    """One row per image.

    Args:
        mu: [N], length of the part of a move that goes inwards, as a share of the distance.
        path: [N, C, h, w], fading sum of the successful changes.
        variance: [N, C, h, w], diagonal of the covariance from which changes are drawn.
        moves, hits: [N] int64, moves since ``mu`` was last adjusted, and those that succeeded.
    """

    mu: Tensor
    path: Tensor
    variance: Tensor
    moves: Tensor
    hits: Tensor


@dataclass(frozen=True)
class Evolutionary(Attack):
    """A (1+1) evolution strategy with a learned diagonal covariance on a coarse grid (Dong et al., 2019).

    The walk begins at a random image, drawn in by ten bisections. Each move changes one in twenty values of a
    grid coarser than the image, likelier those that served before, enlarges the change bilinearly and goes
    inwards; it is made if the goal is still reached. Each image has its own covariance and its own ``mu``.
    An image for which no start is found is given up.

    As in the authors' code a change has the length ``sigma`` times the distance, and ends on the sphere that
    ``mu`` asks for, so that every move that succeeds is nearer.

    Args:
        queries: forward passes per image, those for its start among them.
        mu: first length of the part inwards, as a share of the distance; then one move in five should succeed.
        sigma: length of a change, as a share of the distance.
        decay: how much of the path of successful changes stays at each of them.
        c: share of the covariance learned at each success.
        grid: side of the searched grid, as a share of the image's.
        tries: random images asked about, at most, to find a start; ``start_from`` is tried first.
    """

    queries: int = 10_000
    mu: float = 0.01
    sigma: float = 0.03
    decay: float = 0.99
    c: float = 0.001
    grid: float = 0.4
    tries: int = 100

    norms: ClassVar[tuple[str, ...]] = ("l2",)
    access: ClassVar[str] = "label"
    kind: ClassVar[str] = "minimal"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Y. Dong, H. Su, B. Wu, Z. Li, W. Liu, T. Zhang and J. Zhu. Efficient Decision-based Black-box Adversarial "
        "Attacks on Face Recognition. CVPR 2019. arXiv:1904.04433"
    )
    choose_when: ClassVar[str] = "only the class is known and coarse changes fool the model"

    def __post_init__(self) -> None:
        check_whole(self, "queries", least=1)
        check_number(self, "mu", high=0.5)
        check_number(self, "sigma", high=1.0)
        check_number(self, "decay", high=0.9999)
        check_number(self, "c", high=0.5)
        check_number(self, "grid", high=1.0)
        check_whole(self, "tries", least=1)

    @property
    def total_steps(self) -> int:
        return self.queries

    def start(self, problem: Problem) -> EvolutionaryState:
        none, nothing = torch.zeros_like(problem.y), torch.zeros_like(problem.eps)
        n, channels, height, width = problem.x.shape
        path = problem.x.new_zeros(n, channels, self._side(height), self._side(width))
        return EvolutionaryState(
            none,
            x=problem.x,
            found=none.bool(),
            low=nothing,
            halvings=none,
            mu=nothing + self.mu,
            path=path,
            variance=torch.ones_like(path),
            moves=none,
            hits=none,
        )

    def _side(self, length: int) -> int:
        return max(1, round(self.grid * length))

    def step(self, problem: Problem, state: EvolutionaryState) -> EvolutionaryState:
        s = state
        change = self._change(problem, s)
        candidate = labels.proposal(problem, s, self._move(problem, s, change))
        reached = labels.ask(problem, candidate)
        after = labels.moved(problem, s, candidate, reached, min(self.tries, self.queries))
        moves, hits = s.moves + s.walks, s.hits + (s.walks & reached)
        full = moves >= MOVES
        path = self.decay * s.path + (1 - self.decay**2) ** 0.5 * change
        variance = (1 - self.c) * s.variance + self.c * path * path
        learns = geometry.per_image(s.walks & reached, path)
        return replace(
            after,
            mu=torch.where(full, s.mu * torch.exp(hits / MOVES - GOAL), s.mu).clamp_max(0.5),
            path=torch.where(learns, path, s.path),
            variance=torch.where(learns, variance, s.variance),
            moves=torch.where(full, 0, moves),
            hits=torch.where(full, 0, hits),
        )

    def _change(self, problem: Problem, s: EvolutionaryState) -> Tensor:
        """Normal noise of the learned variance at a few places of the grid, [N, C, h, w], zero elsewhere."""
        shape = s.variance.shape[1:]
        # The largest of log variance plus Gumbel noise are a draw without replacement in proportion to the variance.
        draw = problem.streams.uniform("places", shape, s.t).clamp(1e-7, 1 - 1e-7)
        key = (s.variance.log() - (-draw.log()).log()).flatten(1)
        least = key.topk(max(1, key.shape[1] // CHOSEN), dim=1).values[:, -1:]
        chosen = (key >= least).view_as(s.variance)
        return torch.where(chosen, problem.streams.normal("change", shape, s.t) * s.variance.sqrt(), 0.0)

    def _move(self, problem: Problem, s: EvolutionaryState, change: Tensor) -> Tensor:
        x0 = problem.x
        far = geometry.distance(s.x, x0, "l2")
        change = F.interpolate(change, x0.shape[2:], mode="bilinear", align_corners=False)
        moved = geometry.ascend(s.x, change, self.sigma * far, "l2")
        return geometry.stretch_(moved, x0, (1 - s.mu) * far, "l2")
