"""BIM: small projected steps from the image itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from aresbench.attacks import geometry
from aresbench.attacks.base import Attack, Problem
from aresbench.attacks.pgd import PGDState, climb
from aresbench.attacks.settings import check_number, check_whole


@dataclass(frozen=True)
class BIM(Attack):
    """Basic iterative method: FGSM in small steps (Kurakin, Goodfellow and Bengio, 2017).

    The same steps as ``pgd``, from the image itself: nothing is drawn. Every iterate is offered.

    Args:
        steps: number of updates; at most steps + 1 forward and steps backward passes per image.
        rel_step: length of a step as a fraction of eps.
    """

    steps: int = 10
    rel_step: float = 0.2

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "A. Kurakin, I. Goodfellow and S. Bengio. Adversarial Examples in the Physical World. ICLR 2017 Workshop. "
        "arXiv:1607.02533"
    )
    choose_when: ClassVar[str] = "you compare with papers that used it; else take pgd"

    def __post_init__(self) -> None:
        check_whole(self, "steps", least=1)
        check_number(self, "rel_step")

    @property
    def total_steps(self) -> int:
        return self.steps

    def start(self, problem: Problem) -> PGDState:
        x = problem.x
        if problem.start_from is not None:
            x = geometry.project(problem.start_from, x, problem.eps, problem.norm)
        return PGDState(torch.zeros_like(problem.y), x)

    def step(self, problem: Problem, state: PGDState) -> PGDState:
        return PGDState(state.t, climb(problem, state.x, self.rel_step))

    def finish(self, problem: Problem, state: PGDState) -> None:
        problem.offer(state.x)
