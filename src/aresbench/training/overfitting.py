"""Catastrophic overfitting: robustness that exists against one step only, seen before a night is lost to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from aresbench.core.budget import Budget
from aresbench.core.errors import SpecError
from aresbench.training.learner import Learner, training_attack
from aresbench.training.methods.adversarial import Adversarial
from aresbench.training.watch import HeldOut

IMAGES = 128
SINGLE, MULTIPLE = "fgsm", "pgd(steps=10)"


@dataclass(frozen=True)
class Verdict:
    """One look.

    Args:
        fgsm, pgd: accuracy on held-out images under one step and under ten; of several budgets, at the one where they
            differ most.
        collapsed: is the first only a mask?
        message: in words, where it is.
    """

    fgsm: float
    pgd: float
    collapsed: bool
    message: str = ""


class Guard:
    """Compares FGSM with PGD accuracy now and then, where training attacks with a single step (Wong et al., 2020).

    Each budget of the threat is looked at, at the size to which it has grown.

    Args:
        learner: what learns.

    Raises:
        SpecError: the attack after a rollback cannot train.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        recipe, watch = learner.recipe, learner.recipe.watch
        self.active = watch.overfitting != "ignore" and learner.method.robust and learner.attack.total_steps == 1
        self.every = watch.check_every or max(1, learner.per_epoch // 10)
        self.best = [0.0] * len(recipe.threat.budgets)
        self.rescued = False
        try:
            self._rescue_attack = training_attack(replace(recipe, threat=replace(recipe.threat, attack=watch.rescue)))
        except SpecError as error:
            raise SpecError(error.problem.replace("threat.attack", "watch.rescue"), error.remedy) from None

    def due(self) -> bool:
        """Is it time to look?"""
        return self.active and self.learner.step % self.every == 0

    def look(self, watched: HeldOut) -> Verdict:
        """Measure both accuracies on some held-out images."""
        verdicts = [self._look(watched, k) for k in range(len(self.best))]
        return max(verdicts, key=lambda verdict: (verdict.collapsed, verdict.fgsm - verdict.pgd))

    def _look(self, watched: HeldOut, which: int) -> Verdict:
        learner, gap = self.learner, self.learner.recipe.watch.gap
        whole, grown = learner.recipe.threat.parsed[which], learner.grown(learner.recipe.threat.budget_warmup)
        budget = Budget(whole.norm, whole.eps * Fraction(grown).limit_denominator(10**6))
        model = learner.spread.whole(learner.classifier)
        fgsm, pgd = (watched.measure(model, a, str(budget), IMAGES).robust for a in (SINGLE, MULTIPLE))
        best = self.best[which]
        # While a budget grows accuracy falls with it, and half of next to nothing is chance.
        halved = best >= gap and pgd < best / 2
        if grown == 1.0:
            self.best[which] = max(best, pgd)
        if not (fgsm - pgd > gap or halved):
            return Verdict(fgsm, pgd, False)
        return Verdict(
            fgsm,
            pgd,
            True,
            f"catastrophic overfitting at update {learner.step:,}: accuracy on held-out images at {budget} is "
            f"{fgsm:.0%} under FGSM and {pgd:.0%} under PGD-10 (best so far {best:.0%})",
        )

    def act(self, restore: Callable[[], bool]) -> bool:
        """After a collapse: go back and attack harder, if the recipe says so and it has not been done; else False."""
        watch = self.learner.recipe.watch
        if watch.overfitting != "rollback" or self.rescued or not restore():
            return False
        self._rescue()
        self.learner.notes.append(f"rolled back to update {self.learner.step:,}, from there on {watch.rescue}")
        return True

    def _rescue(self) -> None:
        self.rescued, self.active = True, False
        self.learner.attack = self._rescue_attack
        if self.learner.method.single_step:  # it is made of the attack that failed
            self.learner.method = Adversarial()

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"best": self.best, "rescued": self.rescued}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.best = list(state["best"])
        if state["rescued"]:
            self._rescue()
