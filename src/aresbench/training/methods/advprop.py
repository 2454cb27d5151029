"""AdvProp: attacked images help accuracy on clean ones, once batch norm keeps the two apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from aresbench.core.errors import SpecError
from aresbench.training.losses import soft_cross_entropy
from aresbench.training.methods.base import Lesson, Method


@dataclass(frozen=True)
class AdvProp(Method):
    """Cross-entropy on clean and on attacked images, each with batch norms of their own (Xie et al., 2020).

    CE(f(x), y) + CE(f_aux(x′), y), where f_aux shares all weights with f but those of batch norm (timm's split batch
    norm; the auxiliary layers see the second half of the training pass). The recipe's attack climbs f_aux. The main
    layers alone are measured and saved: the weights fit the plain architecture. The aim is accuracy on clean and
    corrupted images, not under attack, so the best weights are chosen by clean accuracy.

    An update costs the attack, and one training pass over two copies of the batch. The paper attacks with
    ``pgd(steps=5)`` at ε = 4/255, for small networks with one step at 1/255.
    """

    paper: ClassVar[str] = (
        "C. Xie, M. Tan, B. Gong, J. Wang, A. Yuille and Q. V. Le. Adversarial Examples Improve Image Recognition. "
        "CVPR 2020. arXiv:1911.09665"
    )
    choose_when: ClassVar[str] = "you want better accuracy on clean and corrupted images from a network with batch norm"
    robust: ClassVar[bool] = False

    def prepare(self, module: nn.Module) -> nn.Module:
        from timm.layers.split_batchnorm import convert_splitbn_model

        norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        if not norms:
            raise SpecError(
                "advprop gives attacked images a batch norm of their own, and this architecture has none",
                'take one with batch norm, e.g. timm:resnet50, or method = "adversarial"',
            )
        if any(isinstance(norm, nn.SyncBatchNorm) for norm in norms):
            raise SpecError(
                "advprop splits batch norms, which synchronised ones cannot be", "set engine.sync_batch_norm = false"
            )
        split: nn.Module = convert_splitbn_model(module, num_splits=2)
        return split

    def learn(self, lesson: Lesson) -> None:
        worst = lesson.attack()
        both, labels = torch.cat((lesson.x, worst)), lesson.labels.repeat(2, 1)

        def objective() -> torch.Tensor:
            clean, attacked = soft_cross_entropy(lesson.forward(both), labels).chunk(2)
            return clean + attacked

        lesson.update(objective)
