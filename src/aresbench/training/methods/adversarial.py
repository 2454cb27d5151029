"""Adversarial training: learn from the worst images of each ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aresbench.training.losses import soft_cross_entropy
from aresbench.training.methods.base import Lesson, Method


@dataclass(frozen=True)
class Adversarial(Method):
    """Cross-entropy on attacked images only (PGD-AT: Madry et al., 2018).

    min_θ E max_{x′ in the ball} CE(f(x′), y), where x′ is found by the recipe's attack. An update costs the attack (K
    gradients for each image) and one training pass. Usual attacks: ``pgd(steps=10, rel_step=0.25)`` for small
    pictures, ``pgd(steps=3, rel_step=2/3)`` or ``apgd-ce(steps=2)`` for ImageNet.

    Fast adversarial training (FGSM-RS: Wong, Rice and Kolter, 2020. arXiv:2001.03994) is this method with the attack
    ``pgd(steps=1, rel_step=1.25)``: a point drawn from the ball, one step of 1.25 · ε, and back into the ball. It
    needs no method of its own. Single-step training may collapse: see ``watch.overfitting``.
    """

    paper: ClassVar[str] = (
        "A. Madry, A. Makelov, L. Schmidt, D. Tsipras and A. Vladu. Towards Deep Learning Models Resistant to "
        "Adversarial Attacks. ICLR 2018. arXiv:1706.06083"
    )
    choose_when: ClassVar[str] = "you want the standard method; the paper's benchmark models are trained so"

    def learn(self, lesson: Lesson) -> None:
        worst = lesson.attack()
        lesson.update(lambda: soft_cross_entropy(lesson.forward(worst), lesson.labels))
