"""Every curve as a table, one row a point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from aresbench.metrics import Curve
from aresbench.report.progress import Progress
from aresbench.report.reading import Reading
from aresbench.report.summary import Section, summarise
from aresbench.store import Cell

WORST = "worst case"


def curve_points(cells: Iterable[Cell | Reading]) -> pd.DataFrame:
    """All curves over budgets, steps, queries, severities and radii, one row a model and point.

    Columns: ``dataset, model, curve`` (the task, ``worst case`` over the tasks of a norm, the corruption or filter),
    ``axis`` (budget, step, query, severity or radius), ``attack``, ``norm, budget, x``, ``measure`` (accuracy; attack
    success, among the images right at first; accuracy in 8 bits), ``value``, its 95 % interval ``low, high`` for this
    point alone, the band ``band_low, band_high`` that holds the whole curve at once with 95 %, and ``n``.

    Raises:
        StoreError: no image has been measured yet.
    """
    parts: list[pd.DataFrame] = []
    for section in summarise(cells).sections:
        for curves in section.curves:
            where = {
                "curve": WORST if curves.joined else curves.name,
                "axis": "budget",
                "attack": ", ".join(curves.attacks),
                "norm": curves.norm,
                "budget": list(curves.budgets),
            }
            kinds = {
                "accuracy": curves.curves,
                "attack success": curves.success,
                "accuracy in 8 bits": curves.in_8_bits,
            }
            parts += _tables(section, where, kinds)
        for part in section.progress:
            parts += _tables(section, _place(part), {"accuracy": part.curves, "attack success": part.success})
        for axis, found in (("severity", section.severity), ("radius", section.filters)):
            for name, by_model in found.items():
                where = {"curve": name, "axis": axis, "attack": "", "norm": "", "budget": ""}
                parts += _tables(section, where, {"accuracy": by_model})
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _place(part: Progress) -> dict[str, str]:
    name = part.attack or WORST
    return {"curve": name, "axis": part.axis, "attack": name, "norm": part.norm, "budget": part.eps}


def _tables(
    section: Section, where: Mapping[str, object], kinds: Mapping[str, Mapping[str, Curve]]
) -> list[pd.DataFrame]:
    names = ("value", "low", "high", "band_low", "band_high", "n")
    return [
        pd.DataFrame(
            {
                "dataset": section.dataset,
                "model": model,
                **where,
                "x": curve.x,
                "measure": measure,
                **{name: getattr(curve, name) for name in names},
            }
        )
        for measure, curves in kinds.items()
        for model, curve in curves.items()
    ]
