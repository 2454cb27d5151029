"""Catastrophic overfitting: robustness that exists against one step only, seen before a night is lost to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aresbench.attacks.load import make_attack
from aresbench.training.learner import Learner
from aresbench.training.watch import HeldOut

IMAGES = 128
SINGLE, MULTIPLE = "fgsm", "pgd(steps=10)"


@dataclass(frozen=True)
class Verdict:
    """One look.

    Args:
        fgsm, pgd: accuracy on held-out images under one step and under ten.
        collapsed: is the first only a mask?
        message: in words, where it is.
    """

    fgsm: float
    pgd: float
    collapsed: bool
    message: str = ""


class Guard:
    """Compares FGSM with PGD accuracy now and then, where training attacks with a single step (Wong et al., 2020).

    Args:
        learner: what learns.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        watch = learner.recipe.watch
        self.active = watch.overfitting != "ignore" and learner.method.attacks and learner.attack.total_steps == 1
        self.every = watch.check_every or max(1, learner.per_epoch // 10)
        self.best = 0.0
        self.rescued = False

    def due(self) -> bool:
        """Is it time to look?"""
        return self.active and self.learner.step % self.every == 0

    def look(self, watched: HeldOut) -> Verdict:
        """Measure both accuracies on some held-out images."""
        learner, gap = self.learner, self.learner.recipe.watch.gap
        budget = learner.recipe.threat.budgets[0]
        fgsm, pgd = (watched.measure(learner.classifier, a, budget, IMAGES).robust for a in (SINGLE, MULTIPLE))
        masked, halved = fgsm - pgd > gap, pgd < self.best / 2
        self.best = max(self.best, pgd)
        if not (masked or halved):
            return Verdict(fgsm, pgd, False)
        return Verdict(
            fgsm,
            pgd,
            True,
            f"catastrophic overfitting at update {learner.step:,}: accuracy on held-out images is {fgsm:.0%} under "
            f"FGSM and {pgd:.0%} under PGD-10 (best so far {self.best:.0%})",
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
        self.learner.attack = make_attack(self.learner.recipe.watch.rescue)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"best": self.best, "rescued": self.rescued}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.best = state["best"]
        if state["rescued"]:
            self._rescue()
