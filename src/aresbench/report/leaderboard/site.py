"""The leaderboard as a folder of files: an index, a page a model, one style sheet and one chart library."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from aresbench.core.errors import StoreError
from aresbench.metrics.published import Published, names, published
from aresbench.report.html import chart_library, json_text, script, template, version
from aresbench.report.leaderboard import plots
from aresbench.report.leaderboard.boards import MEASURED, Board, Column, Figure, Model, Track, boards
from aresbench.report.leaderboard.findings import findings
from aresbench.report.summary import summarise
from aresbench.store import Cell

TEMPLATES = "aresbench.report.leaderboard"


def build_leaderboard(cells: Iterable[Cell], folder: str | Path, sources: Sequence[str] | None = None) -> Path:
    """Write a leaderboard that needs no server and no network.

    Args:
        cells: measured results, of any number of stores; may be empty.
        folder: where to write; made if it is not there, files of an earlier site are replaced.
        sources: published tables to show beside them, e.g. ``["robustbench", "timm"]``; default: all.

    Returns:
        the index page.

    Raises:
        StoreError: there is nothing to show, or a file cannot be written.
        UnknownName: no such published table.
    """
    tables = [published(name) for name in (names() if sources is None else sources)]
    measured = list(cells)
    if not measured and not tables:
        raise StoreError(
            "there is nothing to rank", "name a store with results, or published tables: --published robustbench,timm"
        )
    found = boards(summarise(measured) if measured else None, tables)
    target = Path(folder).expanduser()
    try:
        (target / "models").mkdir(parents=True, exist_ok=True)
        for name, text in files(found, tables):
            (target / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"the leaderboard {target} could not be written ({error.strerror or error})", "choose another folder"
        ) from error
    return target / "index.html"


def files(found: Sequence[Board], tables: Sequence[Published]) -> Iterable[tuple[str, str]]:
    """Every file of the site: its name and its text."""
    yield "style.css", _shared("report.css") + _text("leaderboard.css")
    yield "charts.js", str(script(chart_library()))
    stamp = {"version": version(), "date": datetime.date.today().isoformat()}
    shown = [(board, findings(board)) for board in found]
    specs = {"scatter": plots.scatter(), "overlay": plots.overlay()}
    specs |= {
        f"{b.name}-{i}-{j}": spec
        for b, them in shown
        for i, finding in enumerate(them)
        for j, (_, _, spec) in enumerate(finding.figures)
    }
    yield (
        "index.html",
        _template("index.html.j2").render(
            boards=json_text([_index(board) for board in found]),
            specs=json_text(specs),
            shown=shown,
            tables=tables,
            js=Markup(_text("leaderboard.js")),
            **stamp,
        ),
    )
    page = _template("model.html.j2")
    pages: dict[str, list[tuple[Board, Model]]] = {}
    for board in found:
        for key, model in board.models.items():
            pages.setdefault(key, []).append((board, model))
    about = {table.name: table for table in tables}
    for entries in pages.values():
        tracks = [_track(t, [m.key]) for board, m in entries for t in board.tracks if m.key in t.curves]
        text = page.render(
            name=entries[0][1].name,
            card={k: v for _, model in entries for k, v in model.facts.items()},
            parts=[_part(board, model) for board, model in entries],
            sources={s: (about[s], facts) for _, m in entries for s, facts in m.sources.items() if s != MEASURED},
            tracks=tracks,
            specs=json_text({"overlay": plots.overlay(), "tracks": tracks}) if tracks else "",
            **stamp,
        )
        yield f"models/{entries[0][1].page}", text


def _index(board: Board) -> dict[str, Any]:
    """A board as the page's script reads it; numbers as they are printed, in percent where they are shares."""
    columns = list(board.columns.values())
    return {
        "name": board.name,
        "title": board.title,
        "columns": [
            {name: getattr(c, name) for name in ("key", "label", "kind", "source", "hint", "role", "budget", "better")}
            for c in columns
        ],
        "sort": _first_sort(board, columns),
        "models": [
            {
                "key": m.key, "name": m.name, "page": f"models/{m.page}", "family": m.facts.get("family", ""),
                "paradigm": m.facts.get("paradigm", ""), "data": m.facts.get("data", ""),
                "parameters": _whole(m.facts.get("parameters", "")), "size": m.facts.get("size", ""),
                "flags": sorted({flag for f in m.figures.values() for flag in f.flags}),
                "figures": {i: _numbers(c, m.figures[c.key]) for i, c in enumerate(columns) if c.key in m.figures},
            }
            for m in board.models.values()
        ],
        "tracks": [_track(t, board.models) for t in board.tracks],
    }  # fmt: skip


def _first_sort(board: Board, columns: Sequence[Column]) -> str:
    """The column that a fresh page ranks by: a measured robust one, else any measured one, else the fullest."""
    measured = [c for c in columns if c.kind == MEASURED]
    wanted = [c for c in measured if c.role == "robust"] or measured or columns
    fullest = max(wanted, key=lambda c: sum(c.key in m.figures for m in board.models.values()), default=None)
    return fullest.key if fullest else ""


def _whole(text: str) -> int | None:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return None


def _numbers(column: Column, figure: Figure) -> list[Any]:
    """[value, low, high, n] as shown."""
    scale = 100 if column.unit == "%" else 1
    ends = [round(scale * v, 3) if math.isfinite(v) else None for v in (figure.value, figure.low, figure.high)]
    return [*ends, figure.n]


def _track(track: Track, keys: Iterable[str]) -> dict[str, Any]:
    points = {
        key: [[at, place, *(round(100 * end, 2) for end in ends)] for at, place, *ends in track.curves[key]]
        for key in keys
        if key in track.curves
    }
    ticks = [[place, text] for place, text in sorted(track.ticks.items())]
    return {"title": track.title, "axis": track.axis, "ticks": ticks, "points": points}


def _part(board: Board, model: Model) -> dict[str, Any]:
    """A model's numbers on one board, and what was measured of it in full."""
    rows = []
    for key, column in board.columns.items():
        if key in model.figures:
            f = model.figures[key]
            value, low, high, n = _numbers(column, f)
            rows.append({"column": column, "value": value, "low": low, "high": high, "n": n, "flags": f.flags})
    sections = []
    for section, keys in board.sections:
        label = next((label for label, key in keys.items() if key == model.key), None)
        if label is not None:
            tasks = [
                (task.name, measure, scores[label])
                for task in section.tasks
                for measure, scores in task.scores.items()
                if label in scores
            ]
            flags = [flag for flag in section.flags if label in flag.models]
            sections.append({"title": section.title, "tasks": tasks, "flags": flags, "about": section.models[label]})
    return {"title": board.title, "rows": rows, "sections": sections}


def _text(name: str) -> str:
    return (resources.files(TEMPLATES) / "templates" / name).read_text("utf-8")


def _shared(name: str) -> str:
    return (resources.files("aresbench.report") / "templates" / name).read_text("utf-8")


@cache
def _template(name: str) -> jinja2.Template:
    return template(_text(name))
