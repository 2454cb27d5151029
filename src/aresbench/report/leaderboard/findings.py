"""The paper's three findings, looked for in whatever is loaded: a figure, and one line of what these data show.

The lines count and take medians; they claim nothing about models that are not loaded, and nothing about causes.
Every figure stays within one source, so that no line compares numbers of two protocols.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aresbench.report.leaderboard import plots
from aresbench.report.leaderboard.boards import PUBLISHED, Board, Column, Model
from aresbench.report.words import counted

TRAINED, NOT_TOLD = plots.PARADIGMS[-2:]
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")


@dataclass(frozen=True)
class Finding:
    """One of the paper's findings beside what the loaded models show of it."""

    claim: str
    figures: tuple[tuple[str, str, dict[str, Any]], ...]
    """Title, what these data show, specification."""


def findings(board: Board) -> list[Finding]:
    """All three, each with a figure for every source that has something to show."""
    return [
        Finding(
            "For one architecture, robustness to adversaries and to noise are traded against each other.",
            tuple(_trade_off(board)),
        ),
        Finding(
            "Adversarial training makes models more robust to adversaries, Transformers above all.",
            tuple(_training(board)),
        ),
        Finding(
            "Pre-training with more data, several modalities or self-supervision makes models more robust to natural "
            "shifts.",
            tuple(_pre_training(board)),
        ),
    ]


def _sources(board: Board) -> dict[str, list[Column]]:
    found: dict[str, list[Column]] = {}
    for column in board.columns.values():
        found.setdefault(f"{column.group} ({column.kind})", []).append(column)
    return found


def _first(columns: Iterable[Column], role: str, board: Board) -> Column | None:
    """Of the columns with a role the one that most models have; among equals the lowest, as the severest test."""
    mine = [c for c in columns if c.role == role and c.unit == "%" and c.better == "higher"]

    def weight(column: Column) -> tuple[int, float]:
        values = [m.figures[column.key].value for m in board.models.values() if column.key in m.figures]
        return len(values), -statistics.fmean(values)

    return max(mine, key=weight, default=None)


def _point(model: Model, **values: float) -> dict[str, Any]:
    facts = model.facts
    return {
        "model": model.name, "architecture": facts.get("architecture", "").removeprefix("timm:"), "kind": model.kind,
        "paradigm": facts.get("paradigm") or NOT_TOLD, "flags": ", ".join(model.flags),
        **{name: round(100 * value, 2) for name, value in values.items()},
    }  # fmt: skip


def _trade_off(board: Board) -> Iterable[tuple[str, str, dict[str, Any]]]:
    for source, columns in _sources(board).items():
        robust = _first(columns, "robust", board)
        what, noise = _noise(board, columns)
        points = [
            _point(model, x=model.figures[robust.key].value, y=noise[key])
            for key, model in board.models.items()
            if robust and key in noise and robust.key in model.figures
        ]
        if robust and len(points) > 1:
            spec = plots.pairs(points, f"{robust.label}, %", f"{what}, %")
            yield source, _told_pairs(points, what), spec


def _noise(board: Board, columns: Sequence[Column]) -> tuple[str, dict[str, float]]:
    """Accuracy by model, and what it is: the mean over measured noises, or a source's one figure over corruptions."""
    if columns[0].kind == PUBLISHED:
        column = _first(columns, "corruption", board)
        values = {k: m.figures[column.key].value for k, m in board.models.items() if column and column.key in m.figures}
        return (f"“{column.label}”" if column else ""), values
    found: dict[str, float] = {}
    for section, keys in board.sections:
        if section.title == columns[0].group:
            for heat in section.heat:
                means = [row.mean.value for row in heat.rows if row.corruption in NOISES and row.mean is not None]
                if means and heat.model in keys:
                    found.setdefault(keys[heat.model], statistics.fmean(means))
    return "accuracy under noise corruptions", found


def _told_pairs(points: Sequence[dict[str, Any]], what: str) -> str:
    alike = [
        (a, b)
        for a, b in itertools.combinations(points, 2)
        if a["architecture"] and a["architecture"] == b["architecture"] and a["x"] != b["x"] and a["y"] != b["y"]
    ]
    if not alike:
        return "No two models of one architecture are loaded with both figures: these data show nothing of it."
    traded = sum((a["x"] > b["x"]) != (a["y"] > b["y"]) for a, b in alike)
    mixed = sum((a["paradigm"] == TRAINED) != (b["paradigm"] == TRAINED) for a, b in alike)
    return (
        f"Of {counted(len(alike), 'pair')} of models with one architecture, in {traded} the one that is more robust to "
        f"adversaries has the lower {what} (intervals aside); in {mixed} of the pairs one model alone is known to be "
        "adversarially trained."
    )


def _training(board: Board) -> Iterable[tuple[str, str, dict[str, Any]]]:
    for source, columns in _sources(board).items():
        robust = _first(columns, "robust", board)
        mine = [m for m in board.models.values() if robust and robust.key in m.figures]
        points = [_point(m, x=m.figures[robust.key].value) for m in mine if robust and m.kind]
        if robust and len(points) > 1:
            groups = {
                "adversarially trained Transformers": _values(points, "Transformer"),
                "other adversarially trained models": _values(points, "CNN and others"),
                "models trained otherwise": [p["x"] for p in points if p["paradigm"] not in (TRAINED, NOT_TOLD)],
                "models of which the training is not told": [p["x"] for p in points if p["paradigm"] == NOT_TOLD],
            }
            yield source, f"Median of {robust.label}: {_medians(groups)}.", plots.strip(points, f"{robust.label}, %")


def _values(points: Sequence[dict[str, Any]], kind: str) -> list[float]:
    return [p["x"] for p in points if p["paradigm"] == TRAINED and p["kind"] == kind]


def _pre_training(board: Board) -> Iterable[tuple[str, str, dict[str, Any]]]:
    for source, columns in _sources(board).items():
        shifts = [c for c in columns if c.role == "natural" and c.unit == "%"]
        clean = _first(columns, "clean", board)
        if not shifts or clean is None:
            continue
        needed = [clean.key, *(c.key for c in shifts)]
        points = [
            _point(m, x=m.figures[clean.key].value, y=statistics.fmean(m.figures[c.key].value for c in shifts))
            for m in board.models.values()
            if all(key in m.figures for key in needed)
        ]
        if len(points) > 1:
            for point in points:
                point["architecture"] = point["model"]  # nothing is joined here
            groups = {p: [q["y"] for q in points if q["paradigm"] == p] for p in plots.PARADIGMS}
            title = f"mean over {', '.join(c.label for c in shifts)}"
            spec = plots.pairs(points, f"{clean.label}, %", f"{title}, %")
            yield source, f"Median of the {title}: {_medians(groups)}.", spec


def _medians(groups: dict[str, list[float]]) -> str:
    told = [
        f"{name} {statistics.median(values):.1f} % (n = {len(values)})" for name, values in groups.items() if values
    ]
    return ", ".join(told)
