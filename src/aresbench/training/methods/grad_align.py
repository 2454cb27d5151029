"""GradAlign: keep the loss straight enough for one step to be the worst one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from aresbench.attacks import geometry
from aresbench.attacks.settings import check_number
from aresbench.training.losses import misalignment, soft_cross_entropy
from aresbench.training.methods.base import Lesson, Method


@dataclass(frozen=True)
class GradAlign(Method):
    """Adversarial training with input gradients that agree in the ball (Andriushchenko and Flammarion, 2020).

    CE(f(x′), y) + λ · (1 − cos(∇ₓ CE(f(x), y), ∇ₓ CE(f(x + η), y))), with η drawn evenly from the ball. As published
    the recipe's attack is ``fgsm``; others work. One training pass sees x, x + η and x′ together. Gradients of
    gradients are needed, so torch cannot compile the training pass.

    An update costs the attack, and a training pass over three copies of the batch, two of them derived twice.

    Args:
        weight: the λ of the regulariser: 0.2 for CIFAR-10 at ε = 8/255; it must grow with ε.
    """

    weight: float = 0.2

    paper: ClassVar[str] = (
        "M. Andriushchenko and N. Flammarion. Understanding and Improving Fast Adversarial Training. NeurIPS 2020. "
        "arXiv:2007.02617"
    )
    choose_when: ClassVar[str] = "single-step training collapses at a large budget, and memory is there"
    compiles: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number(self, "weight")

    def learn(self, lesson: Lesson) -> None:
        worst = lesson.attack()
        near = geometry.neighbour(lesson.x, lesson.eps, lesson.norm, lesson.streams, "grad-align").clamp_(0, 1)
        pair = torch.cat((lesson.x, near))

        def objective() -> torch.Tensor:
            images = torch.cat((pair, worst)).requires_grad_()
            logits = lesson.forward(images)
            value = soft_cross_entropy(logits, lesson.labels.repeat(3, 1))
            here, there, attacked = value.chunk(3)
            (slope,) = torch.autograd.grad(here.sum() + there.sum(), images, create_graph=True)
            first, second, _ = slope.chunk(3)
            return attacked + self.weight * misalignment(first, second)

        lesson.update(objective)
