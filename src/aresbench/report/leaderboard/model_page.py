"""One model's page: its card, every number with its source, what was measured of it in full, and all of it to save."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2

from aresbench.metrics.published import Published
from aresbench.report.best_known import told
from aresbench.report.html import json_text, template
from aresbench.report.leaderboard import plots
from aresbench.report.leaderboard.boards import MEASURED, Board, Column, Figure, Model, Track
from aresbench.report.summary import Section
from aresbench.report.words import many

FIRST = ("family", "architecture", "paradigm", "data", "parameters", "size")  # of these a card says if nobody told them
TEMPLATES = "aresbench.report.leaderboard"

View = dict[str, Any]
Tables = dict[str, list[View]]


def model_page(entries: Sequence[tuple[Board, Model]], tables: Sequence[Published], stamp: Mapping[str, str]) -> str:
    """The page's HTML.

    Args:
        entries: the model's row on every board that it stands on.
        tables: published tables, for what they say of themselves.
        stamp: version and date, for the foot of the page.
    """
    rows: Tables = {}
    tracks = [track_view(t, [m.key]) for board, m in entries for t in board.tracks if m.key in t.curves]
    for i, track in enumerate(tracks):
        points = [point for curve in track["points"].values() for point in curve]
        rows[f"curve-{i}"] = [dict(zip(("at", "place", "value", "low", "high"), p, strict=True)) for p in points]
    about = {table.name: table for table in tables}
    flags = {flag["message"]: flag for _, model in entries for flag in model.warnings}
    return page_template("model.html.j2").render(
        name=entries[0][1].name,
        card=_card(model for _, model in entries),
        warnings=[flag for flag in flags.values() if flag["level"] != "info"],
        parts=[_part(board, model, i, rows) for i, (board, model) in enumerate(entries)],
        sources={s: (about[s], facts) for _, m in entries for s, facts in m.sources.items() if s != MEASURED},
        tracks=tracks,
        specs=json_text({"overlay": plots.overlay(), "tracks": tracks}) if tracks else "",
        tables=json_text(rows),
        **stamp,
    )


def numbers(column: Column, figure: Figure) -> list[Any]:
    """[value, low, high, n] as shown: shares in percent."""
    scale = 100 if column.unit == "%" else 1
    ends = [round(scale * v, 3) if abs(v) < float("inf") else None for v in (figure.value, figure.low, figure.high)]
    return [*ends, figure.n]


def track_view(track: Track, keys: Iterable[str]) -> View:
    """A track for the page's script, with the curves of some models, in percent."""
    points = {
        key: [[at, place, *(round(100 * end, 2) for end in ends)] for at, place, *ends in track.curves[key]]
        for key in keys
        if key in track.curves
    }
    ticks = [[place, text] for place, text in sorted(track.ticks.items())]
    return {"title": track.title, "axis": track.axis, "ticks": ticks, "points": points}


def _card(models: Iterable[Model]) -> dict[str, str]:
    """All that is known of a model; what everyone asks for stands first, known or not."""
    facts = {name: text for model in models for name, text in model.facts.items()}
    if (count := facts.get("parameters", "")).isdigit():
        facts["parameters"] = many(int(count))
    return {name: facts.get(name, "") for name in FIRST} | facts


def _part(board: Board, model: Model, place: int, rows: Tables) -> View:
    """A model's numbers on one board, and what was measured of it in full; its tables are added to the page's."""
    figures = []
    for key, column in board.columns.items():
        if key in model.figures:
            value, low, high, n = numbers(column, model.figures[key])
            flags = model.figures[key].flags
            figures.append({"column": column, "value": value, "low": low, "high": high, "n": n, "flags": flags})
    identity = f"figures-{place}"
    rows[identity] = [
        {
            "figure": f["column"].label, "kind": f["column"].kind, "source": f["column"].source, "value": f["value"],
            "low": f["low"] if f["n"] else None, "high": f["high"] if f["n"] else None, "n": f["n"] or None,
            "better": f["column"].better, "flags": " ".join(f["flags"]), "protocol": f["column"].hint,
        }
        for f in figures
    ]  # fmt: skip
    sections: list[View] = []
    for section, keys in board.sections:
        label = next((label for label, key in keys.items() if key == model.key), None)
        if label is not None:
            sections.append(_section(section, label, f"tasks-{place}-{len(sections)}", rows))
    return {"id": identity, "title": board.title, "rows": figures, "sections": sections}


def _section(section: Section, label: str, identity: str, rows: Tables) -> View:
    tasks = [
        (task.name, measure, scores[label])
        for task in section.tasks
        for measure, scores in task.scores.items()
        if label in scores
    ]
    rows[identity] = [
        {"task": task, "measure": measure, **score.to_dict(), "flags": " ".join(score.flags)}
        for task, measure, score in tasks
    ]
    return {
        "id": identity,
        "title": section.title,
        "tasks": tasks,
        "flags": [flag for flag in section.flags if label in flag.models],
        "submitted": told(section.models[label]),
    }


@cache
def page_template(name: str) -> jinja2.Template:
    """One of this room's templates."""
    return template(file_text(name))


def file_text(name: str) -> str:
    """A file beside the templates."""
    return (resources.files(TEMPLATES) / "templates" / name).read_text("utf-8")
