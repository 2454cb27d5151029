"""AutoAttack: the field's standard list of attacks, and a quicker one of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aresbench.attacks.base import Ensemble
from aresbench.attacks.settings import check_choice

NORMS = ("linf", "l2", "l1")
VERSIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "standard": {
        "linf": ("apgd-ce", "apgd-t", "fab-t", "square"),
        "l2": ("apgd-ce", "apgd-t", "fab-t", "square"),
        "l1": ("apgd-ce(restarts=5)", "apgd-t(targets=5)", "fab-t", "square"),
    },
    "plus": dict.fromkeys(
        NORMS, ("apgd-ce(restarts=5)", "apgd-dlr(restarts=5)", "fab(restarts=5)", "square", "apgd-t", "fab-t")
    ),
    "rand": dict.fromkeys(NORMS, ("eot(attack=apgd-ce, draws=20)", "eot(attack=apgd-dlr, draws=20)")),
    "fast": dict.fromkeys(NORMS, ("apgd-pm", "apgd-ce", "apgd-t(targets=4)", "square(queries=500)")),
}
"""Version → norm → the specs of its attacks, in order."""


@dataclass(frozen=True)
class AutoAttack(Ensemble):
    """Four parameter-free attacks, one after the other, and the worst case counts (Croce and Hein, 2020).

    An image is broken if one of them breaks it; each sees only what those before it left standing.

    Args:
        version: ``standard`` (APGD-CE, APGD-T towards 9 classes, FAB-T towards 9, Square with 5000 queries; under
            L1 with the settings of Croce and Hein, 2021), comparable with RobustBench; ``plus`` (also APGD-DLR and
            FAB, five restarts); ``rand``, for models that draw (APGD-CE and -DLR, each step the mean of 20 draws);
            ``fast``, an order of our own (APGD on the probability margin first, then on the cross-entropy, four
            targets, 500 queries): about as strong at a fraction of the price, and not what others call AutoAttack.
    """

    version: str = "standard"

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "F. Croce and M. Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse "
        "Parameter-free Attacks. ICML 2020. arXiv:2003.01690"
    )
    choose_when: ClassVar[str] = "you report a number that others will compare with theirs"

    def __post_init__(self) -> None:
        check_choice(self, "version", VERSIONS)

    def attacks(self, norm: str) -> tuple[str, ...]:
        return VERSIONS[self.version][norm]
