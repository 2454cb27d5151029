"""PGD: many small projected steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Attack, Loss, Problem, State
from aresbench.attacks.runs import Runs, renew
from aresbench.attacks.settings import check_choice, check_flag, check_number, check_whole
from aresbench.core.errors import SpecError


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

    Under L1 the steepest step inside the box moves the values of largest slope to its edge, one after the
    other, until its length is spent (Croce and Hein, "Mind the box", ICML 2021. arXiv:2103.01208).

    Args:
        steps: number of updates of a run; at most restarts · (steps + 1) forward passes per image and one
            backward fewer.
        rel_step: length of a step as a fraction of eps. A fraction, because a fixed length is silently
            weak at large budgets.
        random_start: begin at a point drawn evenly from the ball (true), or at the image itself.
        loss: what the steps climb: ``ce`` (cross-entropy), ``margin`` (of the logits, as in C&W), ``dlr``
            (difference of logits ratio; the margin below 3 classes) or ``pm`` (probability margin). Towards a
            target the last three are one: the target's lead in logits.
        restarts: how many runs there are, each from its own random start; an image leaves at its first break.
    """

    steps: int = 20
    rel_step: float = 0.25
    random_start: bool = True
    loss: str = "ce"
    restarts: int = 1

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
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
        check_whole(self, "restarts", least=1)
        if self.restarts > 1 and not self.random_start:
            raise SpecError(
                f"restarts={self.restarts} of PGD without a random start would all be the same run",
                "leave restarts at 1, or random_start at true",
            )

    @property
    def _runs(self) -> Runs:
        return Runs((self.steps,), self.restarts)

    @property
    def total_steps(self) -> int:
        return self._runs.steps

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
        place = self._runs.place(state.t)
        moved = PGDState(state.t, climb(problem, state.x, self.rel_step, losses.named(self.loss, problem)))

        def again() -> PGDState:
            start = geometry.uniform_start(problem.x, problem.eps, problem.norm, problem.streams, place.run + 1)
            return PGDState(state.t, start)

        return renew(moved, self._runs.over(place), again)

    def finish(self, problem: Problem, state: PGDState) -> None:
        problem.offer(state.x)
