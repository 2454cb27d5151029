"""MART: what is not learned yet on clean images counts more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from aresbench.attacks.settings import check_number
from aresbench.training import losses
from aresbench.training.methods.base import Lesson, Method
from aresbench.training.methods.trades import START


@dataclass(frozen=True)
class Mart(Method):
    """Boosted cross-entropy on attacked images, and agreement where clean images are unsure (Wang et al., 2020).

    BCE(p(x′), y) + β · KL(p(x) ‖ p(x′)) · (1 − p_y(x)), with BCE = CE(p(x′), y) − log(1.0001 − max_{k≠y} p_k(x′)).
    The recipe's attack raises cross-entropy, starting at x + 0.001 · N(0, 1) as published. One training pass sees
    clean and attacked images together, so batch norm takes its statistics over both (the authors' code makes two).

    An update of K-step attacks costs K gradients for each image in the attack, and one training pass over two
    copies of the batch. Published setting (CIFAR-10, ε = 8/255): ``pgd(steps=10, rel_step=0.226)``. Its robustness
    under AutoAttack is often below that of TRADES, though PGD says otherwise.

    Args:
        beta: weight of the agreement: 6 as in the authors' code; the paper says 5.
    """

    beta: float = 6.0

    paper: ClassVar[str] = (
        "Y. Wang, D. Zou, J. Yi, J. Bailey, X. Ma and Q. Gu. Improving Adversarial Robustness Requires Revisiting "
        "Misclassified Examples. ICLR 2020"
    )
    choose_when: ClassVar[str] = "many training images are still misclassified, and you will check with AutoAttack"

    def __post_init__(self) -> None:
        check_number(self, "beta")

    def learn(self, lesson: Lesson) -> None:
        noise = lesson.streams.normal("mart", lesson.x.shape[1:])
        worst = lesson.attack(start_from=lesson.x + START * noise)
        both = torch.cat((lesson.x, worst))

        def objective() -> torch.Tensor:
            clean, attacked = lesson.forward(both).chunk(2)
            return losses.mart(clean, attacked, lesson.y, lesson.labels, self.beta)

        lesson.update(objective)
