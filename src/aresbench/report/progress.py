"""How far attacks get at a pinned budget with each step and each query: one by one, and all side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aresbench.core.budget import parse_fraction
from aresbench.core.spec import parse_call
from aresbench.metrics import Curve, earliest, query_curve
from aresbench.metrics.budgets import as_float
from aresbench.metrics.score import Floats
from aresbench.report.reading import Reading, common_ids, evidence
from aresbench.report.transfer_matrix import is_transfer

AXES = ("step", "query")
POINTS = 120  # of a curve; longer runs are drawn at points that lie ever farther apart


@dataclass(frozen=True)
class Progress:
    """Accuracy, and attack success, after each step (or query) of runs at one pinned budget, one curve a model.

    Args:
        axis: ``step`` or ``query``.
        attack: the attack's spec text; ``""`` for the worst case: all attacks of all tasks run side by side, and
            an image is lost as soon as one of them has broken it. It ends at the number of the table of models.
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
    broken it, counts as broken from the start: the curve of a later attack shows what it added. Transfers have no
    curve, since nobody asked the model about their images before the last.
    """
    found: dict[tuple[str, str, str, str], dict[str, _Run]] = {}
    for model, group in models.items():
        known = [r for r in group if r.plain_adversary and not r.attempts.empty]
        for norm, eps in sorted({(r.norm, eps) for r in known if not is_transfer(r) for eps in r.pinned}):
            same = [r for r in known if r.norm == norm]
            for axis in AXES:
                for run in _runs(same, eps, axis):
                    of_models = found.setdefault((axis, norm, eps, run.attack), {})
                    if model not in of_models or of_models[model].met < run.met:
                        of_models[model] = run
    order = sorted(found, key=lambda k: (AXES.index(k[0]), k[1] != "linf", k[1], parse_fraction(k[2]), k[3] != ""))
    return tuple(_progress(*key, found[key]) for key in order)


def _progress(axis: str, norm: str, eps: str, attack: str, runs: Mapping[str, _Run]) -> Progress:
    grid = _grid(max(run.length for run in runs.values()))
    curves = {model: query_curve(run.first, run.right, grid) for model, run in runs.items()}
    success = {model: query_curve(run.first, run.right, grid, success=True) for model, run in runs.items()}
    return Progress(axis, attack, norm, eps, curves, success)


@dataclass(frozen=True, eq=False)
class _Run:
    """When an attack (``""``: any of several) first broke each image.

    Args:
        attack: its spec text.
        first: NaN where it did not.
        right: before any attack.
        length: of a whole run.
        met: how many images it was let loose on.
    """

    attack: str
    first: Floats
    right: NDArray[np.bool_]
    length: int
    met: int


def _runs(known: Sequence[Reading], eps: str, axis: str) -> list[_Run]:
    """One model's runs at one budget: of every attack of every task pinned there, and the worst case of all."""
    pinned = [r for r in known if eps in r.pinned and not is_transfer(r)]
    timed: list[pd.Series] = []
    singles: list[_Run] = []
    met_by_any: set[str] = set()
    for reading in pinned:
        tried = reading.attempts
        runs = tried[tried["pinned"] & (tried["eps"] == eps) & (tried["start"] == "cold")]
        met_by_any.update(runs["id"])
        ids, breaking = reading.images.index, reading.breaking.to_numpy()
        right, lost = _fates(breaking, eps)
        for attack in map(str, reading.task.get("attacks") or ()):
            mine = runs[runs["attack"] == attack]
            met = ids.isin(mine["id"])
            if mine.empty or not (met | lost | ~right).all():
                continue  # it has not met every image (yet)
            first = mine.set_index("id")[f"first_{axis}"].astype(float)
            timed.append(first)
            filled = np.where(lost & ~met, 0.0, first.reindex(ids).to_numpy())
            singles.append(_Run(attack, filled, right, _length(attack, mine, axis), int(met.sum())))
    if len({attack for r in pinned for attack in r.task.get("attacks") or ()}) < 2:
        return singles
    ids = common_ids(pinned)
    right, lost = _fates(evidence(known, ids), eps)
    if not len(ids) or not (timed or lost[right].all()):
        return singles
    first = earliest([np.full(len(ids), np.nan), *(one.reindex(ids).to_numpy() for one in timed)])
    length = max((run.length for run in singles), default=1)
    # Broken, and nobody knows when: before this budget was tried, or by a search that is not bound to it.
    unknown = lost & np.isnan(first)
    first[unknown] = np.where(ids.isin(met_by_any)[unknown], length, 0)
    return [_Run("", first, right, length, len(ids)), *singles]


def _fates(breaking: Floats, eps: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[N] right before any attack, and [N] right then but broken within the budget."""
    right = breaking > 0
    return right, right & (breaking <= as_float(eps))


def _length(attack: str, runs: pd.DataFrame, axis: str) -> int:
    """How long a whole run is: in steps as planned, in queries (and in steps where none are planned) as the longest."""
    planned = parse_call(attack).kwargs.get("steps", "")
    if axis == "query" or not planned.isdigit():
        return max(1, int(runs["forwards"].max()))
    seen = runs["first_step"].astype(float).max()
    return max(int(planned), 0 if np.isnan(seen) else int(seen))


def _grid(top: int) -> list[int]:
    if top <= POINTS:
        return list(range(top + 1))
    return sorted({0, *np.geomspace(1, top, POINTS).round().astype(int).tolist()})
