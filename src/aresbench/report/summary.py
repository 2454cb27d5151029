"""Cells → plain data: one row a model with its scores, curves over budget, severity and step, who broke it, flags.

Datasets never share a table, and neither do cells that were asked different questions (another seed,
another class rule): each such group is a section of its own, named by the field that differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from aresbench.core.errors import StoreError
from aresbench.metrics import (
    Curve,
    Score,
    accuracy,
    attack_success_rate,
    curve_area,
    median_breaking_distance,
    robust_accuracy,
)
from aresbench.report import corruptions
from aresbench.report.breakers import Outcome, outcomes
from aresbench.report.columns import Column, autoattack_at, columns_of, robust_at, union_at, union_label, unions
from aresbench.report.corruptions import HeatMap
from aresbench.report.curves import (
    Curves,
    clean_readings,
    epsilon_curves,
    filter_curves,
    is_ladder,
    rungs_of,
    severity_curves,
)
from aresbench.report.flags import Flag, collect_flags, flag_names
from aresbench.report.notes import notes
from aresbench.report.progress import Progress, progress
from aresbench.report.reading import (
    BOUND_TO_THE_MODEL,
    KINDS,
    Reading,
    budget_label,
    common_ids,
    differences,
    evidence,
    fields,
    protocol_name,
    question,
    read,
)
from aresbench.report.shifts import ShiftRow, shift_rows
from aresbench.store import Cell


@dataclass(frozen=True)
class Row:
    """One model's numbers: column key → score, or ``None`` with the reason in ``why``."""

    model: str
    about: Mapping[str, Any]
    n: tuple[int, ...]
    scores: Mapping[str, Score | None]
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def images(self) -> str:
        """``300``, or ``20–300`` where the scores rest on different numbers of images."""
        return "–".join(dict.fromkeys((str(self.n[0]), str(self.n[-1])))) if self.n else "–"


@dataclass(frozen=True)
class TaskRow:
    """One task with every model's scores: measure (``accuracy``, ``robust accuracy at L∞ 4/255``) → model → score."""

    name: str
    kind: str
    scores: Mapping[str, Mapping[str, Score]]


@dataclass(frozen=True)
class Section:
    """Everything about one dataset under one protocol."""

    title: str
    dataset: str
    about: Mapping[str, Any]
    question: Mapping[str, str]
    models: Mapping[str, tuple[Reading, ...]]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    tasks: tuple[TaskRow, ...]
    curves: tuple[Curves, ...]
    severity: Mapping[str, Mapping[str, Curve]]
    heat: tuple[HeatMap, ...]
    filters: Mapping[str, Mapping[str, Curve]]
    progress: tuple[Progress, ...]
    broke: tuple[Outcome, ...]
    flags: tuple[Flag, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """All sections, and all models in the order that fixes their colours."""

    sections: tuple[Section, ...]
    models: tuple[str, ...]
    readings: tuple[Reading, ...]
    shifts: tuple[ShiftRow, ...]


def summarise(cells: Iterable[Cell | Reading]) -> Summary:
    """Reduce cells to everything that a report shows.

    Raises:
        StoreError: there is no cell, or none has a single image.
    """
    readings = [r for r in read(cells) if len(r.images)]
    if not readings:
        raise StoreError(
            "there is nothing to report: no image has been measured yet",
            "measure first, e.g. `aresbench run MODEL --suite quickstart --store runs`",
        )
    groups: dict[tuple[tuple[str, str], ...], list[Reading]] = {}
    for reading in readings:
        groups.setdefault(tuple(question(reading).items()), []).append(reading)
    first_of: dict[str, Mapping[str, str]] = {}
    sections = []
    for group in groups.values():
        asked = question(group[0])
        other = differences(first_of.setdefault(group[0].home, asked), asked)
        suffix = ", ".join(f"{name.split('.')[-1]} = {mine}" for name, (_, mine) in other.items())
        sections.append(_section(group, asked, suffix))
    models = dict.fromkeys(row.model for section in sections for row in section.rows)
    return Summary(tuple(sections), tuple(models), tuple(readings), shift_rows(readings))


def label_models(readings: Sequence[Reading]) -> dict[str, tuple[Reading, ...]]:
    """Readings by model; one name with other weights or other preprocessing is another model, and says so."""
    variants: dict[str, dict[tuple[str, ...], list[Reading]]] = {}
    # Published corrupted files may be read without any resize: the same model, in the protocol of those files.
    for reading in sorted(readings, key=lambda r: r.published is not None):
        brought = fields(reading, of_the_model=True) if reading.published is None else {}
        bound = {k: v for k, v in brought.items() if _bound(k) and "preprocessing" in k}
        identity = (reading.fingerprint, *(f"{k.split('.')[-1]}={v}" for k, v in sorted(bound.items())))
        known = variants.setdefault(reading.model, {})
        if reading.published is not None:
            identity = next((found for found in known if found[0] == reading.fingerprint), identity)
        known.setdefault(identity, []).append(reading)
    labelled: dict[str, tuple[Reading, ...]] = {}
    for name, found in variants.items():
        shared = set.intersection(*(set(identity) for identity in found))
        for identity, group in found.items():
            own = ", ".join(part for part in identity if part not in shared)
            labelled[f"{name} [{own}]" if own else name] = tuple(group)
    return labelled


def _bound(name: str) -> bool:
    return name.startswith("protocol.") and bool(BOUND_TO_THE_MODEL & set(name.split(".")))


def _section(readings: list[Reading], asked: Mapping[str, str], suffix: str) -> Section:
    models = label_models(readings)
    about = readings[0].about
    title = str(about.get("title") or readings[0].home)
    columns = columns_of(readings, models)
    rows = [_row(name, group, columns, readings) for name, group in models.items()]
    rows.sort(key=_rank, reverse=True)
    models = {row.model: models[row.model] for row in rows}
    return Section(
        title=f"{title} ({suffix})" if suffix else title,
        dataset=readings[0].home,
        about=about,
        question=asked,
        models=models,
        columns=columns,
        rows=tuple(rows),
        tasks=(*_tasks(models), *_unions(readings, rows)),
        curves=epsilon_curves(models),
        severity=severity_curves(models),
        heat=corruptions.heat_maps(models),
        filters=filter_curves(models),
        progress=progress(models),
        broke=outcomes(models),
        flags=collect_flags(models),
        notes=notes(models),
    )


def _row(model: str, group: Sequence[Reading], columns: Sequence[Column], section: Sequence[Reading]) -> Row:
    scores: dict[str, Score | None] = {}
    why: dict[str, str] = {}
    for column in columns:
        kind, *rest = column.key.split(" ")
        if kind == "clean":
            used = clean_readings(group)[:1]
            score = accuracy(used[0].correct) if used else None
        elif kind == "robust":
            score, used = robust_at(group, rest[0], rest[1])
        elif kind == "autoattack":
            score, used = autoattack_at(group, rest[0], rest[1])
        elif kind == "union":
            score, used = union_at(group, list(zip(rest[::2], rest[1::2], strict=True)))
        elif kind == "area":
            score, used, why[column.key] = _area(group, section, rest[0])
        else:
            score, used, why[column.key] = corruptions.score(column.key, group, section)
        scores[column.key] = score.with_flags(flag_names(used)) if score else None
        if score is None:
            why.setdefault(column.key, "not measured")
    counts = {score.n for score in scores.values() if score}
    about = group[0].description.get("model", {})
    return Row(model, about, tuple(sorted(counts)), scores, {k: v for k, v in why.items() if v})


def _unions(readings: Sequence[Reading], rows: Sequence[Row]) -> list[TaskRow]:
    """The unions of norms as one more task."""
    found: dict[str, dict[str, Score]] = {}
    for budgets in unions(readings):
        key = f"union {' '.join(map(' '.join, budgets))}"
        scores = {row.model: score for row in rows if (score := row.scores[key]) is not None}
        found[f"accuracy under {union_label(budgets)}"] = scores
    return [TaskRow("all norms together", "adversary", found)] if found else []


def _area(group: Sequence[Reading], section: Sequence[Reading], norm: str) -> tuple[Score | None, list[Reading], str]:
    wanted = {r.name for r in section if is_ladder(r) and r.norm == norm}
    ladders = [r for r in group if is_ladder(r) and r.norm == norm]
    if {r.name for r in ladders} != wanted:
        return None, [], f"{len(ladders)} of {len(wanted)} ladders measured"
    ids = common_ids(ladders)
    known = [r for r in group if r.plain_adversary and r.norm == norm]
    if not len(ids):
        return None, [], "the ladders share no image"
    return curve_area(evidence(known, ids), rungs_of(ladders)), known, ""


def _rank(row: Row) -> tuple[float, ...]:
    """Best first: by the mean of the robust scores that the row has, then by clean accuracy."""
    robust = [s.value for k, s in row.scores.items() if s and k.startswith("robust")]
    clean = row.scores.get("clean")
    return (sum(robust) / len(robust) if robust else -1.0, clean.value if clean else -1.0)


def _tasks(models: Mapping[str, Sequence[Reading]]) -> tuple[TaskRow, ...]:
    found: dict[tuple[str, str], dict[str, dict[str, Score]]] = {}
    kinds: dict[tuple[str, str], str] = {}
    for model, group in models.items():
        for reading in group:
            asked = fields(reading)
            what = ", ".join(f"{k} = {v}" for k, v in asked.items() if k == "threat" or k.startswith("settings"))
            task = (reading.name, what)
            kinds[task] = reading.kind
            for measure, score in measures(reading).items():
                found.setdefault(task, {}).setdefault(measure, {})[model] = score
    rows = []
    names = [name for name, _ in found]
    for (name, what), scores in found.items():
        twin = f" — {what}" if names.count(name) > 1 else ""  # same name, other settings: never one row
        rows.append(TaskRow(name + twin, kinds[name, what], scores))
    return tuple(sorted(rows, key=lambda r: KINDS.index(r.kind)))  # stable: within a kind as the cells came


def measures(reading: Reading) -> dict[str, Score]:
    """Every number of one cell, its main ones first."""
    return {**main_measures(reading), **_details(reading)}


def main_measures(reading: Reading) -> dict[str, Score]:
    """Accuracy; of an adversary, accuracy at each pinned budget and the curve's area."""
    flags = flag_names([reading])
    if reading.kind != "adversary":
        return {"accuracy": accuracy(reading.correct).with_flags(flags)}
    scores = {}
    for eps in reading.pinned:
        scores[f"accuracy at {budget_label(reading.norm, eps)}"] = robust_accuracy(reading.breaking, eps)
    if is_ladder(reading):
        top = budget_label(reading.norm, reading.rungs[-1])
        scores[f"area up to {top}"] = curve_area(reading.breaking, rungs_of([reading]))
    if not scores:
        eps = reading.rungs[-1]
        scores[f"accuracy at {budget_label(reading.norm, eps)}"] = robust_accuracy(reading.breaking, eps)
    return {measure: score.with_flags(flags) for measure, score in scores.items()}


def _details(reading: Reading) -> dict[str, Score]:
    """What more there is to say of an adversary: attack success, accuracy in 8 bits, and the median distance."""
    if reading.kind != "adversary":
        return {}
    scores = {}
    for eps in reading.pinned:
        label = budget_label(reading.norm, eps)
        scores[f"attack success at {label}"] = attack_success_rate(reading.breaking, eps)
        if reading.breaking_in_8_bits is not None:
            scores[f"accuracy at {label} in 8 bits"] = robust_accuracy(reading.breaking_in_8_bits, eps)
    if is_ladder(reading):
        grey = 255 if reading.norm == "linf" else 1  # L∞ is read in grey levels
        distance = grey * reading.breaking_distance.to_numpy()
        scores["median breaking distance"] = median_breaking_distance(distance, unit="/255" if grey > 1 else "")
    flags = flag_names([reading])
    return {measure: score.with_flags(flags) for measure, score in scores.items()}


def frame(cells: Iterable[Cell | Reading]) -> pd.DataFrame:
    """One row per cell: what was measured, its main number, every pinned budget, cost and identity.

    ``value, low, high, n`` are the first of the cell's numbers and ``measure`` says which one; a
    column ``accuracy at …`` per pinned budget follows. What was not measured is NaN. Rows of
    different ``protocol`` or ``seed`` answer different questions; ``compare`` refuses to mix them.
    """
    rows = []
    for reading in read(cells):
        found = measures(reading)
        measure, score = next(iter(found.items()))
        asked = fields(reading, of_the_model=True)
        rows.append(
            {
                "model": reading.model,
                "dataset": reading.dataset,
                "task": reading.name,
                "kind": reading.kind,
                "measure": measure,
                "value": score.value,
                "low": score.low,
                "high": score.high,
                "n": score.n,
                **{name: other.value for name, other in found.items() if " " in name},
                "flags": ", ".join(score.flags),
                "forwards": reading.forwards,
                "backwards": reading.backwards,
                "threat": asked["threat"],
                "seed": asked["seed"],
                "fingerprint": reading.fingerprint,
                "protocol": protocol_name(reading),
                "key": reading.cell.key,
            }
        )
    table = pd.DataFrame(rows)
    extra = [c for c in table if " " in str(c)]  # budgets that only some cells have belong behind the fixed columns
    return table[[c for c in table if c not in extra] + extra]
