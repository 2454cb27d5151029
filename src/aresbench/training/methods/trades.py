"""TRADES: accuracy on clean images, and the same answer in the whole ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from aresbench.attacks.base import Loss
from aresbench.attacks.settings import check_number
from aresbench.training import losses
from aresbench.training.methods.base import Lesson, Method

START = 1e-3  # spread of the noise the attack starts from: at the image itself KL and its slope are 0


@dataclass(frozen=True)
class Trades(Method):
    """Cross-entropy on clean images plus β times the divergence of attacked from clean answers (Zhang et al., 2019).

    CE(f(x), y) + β · KL(p(x) ‖ p(x′)), where the recipe's attack raises the same KL, starting at
    x + 0.001 · N(0, 1) as published. One training pass sees clean and attacked images together, so batch norm takes
    its statistics over both.

    An update of K-step attacks costs K gradients and one forward pass for each image in the attack, and one training
    pass over two copies of the batch. Published setting (CIFAR-10, ε = 8/255): ``beta=6`` with
    ``pgd(steps=10, rel_step=0.226)``, a step of 0.007.

    Args:
        beta: weight of robustness against accuracy; clean accuracy falls as it grows.
    """

    beta: float = 6.0

    paper: ClassVar[str] = (
        "H. Zhang, Y. Yu, J. Jiao, E. P. Xing, L. El Ghaoui and M. I. Jordan. Theoretically Principled Trade-off "
        "between Robustness and Accuracy. ICML 2019. arXiv:1901.08573"
    )
    choose_when: ClassVar[str] = (
        "you want to choose the balance of clean and robust accuracy, on small pictures above all"
    )

    def __post_init__(self) -> None:
        check_number(self, "beta")

    def learn(self, lesson: Lesson) -> None:
        noise = lesson.streams.normal("trades", lesson.x.shape[1:])
        worst = lesson.attack(departure(lesson), start_from=lesson.x + START * noise)
        both = torch.cat((lesson.x, worst))

        def objective() -> torch.Tensor:
            clean, attacked = lesson.forward(both).chunk(2)
            return losses.trades(clean, attacked, lesson.labels, self.beta)

        lesson.update(objective)


def departure(lesson: Lesson) -> Loss:
    """KL(p(x) ‖ p(x′)): how far the answer has moved from that to the clean image, asked for once."""
    clean = lesson.answer(lesson.x)
    return lambda logits, y: losses.kl_divergence(clean, logits)
