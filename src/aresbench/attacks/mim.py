"""MIM: small projected steps along a sum of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.settings import check_number, check_whole


@dataclass
class MIMState(State):
    """Where each image stands, and the decayed sum of its gradients, [N, C, H, W] each."""

    x: Tensor
    momentum: Tensor


@dataclass(frozen=True)
class MIM(Attack):
    """Momentum iterative method (MI-FGSM): steps that remember earlier gradients (Dong et al., 2018).

    Each gradient is divided by its L1 norm and added to ``decay`` times the sum so far; the step goes up the
    steepest direction of that sum. Starts at the image itself; every iterate is offered.

    Args:
        steps: number of updates; at most steps + 1 forward and steps backward passes per image.
        rel_step: length of a step as a fraction of eps; the paper's is 1 / steps.
        decay: what the sum of earlier gradients is multiplied by at each step.
    """

    steps: int = 10
    rel_step: float = 0.1
    decay: float = 1.0

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Y. Dong, F. Liao, T. Pang, H. Su, J. Zhu, X. Hu and J. Li. Boosting Adversarial Attacks with Momentum. "
        "CVPR 2018. arXiv:1710.06081"
    )
    choose_when: ClassVar[str] = (
        "you make images that should fool other models too, or compare with papers that used it"
    )

    def __post_init__(self) -> None:
        check_whole(self, "steps", least=1)
        check_number(self, "rel_step")
        check_number(self, "decay")

    @property
    def total_steps(self) -> int:
        return self.steps

    def start(self, problem: Problem) -> MIMState:
        x = problem.x
        if problem.start_from is not None:
            x = geometry.project(problem.start_from, x, problem.eps, problem.norm)
        return MIMState(torch.zeros_like(problem.y), x, torch.zeros_like(x))

    def step(self, problem: Problem, state: MIMState) -> MIMState:
        logits, _, gradient = problem.gradient(state.x)
        problem.offer(state.x, logits)
        momentum = self.decay * state.momentum + geometry.normalised(gradient)
        moved = geometry.ascend(state.x, momentum, self.rel_step * problem.eps, problem.norm)
        return MIMState(state.t, geometry.project_(moved, problem.x, problem.eps, problem.norm), momentum)

    def finish(self, problem: Problem, state: MIMState) -> None:
        problem.offer(state.x)
