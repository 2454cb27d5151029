"""N-FGSM: one step from strong noise, and nothing is brought back into the ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aresbench.attacks import geometry
from aresbench.attacks.settings import check_number
from aresbench.training.losses import soft_cross_entropy
from aresbench.training.methods.base import Lesson, Method


@dataclass(frozen=True)
class NFGSM(Method):
    """Cross-entropy on images that were given strong noise and then attacked by FGSM (de Jorge et al., 2022).

    x′ = x + η + ε · sign ∇ₓ CE(f(x + η), y), with η drawn evenly from the ball of size k · ε and x′ clipped to [0, 1]
    only. So x′ may be (k + 1) · ε away from x: the noise is an augmentation, and the recipe's ``fgsm`` attacks the
    noisy image within ε. That is why this is a method: an attack may not leave its budget. Fast adversarial training
    with a random start (FGSM-RS: Wong, Rice and Kolter, 2020) stays within it, and is the method ``adversarial`` with
    the attack ``pgd(steps=1, rel_step=1.25)``.

    An update costs one gradient and one training pass for each image, as FGSM training, without its collapse at the
    usual budgets.

    Args:
        k: size of the noise in units of ε: 2 for small pictures; the paper has 1 for ImageNet.
    """

    k: float = 2.0

    paper: ClassVar[str] = (
        "P. de Jorge, A. Bibi, R. Volpi, A. Sanyal, P. H. S. Torr, G. Rogez and P. K. Dokania. Make Some Noise: "
        "Reliable and Efficient Single-Step Adversarial Training. NeurIPS 2022. arXiv:2202.01181"
    )
    choose_when: ClassVar[str] = "you can afford a single step, and FGSM training collapses"
    single_step: ClassVar[str] = "fgsm"

    def __post_init__(self) -> None:
        check_number(self, "k")

    def learn(self, lesson: Lesson) -> None:
        noisy = geometry.neighbour(lesson.x, self.k * lesson.eps, lesson.norm, lesson.streams, "n-fgsm").clamp_(0, 1)
        worst = lesson.attack(around=noisy)
        lesson.update(lambda: soft_cross_entropy(lesson.forward(worst), lesson.labels))
