"""Transfer matrices: who is fooled by what an attack made on whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aresbench.core.budget import format_fraction
from aresbench.core.threat import parse_threat
from aresbench.metrics import Score, robust_accuracy
from aresbench.report.flags import flag_names
from aresbench.report.reading import Reading


@dataclass(frozen=True)
class Matrix:
    """One attack at one budget.

    Args:
        attack: its spec text, or several with plus signs: then the worst of them counts.
        norm, eps: the budget.
        sources: the surrogates, one row each (several that are searched together stand in one).
        targets: the models whose accuracy it is, one column each.
        scores: source → target → accuracy under transfer; a pair that was not measured is not there.
    """

    attack: str
    norm: str
    eps: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    scores: Mapping[str, Mapping[str, Score]]


def is_transfer(reading: Reading) -> bool:
    """Did the attacks see another model, so that the one judged was asked about their last images alone?

    The threat is not parsed: it may name what is no attack of this version, or no attack at all.
    """
    return reading.plain_adversary and str(reading.task["threat"]).startswith("transfer(")


def transfer_matrices(models: Mapping[str, Sequence[Reading]]) -> tuple[Matrix, ...]:
    """A matrix for each attack and budget that was transferred, in the order in which they were found.

    Args:
        models: label → its cells.
    """
    found: dict[tuple[str, str, str], dict[str, dict[str, Score]]] = {}
    for model, group in models.items():
        for reading in group:
            if not is_transfer(reading) or (adversary := parse_threat(str(reading.task["threat"])).adversary) is None:
                continue
            source = " + ".join(adversary.surrogates)
            for eps in map(format_fraction, sorted(adversary.ladder.pinned)):
                score = robust_accuracy(reading.breaking, eps).with_flags(flag_names([reading]))
                key = " + ".join(adversary.attacks), adversary.ladder.norm, eps
                found.setdefault(key, {}).setdefault(source, {})[model] = score
    matrices = []
    for key, scores in found.items():
        targets = tuple(model for model in models if any(model in row for row in scores.values()))
        sources = (*(model for model in models if model in scores), *(name for name in scores if name not in models))
        matrices.append(Matrix(*key, sources, targets, scores))
    return tuple(matrices)
