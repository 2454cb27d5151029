"""PGD: many small projected steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Attack, Loss, Problem, State
from aresbench.attacks.settings import check_choice, check_flag, check_number, check_whole


@dataclass
class PGDState(State):
    """Where each image stands, [N, C, H, W]."""

    x: Tensor


def climb(problem: Problem, x: Tensor, rel_step: float, loss: Loss | None = None) -> Tensor:
    """Ask about ``x``, offer it, and return the point one projected step of ``rel_step`` · eps up the loss."""
    logits, _, gradient = problem.gradient(x, loss)
    problem.offer(x, logits)
    moved = geometry.ascend(x, gradient, rel_step * problem.eps, problem.norm)
    return geometry.project_(moved, problem.x, problem.eps, problem.norm)


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent from a random point of the ball (Madry et al., 2018).

    Each step goes ``rel_step`` · eps up the steepest direction of the norm and back into the ball and
    the box. Every iterate is offered, not only the last.

    Args:
        steps: number of updates; at most steps + 1 forward and steps backward passes per image.
        rel_step: length of a step as a fraction of eps. A fraction, because a fixed length is silently
            weak at large budgets.
        random_start: begin at a point drawn evenly from the ball (true), or at the image itself.
        loss: what the steps climb: ``ce`` (cross-entropy), ``margin`` (of the logits, as in C&W), ``dlr``
            (difference of logits ratio; the margin below 3 classes) or ``pm`` (probability margin). Towards a
            target the last three are one: the target's lead in logits.
    """

    steps: int = 20
    rel_step: float = 0.25
    random_start: bool = True
    loss: str = "ce"

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "A. Madry, A. Makelov, L. Schmidt, D. Tsipras and A. Vladu. Towards Deep Learning Models Resistant to "
        "Adversarial Attacks. ICLR 2018. arXiv:1706.06083"
    )
    choose_when: ClassVar[str] = "you want the standard white-box attack, or a curve over steps"

    def __post_init__(self) -> None:
        check_whole(self, "steps", least=1)
        check_number(self, "rel_step")
        check_flag(self, "random_start")
        check_choice(self, "loss", losses.LOSSES)

    @property
    def total_steps(self) -> int:
        return self.steps

    def start(self, problem: Problem) -> PGDState:
        x0, eps, norm = problem.x, problem.eps, problem.norm
        if problem.start_from is not None:
            x = geometry.project(problem.start_from, x0, eps, norm)
        elif self.random_start:
            x = geometry.uniform_start(x0, eps, norm, problem.streams)
        else:
            x = x0
        return PGDState(torch.zeros_like(problem.y), x)

    def step(self, problem: Problem, state: PGDState) -> PGDState:
        return PGDState(state.t, climb(problem, state.x, self.rel_step, losses.named(self.loss, problem)))

    def finish(self, problem: Problem, state: PGDState) -> None:
        problem.offer(state.x)
