"""Adversarial training: learn from the worst images of each ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aresbench.training.losses import soft_cross_entropy
from aresbench.training.methods.base import Lesson, Method


@dataclass(frozen=True)
class Adversarial(Method):
    """Cross-entropy on attacked images only (PGD-AT: Madry et al., 2018).

    With the attack ``fgsm`` and its relatives this is single-step training; the recipe's attack says how strong the
    adversary is.
    """

    paper: ClassVar[str] = (
        "A. Madry, A. Makelov, L. Schmidt, D. Tsipras and A. Vladu. Towards Deep Learning Models Resistant to "
        "Adversarial Attacks. ICLR 2018. arXiv:1706.06083"
    )
    choose_when: ClassVar[str] = "you want the standard method; the paper's benchmark models are trained so"

    def learn(self, lesson: Lesson) -> None:
        worst = lesson.attack()
        lesson.update(lambda: soft_cross_entropy(lesson.forward(worst), lesson.labels))
