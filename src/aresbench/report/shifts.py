"""Natural shifts: each model's accuracy on the shift beside that on its parent, and what ordinary models lose there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from aresbench.metrics import Score, accuracy, paired_difference
from aresbench.metrics.baselines import Line, lines_of
from aresbench.metrics.shift import BELOW, INSIDE, NO_BAND, effective_robustness
from aresbench.report.curves import clean_readings
from aresbench.report.flags import flag_names
from aresbench.report.reading import Reading, part_of

SHOWN = ("testbed-2020", "timm-2026-in1k", "timm-2026-all")
"""Baselines of effective robustness that a report quotes, each in a column of its own."""

FINDINGS = {
    INSIDE: "inside the scatter of ordinary models: no finding",
    NO_BAND: "the scatter of the baseline's models is not known",
    BELOW: "below the baseline's models: the line is a guess",
}
"""What a flag of effective robustness says, in words."""


@dataclass(frozen=True)
class ShiftRow:
    """One model on one shift.

    Args:
        shift, title: the shifted dataset by name and for readers.
        parent: the dataset that its accuracy is compared with.
        model: the model's name.
        accuracy: on the shift.
        before: on the parent; ``None`` where it was not measured there.
        drop: before − accuracy.
        effective: baseline → effective robustness, a difference of shares with its flags.
        lines: baseline → its line, for a figure.
        why: why a number is missing.
    """

    shift: str
    title: str
    parent: str
    model: str
    accuracy: Score
    before: Score | None = None
    drop: Score | None = None
    effective: Mapping[str, Score] = field(default_factory=dict)
    lines: Mapping[str, Line] = field(default_factory=dict)
    why: str = ""


def shift_rows(readings: Sequence[Reading]) -> tuple[ShiftRow, ...]:
    """All models on all natural shifts, by shift; corrupted files are no natural shift, but corruption tasks."""
    shifted = [r for r in readings if r.kind == "clean" and r.published is None and r.about.get("parent")]
    prints = {(r.model, r.fingerprint) for r in readings}
    twice = {name for name, _ in prints if sum(name == other for other, _ in prints) > 1}
    rows = [_row(r, readings, f"{r.model} [{r.fingerprint}]" if r.model in twice else r.model) for r in shifted]
    return tuple(sorted(rows, key=lambda row: (row.shift, -row.accuracy.value)))


def _row(shift: Reading, readings: Sequence[Reading], model: str) -> ShiftRow:
    parent = str(shift.about["parent"])
    score = accuracy(shift.correct).with_flags(flag_names([shift]))
    row = ShiftRow(shift.dataset, str(shift.about.get("title") or shift.dataset), parent, model, score)
    weights = (shift.model, shift.fingerprint)
    found = clean_readings(r for r in readings if (r.model, r.fingerprint) == weights and _is(r.dataset, parent))
    if not found:
        return replace(row, why=f"not measured on {parent}")
    other = next((r for r in found if _seed(r) == _seed(shift)), None)
    if other is None:
        return replace(row, why=f"seed: {_seed(shift)} here, {_seed(found[0])} on {parent}")
    before = accuracy(other.correct).with_flags(flag_names([other]))
    lines = {line.name: line for line in lines_of(_whole(shift.dataset)) if line.parent == parent}
    lines = {name: lines[name] for name in SHOWN if name in lines}
    together = set(shift.images.index) == set(other.images.index)
    right = shift.correct.to_numpy(bool)
    untouched = other.correct.reindex(shift.images.index if together else None).to_numpy(bool)
    row = replace(
        row,
        before=before,
        lines=lines,
        effective={name: effective_robustness(right, untouched, line, paired=together) for name, line in lines.items()},
    )
    rules = [str(r.about.get("class_rule") or "full") for r in (shift, other)]
    if rules[0] != rules[1]:  # a drop would mix two questions; a baseline names both sides' rules and is no mixture
        return replace(row, why=f"class rule: {rules[0]} here, {rules[1]} on {parent}")
    return replace(row, drop=paired_difference(untouched, right) if together else independent_drop(before, score))


def _is(dataset: str, name: str) -> bool:
    return _whole(dataset) == name


def _whole(dataset: str) -> str:
    """The name of a dataset of which only a part may be there."""
    return dataset.removesuffix(part_of(dataset))


def _seed(reading: Reading) -> str:
    return str(reading.description["identity"].get("seed"))


def independent_drop(before: Score, after: Score) -> Score:
    """Difference of two shares of other images, with Newcombe's interval (1998): both Wilson intervals together."""
    value = before.value - after.value
    low = value - math.hypot(before.value - before.low, after.high - after.value)
    high = value + math.hypot(before.high - before.value, after.value - after.low)
    return Score(value, after.n, max(low, -1.0), min(high, 1.0), "lower")


def finding(score: Score) -> str:
    """What the flags of an effective robustness say, and whether its own interval leaves zero out."""
    said = [FINDINGS[name] for name in score.flags if name in FINDINGS]
    if score.low <= 0 <= score.high:
        said.append("its interval holds 0: no finding")
    return "; ".join(said)
