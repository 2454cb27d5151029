"""Curves that are known to be too high: another task broke what their own attacks left standing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aresbench.metrics.budgets import as_float
from aresbench.report.curves import is_ladder
from aresbench.report.reading import Reading, budget_label, common_ids
from aresbench.report.words import counted

NAME = "curve-too-kind"
FEWEST, SHARE = 3, 0.05  # images, and share of all, from which on more than chance and random starts are at work
REMEDY = "search the curve with the stronger attack: name it in the ladder's list of attacks"


def weak_curves(models: Mapping[str, Sequence[Reading]]) -> list[tuple[str, str, str]]:
    """Model, task and finding of each ladder that another task of the same norm puts to shame.

    An image counts if it stood on a rung of the ladder at or above the other task's budget, and broke there.
    Where both were tried the report shows the worst case; at the rungs between, the ladder's attacks stand alone.

    Args:
        models: label → its cells on one dataset.
    """
    found = []
    for model, group in models.items():
        known = [r for r in group if r.plain_adversary]
        for ladder in filter(is_ladder, known):
            others = [(r, eps) for r in known if r is not ladder and r.norm == ladder.norm for eps in r.pinned]
            missed = [(*_missed(ladder, other, eps), other.name, eps) for other, eps in others]
            count, stood, n, name, eps = max(missed, default=(0, 0, 0, "", ""))
            if count >= max(FEWEST, SHARE * n):
                at = budget_label(ladder.norm, eps)
                said = f"at {at} {name} broke {count} of the {counted(stood, 'image')} that the attacks of this curve "
                found.append(
                    (model, ladder.name, said + "left standing: at the budgets that they alone tried it is too high")
                )
    return found


def _missed(ladder: Reading, other: Reading, eps: str) -> tuple[int, int, int]:
    """Images that stood on the ladder's next rung and broke in the other task, all that stood there, and all."""
    above = [rung for rung in map(as_float, ladder.rungs) if rung >= as_float(eps)]
    ids = common_ids([ladder, other])
    if not above or not len(ids):
        return 0, 0, 0
    stood = ladder.breaking.reindex(ids).to_numpy() > min(above)
    broke = other.breaking.reindex(ids).to_numpy() <= as_float(eps)
    return int(np.sum(stood & broke)), int(np.sum(stood)), len(ids)
