"""AutoAttack: the field's standard list of attacks, and a quicker one of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aresbench.attacks.base import Ensemble
from aresbench.attacks.settings import check_choice

VERSIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "standard": {
        "linf": ("apgd-ce", "apgd-t", "fab-t", "square"),
        "l2": ("apgd-ce", "apgd-t", "fab-t", "square"),
        "l1": ("apgd-ce(restarts=5)", "apgd-t(targets=5)", "fab-t", "square"),
    },
}


@dataclass(frozen=True)
class AutoAttack(Ensemble):
    """Four parameter-free attacks, one after the other, and the worst case counts (Croce and Hein, 2020).

    An image is broken if one of them breaks it; each sees only what those before it left standing.

    Args:
        version: ``standard`` (APGD-CE, APGD-T towards 9 classes, FAB-T towards 9, Square with 5000 queries; under
            L1 with the settings of Croce and Hein, 2021), comparable with RobustBench.
    """

    version: str = "standard"

    norms: ClassVar[tuple[str, ...]] = ("linf",)
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
