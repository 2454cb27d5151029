"""EOT: any attack, on the mean of many answers of a model that draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from aresbench.attacks.base import Attack, Loss, Problem
from aresbench.attacks.load import describe, make_attack
from aresbench.attacks.settings import check_whole
from aresbench.core.errors import SpecError


class Averaged:
    """A problem whose model answers with the mean of several draws, each of which is asked for and counted.

    Losses and their gradients are averaged over the draws, so that the gradient is that of the expected loss.
    The logits are the logarithm of the mean probabilities, as where the engine judges a model that draws: what
    is offered as a break is one by the same rule. With one draw all is as it was, to the bit.

    Args:
        problem: what is asked.
        draws: how often.
    """

    def __init__(self, problem: Problem, draws: int) -> None:
        self.problem, self.draws = problem, draws
        self.x, self.y, self.target, self.start_from = problem.x, problem.y, problem.target, problem.start_from
        self.eps, self.norm, self.streams, self.num_classes = (
            problem.eps,
            problem.norm,
            problem.streams,
            problem.num_classes,
        )

    def query(self, x: Tensor, owner: Tensor | None = None) -> Tensor:
        return self._mean([self.problem.query(x, owner) for _ in range(self.draws)])

    def differentiable(self, x: Tensor, owner: Tensor | None = None) -> Tensor:
        with torch.enable_grad():
            return self._mean([self.problem.differentiable(x, owner) for _ in range(self.draws)])

    def gradient(
        self, x: Tensor, loss: Loss | None = None, owner: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        answer, value, gradient = self.problem.gradient(x, loss, owner)
        answers = [answer]
        for _ in range(self.draws - 1):
            answer, again, slope = self.problem.gradient(x, loss, owner)
            answers.append(answer)
            value, gradient = value + again, gradient + slope
        return self._mean(answers), value / self.draws, gradient / self.draws

    def offer(
        self, x: Tensor, logits: Tensor | None = None, owner: Tensor | None = None, step: Tensor | None = None
    ) -> None:
        self.problem.offer(x, self.query(x, owner) if logits is None else logits, owner, step)

    def give_up(self, which: Tensor) -> None:
        self.problem.give_up(which)

    def adversarial(self, logits: Tensor, owner: Tensor | None = None) -> Tensor:
        return self.problem.adversarial(logits, owner)

    @staticmethod
    def _mean(answers: list[Tensor]) -> Tensor:
        if len(answers) == 1:
            return answers[0]
        return torch.stack([a.log_softmax(1) for a in answers]).logsumexp(0) - math.log(len(answers))


@dataclass(frozen=True)
class EOT(Attack):
    """Any attack on the expectation over a model's random draws (Athalye, Engstrom, Ilyas and Kwok, 2018).

    A defence that draws in its forward pass (noise, random resizing, dropout) shows an attack another model at
    every step. Here each question is asked ``draws`` times, one forward (and backward) pass each: losses and
    gradients are averaged over the draws, and a point counts as a break where the mean of the probabilities does.

    Norms, access and kind are those of the attack inside. Where that counts queries, each is asked ``draws`` times.
    The expected cross-entropy is dominated by the draws that are lost already: under random resizing and padding
    the margin inside, ``eot(attack=pgd(loss=margin))``, breaks twice as many of the digits.

    Args:
        attack: the attack inside, as a text: ``eot(attack=pgd(steps=50))``. Not one that sees labels only: it
            has no answers that could be averaged.
        draws: answers averaged for each question.
    """

    attack: str = "apgd-ce"
    draws: int = 20

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "A. Athalye, L. Engstrom, A. Ilyas and K. Kwok. Synthesizing Robust Adversarial Examples. ICML 2018. "
        "arXiv:1707.07397"
    )
    choose_when: ClassVar[str] = "the model draws random numbers when it answers"

    def __post_init__(self) -> None:
        check_whole(self, "draws", least=1)
        inner = make_attack(self.attack)
        if inner.access == "label":
            raise SpecError(
                f"{self.attack} sees labels only, and eot averages answers", "name an attack that asks for logits"
            )
        # The card above is the default's; this object's facts are those of the attack inside. Its revision counts:
        # other numbers inside are other numbers here.
        facts = {"norms": inner.norms, "access": inner.access, "kind": inner.kind}
        revision = type(self).revision + inner.revision - 1
        for name, value in {**facts, "revision": revision, "attack": describe(inner)}.items():
            object.__setattr__(self, name, value)

    @cached_property
    def inner(self) -> Attack:
        """The attack inside."""
        return make_attack(self.attack)

    @property
    def total_steps(self) -> int:
        return self.inner.total_steps

    @property
    def passes(self) -> int:
        return self.draws * self.inner.passes

    def steps_for(self, problem: Problem) -> int:
        return self.inner.steps_for(problem)

    def start(self, problem: Problem) -> Any:
        return self.inner.start(Averaged(problem, self.draws))

    def step(self, problem: Problem, state: Any) -> Any:
        return self.inner.step(Averaged(problem, self.draws), state)

    def finish(self, problem: Problem, state: Any) -> None:
        self.inner.finish(Averaged(problem, self.draws), state)
