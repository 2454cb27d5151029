"""The page's tables and its first answer: what the template writes, and what can be downloaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aresbench.core import registry
from aresbench.metrics import Score
from aresbench.report.breakers import attack_name
from aresbench.report.charts import colour
from aresbench.report.columns import pinned_budgets
from aresbench.report.reading import budget_label, flatten, protocol, protocol_name
from aresbench.report.summary import Section, Summary
from aresbench.report.words import MISSING, counted, interval, many, number, parameters

BARS = 8  # models that the first screen shows of each dataset
WITHSTOOD = 0.1  # the first screen quotes the largest pinned budget at which some model keeps this share

View = dict[str, Any]
Rows = list[dict[str, Any]]


def score_view(score: Score | None) -> View | None:
    """A score for the template's cell: texts, and where the whisker of a share lies (in percent of the box)."""
    if score is None or score.missing:
        return None
    share = score.unit == "%" and score.low >= 0 and score.high <= 1  # a mean corruption error may exceed one
    return {
        "value": number(score.value, score.unit, score.n),
        "low": interval(score).partition("–")[0],
        "high": interval(score).partition("–")[2],
        "n": score.n,
        "flags": ", ".join(score.flags),
        "left": round(100 * score.low, 2) if share else None,
        "width": round(100 * (score.high - score.low), 2) if share else None,
        "at": round(100 * score.value, 2) if share else None,
    }


def score_row(score: Score | None, prefix: str = "") -> View:
    """A score for CSV and JSON."""
    record = score.to_dict() if score is not None else {}
    return {f"{prefix}{k}": record.get(k) for k in ("value", "low", "high", "n")}


def answer(section: Section, models: Sequence[str]) -> View:
    """The first screen's answer: from clean to attacked accuracy, one bar a model, at one quoted budget."""
    norm, eps = _quoted(section)
    if not eps:
        best = max(section.rows, key=lambda r: s.value if (s := r.scores["clean"]) else 0.0)
        return {"text": f"{best.model} is right on {_value(best.scores['clean'])} of the clean images.", "bars": []}
    key, label = f"robust {norm} {eps}", budget_label(norm, eps)
    measured = [r for r in section.rows if r.scores.get(key)]
    measured.sort(key=lambda r: -r.scores[key].value)  # type: ignore[union-attr]
    best = measured[0]
    text = f"Under attack at {label}, {best.model} stays right on {_value(best.scores[key])} of its images"
    if len(measured) > 1:
        last = measured[-1]
        text += f", {last.model} on {_value(last.scores[key])}"
    bars = []
    for row in measured[:BARS]:
        clean, robust = row.scores["clean"], row.scores[key]
        assert robust is not None
        bars.append(
            {
                "model": row.model,
                "colour": colour(models.index(row.model)),
                "clean": _value(clean),
                "robust": _value(robust),
                "clean_width": round(100 * clean.value, 2) if clean and not clean.missing else None,
                "robust_width": round(100 * robust.value, 2),
                "low": round(100 * robust.low, 2),
                "span": round(100 * (robust.high - robust.low), 2),
            }
        )
    n = measured[0].scores[key].n  # type: ignore[union-attr]
    more = f" The best {BARS} of {len(measured)} models:" if len(measured) > BARS else ""
    return {"text": f"{text} ({counted(n, 'image')}).{more}", "bars": bars, "threat": f"attack at {label}"}


def _quoted(section: Section) -> tuple[str, str]:
    """The largest pinned budget that some model withstands on one image in ten, else the smallest."""
    pinned = pinned_budgets([r for group in section.models.values() for r in group])
    if not pinned:
        return "", ""
    first = [p for p in pinned if p[0] == pinned[0][0]]

    def best(norm: str, eps: str) -> float:
        return max((s.value for r in section.rows if (s := r.scores.get(f"robust {norm} {eps}"))), default=-1.0)

    return next((p for p in reversed(first) if best(*p) >= WITHSTOOD), first[0])


def _value(score: Score | None) -> str:
    return MISSING if score is None else number(score.value, score.unit, score.n)


def headline(section: Section, identity: str, models: Sequence[str]) -> tuple[View, Rows]:
    """The table of models: one row a model, one column a number."""
    rows: list[View] = []
    data: Rows = []
    for row in section.rows:
        family = row.about.get("family") or row.about.get("architecture")
        facts = [str(family) if family else "", parameters(row.about.get("parameters"))]
        record: View = {"model": row.model, "dataset": section.dataset}
        cells = []
        for column in section.columns:
            score = row.scores[column.key]
            cells.append(
                {
                    "score": score_view(score),
                    "sort": "" if score is None or score.missing else round(score.value, 6),
                    "why": row.why.get(column.key, ""),
                }
            )
            record.update(score_row(score, f"{column.key} "))
        rows.append(
            {
                "model": row.model,
                "colour": colour(models.index(row.model)),
                "facts": " · ".join(f for f in facts if f),
                "cells": cells,
                "n": row.images,
                "n_sort": row.n[-1] if row.n else "",
            }
        )
        data.append(record)
    columns = [{"label": c.label, "hint": c.hint} for c in section.columns]
    return {"id": identity, "columns": columns, "rows": rows}, data


def task_table(section: Section, identity: str) -> tuple[View, Rows]:
    """Every task's own numbers: one row a task and measure, one column a model."""
    names = list(section.models)
    rows: list[View] = []
    data: Rows = []
    for task in section.tasks:
        for measure, scores in task.scores.items():
            cells = [score_view(scores.get(m)) for m in names]
            rows.append({"name": task.name, "measure": measure, "cells": cells})
            for model in names:
                data.append({"task": task.name, "measure": measure, "model": model, **score_row(scores.get(model))})
    return {"id": identity, "models": names, "rows": rows}, data


def cell_rows(summary: Summary) -> tuple[Rows, list[View], list[View]]:
    """All cells with protocol and cost: rows to download, rows to show, and what each protocol's name stands for."""
    data: Rows = []
    shown: list[View] = []
    protocols: dict[str, str] = {}
    for reading in summary.readings:
        name = protocol_name(reading)
        protocols[name] = ", ".join(f"{k} {v}" for k, v in protocol(reading).items())
        identity = reading.description["identity"]
        record = {
            "key": reading.cell.key,
            "model": reading.model,
            "fingerprint": reading.fingerprint,
            "dataset": reading.dataset,
            "task": reading.name,
            "threat": str(identity["threat"]),
            "protocol": name,
            "seed": identity.get("seed"),
            "n": len(reading.images),
            "forwards": reading.forwards,
            "backwards": reading.backwards,
        }
        data.append(record)
        costs = {k: many(record[k]) for k in ("n", "forwards", "backwards")}
        shown.append({**record, **costs, "protocol_text": protocols[name]})
    return data, shown, [{"name": name, "text": text} for name, text in protocols.items()]


def provenance(records: Sequence[Mapping[str, Any]]) -> list[View]:
    """What was recorded with the rows, each fact once with all its values."""
    values: dict[str, dict[str, None]] = {}
    for record in records:
        flat: dict[str, str] = {}
        for key, value in record.items():
            if key == "command":
                continue  # stands above
            flatten(str(key), value, flat)
        for key, text in flat.items():
            values.setdefault(key, {})[text] = None
    return [{"name": name.replace(".", " · "), "text": _few(list(texts))} for name, texts in sorted(values.items())]


def _few(texts: list[str]) -> str:
    """All values, or the first and last of many (times of a long run)."""
    if len(texts) <= 4:
        return "; ".join(texts)
    try:
        first, last = min(texts, key=float), max(texts, key=float)
    except ValueError:
        first, last = min(texts), max(texts)
    return f"{first} … {last} ({len(texts)} values)"


def papers(summary: Summary) -> list[View]:
    """The attacks and corruptions that were used, each with the line that names its paper."""
    used: dict[tuple[str, str], None] = {}
    for reading in summary.readings:
        for spec in reading.task.get("attacks") or ():
            used["attacks", attack_name(spec)] = None
        if reading.task.get("corruption"):
            used["corruptions", str(reading.task["corruption"])] = None
    found = []
    for kind, name in sorted(used):
        if name in registry.table(kind):
            card = registry.card(kind, name)
            text = " ".join(str(part) for part in (card.summary, card.facts.get("paper", "")) if part)
            if text:
                found.append({"name": name, "text": text})
    return found
