"""NES: projected steps along a gradient estimated from logits alone, at random points around the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses, sampling
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.settings import check_number, check_whole

MOMENTUM = 0.9  # share of the last direction in the next: it gathers what single estimates are too noisy to show
PLATEAU = 20  # a loss lower than this many steps ago halves the step length
SHORTEST = 0.1  # of the first step length


@dataclass
class NESState(State):
    """One row per image.

    Args:
        x: [N, C, H, W], the last point asked about.
        logits: [N, K], the answer there.
        way: [N, C, H, W], the moving average of the estimated gradients.
        losses: [N, 20], the losses at the last points, newest last; NaN where there was none yet.
        length: [N], length of a step.
    """

    x: Tensor
    logits: Tensor
    way: Tensor
    losses: Tensor
    length: Tensor


@dataclass(frozen=True)
class NES(Attack):
    """PGD on a gradient estimated from random points around each iterate (Ilyas et al., 2018).

    Each step asks about pairs of opposite points, Gaussian around the iterate, and goes up the mean of the
    directions weighted by the differences of their losses (a natural evolution strategy), averaged over the last
    steps with a momentum of 0.9. Then it asks about the new iterate; where the loss there is lower than 20 steps
    ago, the step length is halved, down to a tenth.

    The momentum and the halving are those of the authors' code. As in ARES (Dong et al., 2020) the loss is the
    margin of the logits, and steps are a fraction of eps.

    Args:
        queries: forward passes per image at most; all points count, and a last step that would exceed them takes
            fewer.
        samples: points asked about per step, in pairs.
        sigma: standard deviation of the points around the iterate, in [0,1] units.
        rel_step: length of the first steps as a fraction of eps.
    """

    queries: int = 20_000
    samples: int = 100
    sigma: float = 0.001
    rel_step: float = 0.15

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    access: ClassVar[str] = "score"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "A. Ilyas, L. Engstrom, A. Athalye and J. Lin. Black-box Adversarial Attacks with Limited Queries and "
        "Information. ICML 2018. arXiv:1804.08598"
    )
    choose_when: ClassVar[str] = "you want PGD where only logits can be had, under L2 too"

    def __post_init__(self) -> None:
        check_whole(self, "queries", least=4)
        check_whole(self, "samples", least=2)
        check_number(self, "sigma")
        check_number(self, "rel_step")

    @property
    def total_steps(self) -> int:
        return sampling.paired_steps(self.queries, self.samples)

    @property
    def passes(self) -> int:
        return self.queries

    def start(self, problem: Problem) -> NESState:
        x, logits = sampling.first_point(problem)
        loss = losses.goal_margin(problem)(logits, problem.y)
        recent = torch.full((len(loss), PLATEAU), torch.nan, device=loss.device)
        recent[:, -1] = loss
        return NESState(
            torch.zeros_like(problem.y), x, logits, torch.zeros_like(x), recent, self.rel_step * problem.eps
        )

    def step(self, problem: Problem, state: NESState) -> NESState:
        s = state
        pairs = sampling.pairs_at(s.t, self.queries, self.samples)
        first = s.t * (self.samples // 2)
        gradient = sampling.slope(problem, s.x, s.logits, pairs, first, sampling.normals, self.sigma, reach=3)
        way = torch.lerp(gradient, s.way, MOMENTUM)
        x = geometry.ascend(s.x, way, s.length, problem.norm)
        x = geometry.project_(x, problem.x, problem.eps, problem.norm)
        logits = problem.query(x)
        problem.offer(x, logits, step=s.t + 1)

        loss = losses.goal_margin(problem)(logits, problem.y)
        recent = torch.cat((s.losses[:, 1:], loss[:, None]), dim=1)
        stuck = recent[:, -1] < recent[:, 0]  # false while there are fewer than 20
        length = torch.where(stuck, (s.length / 2).clamp_min(SHORTEST * self.rel_step * problem.eps), s.length)
        return NESState(s.t, x, logits, way, torch.where(stuck[:, None], torch.nan, recent), length)
