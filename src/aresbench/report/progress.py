"""How far attacks get at a pinned budget with each step and each query: one by one, and all side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aresbench.core.budget import parse_fraction
from aresbench.core.spec import parse_call
from aresbench.metrics import Curve, earliest, query_curve
from aresbench.metrics.score import Floats
from aresbench.report.reading import Reading

AXES = ("step", "query")
POINTS = 120  # of a curve; longer runs are drawn at points that lie ever farther apart


@dataclass(frozen=True)
class Progress:
    """Accuracy, and attack success, after each step (or query) of runs at one pinned budget, one curve a model.

    Args:
        axis: ``step`` or ``query``.
        attack: the attack's spec text; ``""`` for the worst case: all attacks of the task run side by side, and
            an image is lost as soon as one of them has broken it.
        norm, eps: the budget.
        curves: model → share of all images still right.
        success: model → share broken of the images that were right at first.
    """

    axis: str
    attack: str
    norm: str
    eps: str
    curves: Mapping[str, Curve]
    success: Mapping[str, Curve]


def progress(models: Mapping[str, Sequence[Reading]]) -> tuple[Progress, ...]:
    """Curves over steps and queries of every attack at its pinned budgets, the worst case before the single attacks.

    An image that needed no step here, because a smaller budget or an attack before this one had already
    broken it, counts as broken from the start: the curve of a later attack shows what it added.
    """
    found: dict[tuple[str, str, str, str], tuple[dict[str, Curve], dict[str, Curve]]] = {}
    for model, group in models.items():
        for reading in group:
            if not reading.plain_adversary or reading.attempts.empty:
                continue
            for eps in reading.pinned:
                for axis in AXES:
                    for attack, first, top in _runs(reading, eps, axis):
                        accuracy, success = found.setdefault((axis, reading.norm, eps, attack), ({}, {}))
                        right, grid = reading.breaking.to_numpy() > 0, _grid(top)
                        accuracy[model] = query_curve(first, right, grid)
                        success[model] = query_curve(first, right, grid, success=True)
    order = sorted(found, key=lambda k: (AXES.index(k[0]), k[1] != "linf", k[1], parse_fraction(k[2]), k[3] != ""))
    return tuple(
        Progress(axis, attack, norm, eps, *found[axis, norm, eps, attack]) for axis, norm, eps, attack in order
    )


def _runs(reading: Reading, eps: str, axis: str) -> list[tuple[str, Floats, int]]:
    """(attack, each image's first break, length of the run): the worst case first where there are several attacks."""
    tried = reading.attempts
    runs = tried[tried["pinned"] & (tried["eps"] == eps) & (tried["start"] == "cold")]
    ids, breaking = reading.images.index, reading.breaking.to_numpy()
    lost = (breaking > 0) & (breaking <= float(parse_fraction(eps)))
    timed: dict[str, Floats] = {}
    singles: list[tuple[str, Floats, int]] = []
    for attack in map(str, reading.task.get("attacks") or ()):
        mine = runs[runs["attack"] == attack]
        met = ids.isin(mine["id"])
        if mine.empty or not (met | lost | (breaking == 0)).all():
            continue  # it has not met every image (yet)
        first = mine.set_index("id")[f"first_{axis}"].astype(float).reindex(ids).to_numpy()
        timed[attack] = first
        singles.append((attack, np.where(lost & ~met, 0.0, first), _length(attack, mine, axis)))
    if len(timed) < 2:
        return singles
    first = earliest(list(timed.values()))
    top = max(length for _, _, length in singles)
    # Broken, and nobody knows when: before this budget was tried, or by a search that is not bound to it.
    unknown = lost & np.isnan(first)
    first[unknown] = np.where(ids.isin(runs["id"])[unknown], top, 0)
    return [("", first, top), *singles]


def _length(attack: str, runs: pd.DataFrame, axis: str) -> int:
    """How long a whole run is: in steps as planned, in queries as the longest one was."""
    if axis == "query":
        return max(1, int(runs["forwards"].max()))
    planned = parse_call(attack).kwargs.get("steps", "")
    seen = runs["first_step"].astype(float).max()
    return max(1, int(planned) if planned.isdigit() else 0, 0 if np.isnan(seen) else int(seen))


def _grid(top: int) -> list[int]:
    if top <= POINTS:
        return list(range(top + 1))
    return sorted({0, *np.geomspace(1, top, POINTS).round().astype(int).tolist()})
