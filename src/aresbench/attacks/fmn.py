"""FMN: the nearest break, found with a ball that shrinks and grows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.settings import check_number, check_whole

ALPHA_FINAL = 0.01  # the step shrinks to this share of its first length
GAMMA_FINAL = 0.001  # the radius changes by this share at the end
PATIENCE = 10  # steps for which the linear estimate alone sizes the ball


@dataclass
class FMNState(State):
    """One row per image.

    Args:
        x: [N, C, H, W], the next point to ask about.
        radius: [N], of the ball that holds it.
        cap: [N], no break is farther than this: the farthest corner of the box, or the budget.
        nearest: [N], the smallest distance at which the goal was reached, else ``cap``.
        found: [N] bool, was the goal ever reached?
    """

    x: Tensor
    radius: Tensor
    cap: Tensor
    nearest: Tensor
    found: Tensor


@dataclass(frozen=True)
class FMN(Attack):
    """Fast minimum-norm attack: the smallest change that breaks each image (Pintor et al., 2021).

    Climbs the margin inside a ball. While the point is adversarial the ball shrinks, else it grows;
    before the first break it is sized by the linear estimate of the distance to the boundary. Step length
    and change of radius fall along a cosine. One search gives a break at some distance, and with it a
    bound for every budget at or above.

    Under L2 the point is moved to the surface of the ball, not only into it, as in the authors' code: it
    then follows at once when the ball grows. One thing is added to the paper: after ten steps without a
    break the ball grows by at least ``gamma`` a step. Where the estimate is exact, or the box cuts the ball,
    the search otherwise ends just before the boundary.

    Under L0, which counts values (a pixel has three), the ball holds a whole number of them and changes by at
    least one. The paper begins with one value, steps by a gradient of L2 length alpha and keeps the largest
    changes; here the linear estimate sizes the first ball as under the other norms, the largest slope moves by
    alpha, and those changes stay that the lead would lose most by: a value near the edge of the box has a
    large slope but little to give.

    Args:
        steps: number of updates; at most steps + 1 forward and steps backward passes per image.
        alpha: first step length, measured in L2 (under L0 in L∞); falls to a hundredth of it.
        gamma: first relative change of the radius; falls to 0.001.
    """

    steps: int = 100
    alpha: float = 1.0
    gamma: float = 0.05

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1", "l0")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "minimal"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "M. Pintor, F. Roli, W. Brendel and B. Biggio. Fast Minimum-norm Adversarial Attacks through Adaptive Norm "
        "Constraints. NeurIPS 2021. arXiv:2102.12827"
    )
    choose_when: ClassVar[str] = "you want each image's own distance to the boundary, or a whole curve from one search"

    def __post_init__(self) -> None:
        check_whole(self, "steps", least=1)
        check_number(self, "alpha")
        check_number(self, "gamma", high=1.0)

    @property
    def total_steps(self) -> int:
        return self.steps

    def start(self, problem: Problem) -> FMNState:
        x0 = problem.x
        cap = torch.minimum(geometry.farthest_corner(x0, problem.norm), problem.eps)
        x = x0
        if problem.start_from is not None:
            x = geometry.project(problem.start_from, x0, cap, problem.norm)
        t = torch.zeros_like(problem.y)
        radius = geometry.distance(x, x0, problem.norm)
        return FMNState(t, x=x, radius=radius, cap=cap, nearest=cap, found=torch.zeros_like(t, dtype=torch.bool))

    def step(self, problem: Problem, state: FMNState) -> FMNState:
        s, x0, norm = state, problem.x, problem.norm
        logits, loss, gradient = problem.gradient(s.x, losses.goal_margin(problem))
        problem.offer(s.x, logits)
        reached = problem.adversarial(logits)
        at = geometry.distance(s.x, x0, norm)
        nearest = torch.where(reached, torch.minimum(at, s.nearest), s.nearest)
        found = s.found | reached

        cosine = 0.5 + 0.5 * torch.cos(s.t * (math.pi / self.steps))
        alpha = self.alpha * (ALPHA_FINAL + (1 - ALPHA_FINAL) * cosine)
        gamma = GAMMA_FINAL + (self.gamma - GAMMA_FINAL) * cosine
        if norm == "l0":
            estimate = geometry.fewest(s.x, gradient, loss.abs())
            shrunk = torch.minimum(s.radius - 1, (s.radius * (1 - gamma)).floor()).minimum(nearest - 1).clamp_min(0)
            grown = torch.maximum(s.radius + 1, (s.radius * (1 + gamma)).floor())
        else:
            estimate = loss.abs() / geometry.dual_size(gradient, norm).clamp_min(1e-12)
            shrunk = torch.minimum(s.radius * (1 - gamma), nearest)
            grown = s.radius * (1 + gamma)
        boundary = torch.where(s.t < PATIENCE, at + estimate, torch.maximum(at + estimate, grown))
        grown = torch.where(found, grown, boundary)
        radius = torch.fmin(torch.where(reached, shrunk, grown), s.cap)  # fmin: a NaN estimate becomes the cap

        if norm == "l0":
            peak = geometry.size(gradient, "linf")
            scale = torch.where(peak > 0, alpha / peak, 0.0).clamp_max(1e38)
            moved = torch.addcmul(s.x, gradient, geometry.per_image(scale, gradient)).clamp_(0, 1)
            x = geometry.keep_(moved, x0, radius, worth=gradient * (moved - x0))
        else:
            moved = geometry.ascend(s.x, gradient, alpha, "l2")
            x = geometry.stretch_(moved, x0, radius, norm)
        return FMNState(s.t, x=x, radius=radius, cap=s.cap, nearest=nearest, found=found)

    def finish(self, problem: Problem, state: FMNState) -> None:
        problem.offer(state.x, problem.query(state.x))
