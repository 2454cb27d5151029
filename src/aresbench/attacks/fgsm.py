"""FGSM: one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry
from aresbench.attacks.base import Attack, Problem, State


@dataclass
class FGSMState(State):
    """Where each image stands, [N, C, H, W]."""

    x: Tensor


@dataclass(frozen=True)
class FGSM(Attack):
    """One full step along the sign of the gradient, or its direction under L2 (Goodfellow, Shlens and Szegedy, 2015).

    Exact on a linear model under L∞ and L1; on others the weakest and cheapest gradient attack: an image that
    resists it says little. Under L1 the values of largest slope go to the edge of the box, until eps is spent.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "I. Goodfellow, J. Shlens and C. Szegedy. Explaining and Harnessing Adversarial Examples. ICLR 2015. "
        "arXiv:1412.6572"
    )
    choose_when: ClassVar[str] = "you want a first look for the price of one gradient"

    @property
    def total_steps(self) -> int:
        return 1

    def start(self, problem: Problem) -> FGSMState:
        x = problem.x
        if problem.start_from is not None:
            x = geometry.project(problem.start_from, problem.x, problem.eps, problem.norm)
        return FGSMState(torch.zeros_like(problem.y), x)

    def step(self, problem: Problem, state: FGSMState) -> FGSMState:
        logits, _, gradient = problem.gradient(state.x)
        problem.offer(state.x, logits)
        moved = geometry.ascend(state.x, gradient, problem.eps, problem.norm)
        return FGSMState(state.t, geometry.project_(moved, problem.x, problem.eps, problem.norm))

    def finish(self, problem: Problem, state: FGSMState) -> None:
        problem.offer(state.x)
