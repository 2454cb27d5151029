"""DDN: the nearest break under L2, with direction and length kept apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.settings import check_number, check_whole

ALPHA_FIRST, ALPHA_FINAL = 1.0, 0.01  # length of the gradient step, along a cosine


@dataclass
class DDNState(State):
    """One row per image.

    Args:
        x: [N, C, H, W], the next point to ask about.
        radius: [N], of the sphere that holds it.
        cap: [N], no search goes farther: the farthest corner of the box, or the budget.
    """

    x: Tensor
    radius: Tensor
    cap: Tensor


@dataclass(frozen=True)
class DDN(Attack):
    """Decoupled direction and norm attack: the smallest L2 change that breaks each image (Rony et al., 2019).

    The gradient of the cross-entropy decides only where to go. How far is decided by the last answer: the
    sphere that holds the point shrinks by ``gamma`` while the point is adversarial, and grows by as much
    while it is not. Unlike the paper's code, the last iterate is asked about too, and an all-zero gradient
    leaves the direction as it was.

    Args:
        steps: number of updates; at most steps + 1 forward and steps backward passes per image.
        gamma: relative change of the radius at each step.
        init_norm: radius of the first sphere, in [0,1] units.
        levels: values a channel may take, 256 for an image of 8 bits; 0 leaves values as they are. With
            levels, no point that rounding carries out of a finite budget is offered.
    """

    steps: int = 100
    gamma: float = 0.05
    init_norm: float = 1.0
    levels: int = 0

    norms: ClassVar[tuple[str, ...]] = ("l2",)
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "minimal"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "J. Rony, L. G. Hafemann, L. S. Oliveira, I. Ben Ayed, R. Sabourin and E. Granger. Decoupling Direction and "
        "Norm for Efficient Gradient-Based L2 Adversarial Attacks and Defenses. CVPR 2019. arXiv:1811.09600"
    )
    choose_when: ClassVar[str] = "you want small L2 changes at the price of a PGD run, or changes that survive 8 bits"

    def __post_init__(self) -> None:
        check_whole(self, "steps", least=1)
        check_number(self, "gamma", high=0.99)
        check_number(self, "init_norm")
        check_whole(self, "levels", least=0)
        if self.levels == 1:
            check_whole(self, "levels", least=2)

    @property
    def total_steps(self) -> int:
        return self.steps

    def start(self, problem: Problem) -> DDNState:
        x0 = problem.x
        cap = torch.minimum(geometry.farthest_corner(x0, problem.norm), problem.eps)
        x, radius = x0, cap.clamp_max(self.init_norm)
        if problem.start_from is not None:
            x = geometry.project(problem.start_from, x0, cap, problem.norm)
            radius = geometry.distance(x, x0, problem.norm)
        return DDNState(torch.zeros_like(problem.y), x=x, radius=radius, cap=cap)

    def step(self, problem: Problem, state: DDNState) -> DDNState:
        s = state
        logits, _, gradient = problem.gradient(s.x)
        self._offer(problem, s.x, logits)
        cosine = 0.5 + 0.5 * torch.cos(s.t * (math.pi / self.steps))
        alpha = ALPHA_FINAL + (ALPHA_FIRST - ALPHA_FINAL) * cosine
        change = torch.where(problem.adversarial(logits), 1 - self.gamma, 1 + self.gamma)
        radius = torch.minimum(s.radius * change, s.cap)
        x = geometry.stretch_(geometry.ascend(s.x, gradient, alpha, "l2"), problem.x, radius, "l2")
        if self.levels:
            x = x.mul_(self.levels - 1).round_().div_(self.levels - 1)
        return DDNState(s.t, x=x, radius=radius, cap=s.cap)

    def finish(self, problem: Problem, state: DDNState) -> None:
        self._offer(problem, state.x, problem.query(state.x))

    def _offer(self, problem: Problem, x: Tensor, logits: Tensor) -> None:
        if self.levels:
            inside = geometry.distance(x, problem.x, problem.norm) <= geometry.allowance(problem.eps)
            logits = torch.where(inside[:, None], logits, torch.nan)  # an answer of NaN proves nothing
        problem.offer(x, logits)
