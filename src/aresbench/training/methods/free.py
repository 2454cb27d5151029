"""Free adversarial training: one backward pass moves the weights and the perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry
from aresbench.attacks.settings import check_whole
from aresbench.training.losses import soft_cross_entropy
from aresbench.training.methods.base import Lesson, Method


@dataclass(frozen=True)
class Free(Method):
    """Batches are replayed, and each backward pass moves weights and perturbation (Shafahi et al., 2019).

    Replay by replay, with one backward pass: θ ← θ − lr · ∇_θ CE(f(x + δ), y), and δ ← P(δ + ε · sign ∇ₓ CE(f(x + δ),
    y)), where P is the projection onto ball and box. As published δ is 0 before the first batch only: each batch
    begins with what the one before left behind (checkpoints hold it). The slope is that of the training pass, batch
    statistics and all.

    An update of the schedule is one batch: it moves the weights ``replays`` times at one learning rate and costs as
    many training passes, and no attack. For the published cost divide the epochs by ``replays``.
    The step is that of the attack ``fgsm``, which the recipe must name.

    Args:
        replays: how often a batch is learned from: 8 for CIFAR-10, 4 for ImageNet.
    """

    replays: int = 4

    paper: ClassVar[str] = (
        "A. Shafahi, M. Najibi, A. Ghiasi, Z. Xu, J. Dickerson, C. Studer, L. S. Davis, G. Taylor and T. Goldstein. "
        "Adversarial Training for Free! NeurIPS 2019. arXiv:1904.12843"
    )
    choose_when: ClassVar[str] = "you want some robustness for the price of standard training"
    single_step: ClassVar[str] = "fgsm"
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_whole(self, "replays", least=1)

    def learn(self, lesson: Lesson) -> None:
        x, eps, norm = lesson.x, lesson.eps, lesson.norm
        change = torch.zeros_like(x) if lesson.carried is None else lesson.carried
        for _ in range(self.replays):
            attacked = geometry.project_(x + change, x, eps, norm).requires_grad_()

            def objective(attacked: Tensor = attacked) -> Tensor:
                return soft_cross_entropy(lesson.forward(attacked), lesson.labels)

            lesson.update(objective)
            slope = attacked.grad
            assert slope is not None
            moved = geometry.ascend(attacked.detach(), slope, eps, norm)
            change = geometry.project_(moved, x, eps, norm) - x
        lesson.carried = change
