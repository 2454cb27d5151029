"""The page's tables of derived numbers: corruption by severity, transfer, calibration, natural shifts."""

from __future__ import annotations

from collections.abc import Sequence

from aresbench.metrics import Score
from aresbench.metrics.shift import NO_BAND
from aresbench.report.calibration import calibration
from aresbench.report.charts import colour
from aresbench.report.corruptions import BASELINE, HeatMap
from aresbench.report.page_tables import Rows, View, score_row, score_view
from aresbench.report.reading import budget_label
from aresbench.report.shifts import FINDINGS, SHOWN, ShiftRow, finding
from aresbench.report.summary import Section
from aresbench.report.transfer_matrix import transfer_matrices
from aresbench.report.words import MISSING, points

_CALIBRATION = (
    ("ece", "ECE ↓", "mean gap between confidence and accuracy, over 15 bins of equal width"),
    ("rms", "RMS error ↓", "root of the mean squared gap, over bins of 100 images sorted by confidence"),
    ("aurra", "AURRA", "mean accuracy on the surest images, over all shares of images answered"),
)


def heat_tables(section: Section, identity: str) -> tuple[list[View], Rows]:
    """Corruption × severity, a table a model and mode; and all of it to download."""
    shown: list[View] = []
    data: Rows = []
    several = len({heat.mode for heat in section.heat}) > 1
    for heat in section.heat:
        rows = [
            {
                "name": row.corruption.replace("_", " "),
                "ordered": row.ordered,
                "cells": [_heat(score) for score in row.scores],
                "mean": _heat(row.mean),
                "error": _heat(row.error),
            }
            for row in heat.rows
        ]
        shown.append(
            {
                "model": heat.model,
                "title": heat.model + (f" · {heat.mode}" if several or heat.mode != "memory" else ""),
                "severities": heat.severities,
                "rows": rows,
                "baseline": BASELINE if any(row.error for row in heat.rows) else "",
            }
        )
        data += _heat_rows(heat)
    return shown, data


def _heat(score: Score | None) -> View | None:
    view = score_view(score)
    return view if view is None or score is None else {**view, "share": round(min(max(score.value, 0.0), 1.0), 4)}


def _heat_rows(heat: HeatMap) -> Rows:
    rows: Rows = []
    for row in heat.rows:
        about = {"model": heat.model, "mode": heat.mode, "corruption": row.corruption}
        for severity, score in zip(heat.severities, row.scores, strict=True):
            rows.append({**about, "severity": severity, "measure": "accuracy", **score_row(score)})
        rows.append({**about, "severity": "mean", "measure": "accuracy", **score_row(row.mean)})
        if row.error is not None:
            rows.append({**about, "severity": "mean", "measure": f"CE ({BASELINE})", **score_row(row.error)})
    return rows


def transfer_tables(section: Section) -> tuple[list[View], Rows]:
    """Source × target, a table an attack and budget; and all of it to download."""
    shown: list[View] = []
    data: Rows = []
    for matrix in transfer_matrices(section.models):
        budget = budget_label(matrix.norm, matrix.eps)
        rows = [
            {
                "source": source,
                "cells": [
                    {"own": source == target, "score": _heat(matrix.scores[source].get(target))}
                    for target in matrix.targets
                ],
            }
            for source in matrix.sources
        ]
        shown.append({"title": f"{matrix.attack} · {budget}", "targets": matrix.targets, "rows": rows})
        for source in matrix.sources:
            for target, score in matrix.scores[source].items():
                about = {"attack": matrix.attack, "budget": budget, "source": source, "target": target}
                data.append({**about, "measure": "accuracy", **score_row(score)})
    return shown, data


def calibration_table(section: Section, models: Sequence[str]) -> tuple[View | None, Rows]:
    """ECE, RMS calibration error and AURRA of every model on its clean task."""
    found = calibration(section.models)
    rows = []
    data: Rows = []
    for model, numbers in found.items():
        scores = {key: getattr(numbers, key) for key, _, _ in _CALIBRATION}
        cells = [score_view(score) for score in scores.values()]
        rows.append({"model": model, "colour": colour(models.index(model)), "cells": cells, "n": numbers.ece.n})
        record: View = {"model": model, "dataset": section.dataset}
        for key, score in scores.items():
            record.update(score_row(score, f"{key} "))
        data.append(record)
    if not rows:
        return None, []
    return {"columns": [{"label": label, "hint": hint} for _, label, hint in _CALIBRATION], "rows": rows}, data


def shift_table(rows: Sequence[ShiftRow], models: Sequence[str]) -> tuple[View | None, Rows]:
    """One row a model and shift: both accuracies, the drop, and effective robustness, one column a baseline."""
    if not rows:
        return None, []
    baselines = [name for name in SHOWN if any(name in row.effective for row in rows)]
    shown = []
    data: Rows = []
    for row in rows:
        shown.append(
            {
                "title": row.title,
                "shift": row.shift,
                "parent": row.parent,
                "model": row.model,
                "colour": colour(models.index(row.model)) if row.model in models else "",
                "accuracy": score_view(row.accuracy),
                "before": score_view(row.before),
                "drop": _difference(row.drop),
                "why": row.why,
                "effective": [_difference(row.effective.get(name)) for name in baselines],
                "n": row.accuracy.n,
            }
        )
        data.append(_shift_record(row, baselines))
    without = {name for name in baselines for row in rows if name in row.lines and row.lines[name].residual_sd is None}
    heads = [{"name": name, "hint": _hint(name, name in without)} for name in baselines]
    return {"baselines": heads, "rows": shown}, data


def _hint(baseline: str, without: bool) -> str:
    unknown = f"; {FINDINGS[NO_BAND]}, so how unusual a number is cannot be said" if without else ""
    return f"percentage points above what the line of {baseline} expects{unknown}"


def _shift_record(row: ShiftRow, baselines: Sequence[str]) -> View:
    record: View = {"shift": row.shift, "parent": row.parent, "model": row.model}
    record.update(score_row(row.accuracy, "accuracy "))
    record.update(score_row(row.before, "on the parent "))
    record.update(score_row(row.drop, "drop "))
    for name in baselines:
        score = row.effective.get(name)
        record.update(score_row(score, f"effective robustness ({name}) "))
        record[f"effective robustness ({name}) finding"] = finding(score) if score else ""
    return {**record, "missing": row.why}


def _difference(score: Score | None) -> View:
    if score is None or score.missing:
        return {"value": MISSING, "interval": "", "finding": "", "short": "", "sort": ""}
    value, between = points(score)
    said = finding(score)
    short = "; ".join(part.partition(":")[0] for part in said.split("; ") if part and part != FINDINGS[NO_BAND])
    sort = round(score.value, 6)
    return {"value": value, "interval": between, "finding": said, "short": short, "sort": sort}
