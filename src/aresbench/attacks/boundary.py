"""Boundary: a random walk along the boundary that draws nearer to the image, asking only for the class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, labels
from aresbench.attacks.base import Attack, Problem
from aresbench.attacks.settings import check_number, check_whole

CHECK_EVERY = 10  # one query in this many asks about the sideways part of a move alone
CHECKS, MOVES = 10, 30  # answers after which the two lengths are judged
CHECKS_BAND = (0.2, 0.5)  # shares of successes between which the lengths stay as they are
MOVES_BAND = (0.1, 0.25)
LONGEST = 0.5  # of the distance


@dataclass
class BoundaryState(labels.WalkState):
    """One row per image.

    Args:
        spherical, source: [N], lengths of the part sideways and of the part inwards, as shares of the distance.
        checks, check_hits: [N] int64, sideways parts asked about since they were last judged, and successes.
        moves, move_hits: [N] int64, the same of whole moves.
    """

    spherical: Tensor
    source: Tensor
    checks: Tensor
    check_hits: Tensor
    moves: Tensor
    move_hits: Tensor


@dataclass(frozen=True)
class Boundary(Attack):
    """A random walk along the far side of the boundary that draws nearer to the image (Brendel et al., 2018).

    The walk begins at a random image, drawn in by ten bisections. Each move goes sideways at equal distance
    and then inwards; it is made if the goal is still reached. Both lengths follow each image's own share of
    successes, as in the paper: about half of the sideways parts, and a fifth of the whole moves, should
    succeed. An image for which no start is found is given up.

    Args:
        queries: forward passes per image, those for its start among them.
        spherical_step: first length of the part sideways, as a share of the distance.
        source_step: first length of the part inwards, as a share of the distance.
        adaptation: factor by which the lengths grow or shrink.
        tries: random images asked about, at most, to find a start; ``start_from`` is tried first.
    """

    queries: int = 25_000
    spherical_step: float = 0.01
    source_step: float = 0.01
    adaptation: float = 1.5
    tries: int = 100

    norms: ClassVar[tuple[str, ...]] = ("l2",)
    access: ClassVar[str] = "label"
    kind: ClassVar[str] = "minimal"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "W. Brendel, J. Rauber and M. Bethge. Decision-Based Adversarial Attacks: Reliable Attacks Against Black-Box "
        "Machine Learning Models. ICLR 2018. arXiv:1712.04248"
    )
    choose_when: ClassVar[str] = "only the class is known and you want the classic of its kind; it needs many queries"

    def __post_init__(self) -> None:
        check_whole(self, "queries", least=1)
        check_number(self, "spherical_step", high=LONGEST)
        check_number(self, "source_step", high=LONGEST)
        check_number(self, "adaptation", low=1.0)
        check_whole(self, "tries", least=1)

    @property
    def total_steps(self) -> int:
        return self.queries

    def start(self, problem: Problem) -> BoundaryState:
        none, nothing = torch.zeros_like(problem.y), torch.zeros_like(problem.eps)
        return BoundaryState(
            none,
            x=problem.x,
            found=none.bool(),
            low=nothing,
            halvings=none,
            spherical=nothing + self.spherical_step,
            source=nothing + self.source_step,
            checks=none,
            check_hits=none,
            moves=none,
            move_hits=none,
        )

    def step(self, problem: Problem, state: BoundaryState) -> BoundaryState:
        s = state
        check = s.walks & (s.t % CHECK_EVERY == 0)
        move = s.walks & ~check
        candidate = labels.proposal(problem, s, self._move(problem, s, check))
        reached = labels.ask(problem, candidate)
        # A sideways part alone brings the image no nearer: its answer serves the lengths only.
        after = labels.moved(problem, s, candidate, reached & ~check, min(self.tries, self.queries))
        checks, check_hits, both = self._judge(s.checks + check, s.check_hits + (check & reached), CHECKS, CHECKS_BAND)
        moves, move_hits, inwards = self._judge(s.moves + move, s.move_hits + (move & reached), MOVES, MOVES_BAND)
        return replace(
            after,
            spherical=(s.spherical * both).clamp_max(LONGEST),
            source=(s.source * both * inwards).clamp_max(LONGEST),
            checks=checks,
            check_hits=check_hits,
            moves=moves,
            move_hits=move_hits,
        )

    def _judge(
        self, asked: Tensor, hits: Tensor, enough: int, band: tuple[float, float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Counts, and the factor for the lengths [N]; where there were enough answers the counts begin anew."""
        full, share = asked >= enough, hits / enough
        factor = torch.where(share > band[1], self.adaptation, torch.where(share < band[0], 1 / self.adaptation, 1.0))
        return torch.where(full, 0, asked), torch.where(full, 0, hits), torch.where(full, factor, 1.0)

    def _move(self, problem: Problem, s: BoundaryState, check: Tensor) -> Tensor:
        """A point sideways of each image's own, and, where it is no check, nearer than that."""
        x0 = problem.x
        far = geometry.distance(s.x, x0, "l2")
        noise = problem.streams.normal("move", x0.shape[1:], s.t)
        noise = _across(noise, s.x - x0)
        sideways = geometry.ascend(s.x, noise, s.spherical * far, "l2")
        sideways = geometry.stretch_(sideways, x0, far, "l2")
        return geometry.project_(sideways, x0, far * torch.where(check, 1.0, 1 - s.source), "l2")


def _across(v: Tensor, way: Tensor) -> Tensor:
    """Each ``v`` without its part along ``way``; as it is where ``way`` is zero."""
    along = (v * way).sum((1, 2, 3)) / (way * way).sum((1, 2, 3)).clamp_min(1e-30)
    return v - geometry.per_image(along, v) * way
