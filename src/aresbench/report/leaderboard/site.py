"""The leaderboard as a folder of files: an index, a page a model, one style sheet and one chart library."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from aresbench.core.errors import StoreError
from aresbench.metrics.published import Published, names, published
from aresbench.report.html import chart_library, json_text, script, version
from aresbench.report.leaderboard import plots
from aresbench.report.leaderboard.boards import MEASURED, Board, Column, Figure, Model, boards
from aresbench.report.leaderboard.findings import findings
from aresbench.report.leaderboard.model_page import file_text, model_page, numbers, page_template, track_view
from aresbench.report.summary import summarise
from aresbench.store import Cell

COLUMN_FACTS = ("key", "label", "kind", "source", "hint", "role", "budget", "better", "group")  # that the page reads


def build_leaderboard(
    cells: Iterable[Cell],
    folder: str | Path,
    sources: Sequence[str] | None = None,
    cards: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write a leaderboard that needs no server and no network.

    Args:
        cells: measured results, of any number of stores; may be empty.
        folder: where to write; made if it is not there, files of an earlier site are replaced.
        sources: published tables to show beside them, e.g. ``["robustbench", "timm"]``; default: all.
        cards: name → card of models that others published figures of, e.g. the zoo's.

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
    found = boards(summarise(measured) if measured else None, tables, cards)
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
    yield "style.css", _shared("report.css") + file_text("leaderboard.css")
    yield "charts.js", str(script(chart_library()))
    yield "tables.js", file_text("tables.js")
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
        page_template("index.html.j2").render(
            boards=json_text([_index(board) for board in found]),
            specs=json_text(specs),
            shown=shown,
            tables=tables,
            js=Markup(file_text("leaderboard.js")),
            **stamp,
        ),
    )
    pages: dict[str, list[tuple[Board, Model]]] = {}
    for board in found:
        for key, model in board.models.items():
            pages.setdefault(key, []).append((board, model))
    for entries in pages.values():
        yield f"models/{entries[0][1].page}", model_page(entries, tables, stamp)


def _index(board: Board) -> dict[str, Any]:
    """A board as the page's script reads it; numbers as they are printed, in percent where they are shares."""
    columns = list(board.columns.values())
    return {
        "name": board.name,
        "title": board.title,
        "columns": [
            {name: getattr(c, name) for name in COLUMN_FACTS}
            for c in columns
        ],
        "sort": _first_sort(board, columns),
        "models": [
            {
                "key": m.key, "name": m.name, "page": f"models/{m.page}", "family": m.facts.get("family", ""),
                "paradigm": m.facts.get("paradigm", ""), "data": m.facts.get("data", ""),
                "parameters": _whole(m.facts.get("parameters", "")), "size": m.facts.get("size", ""),
                "flags": m.flags,
                "figures": {i: _numbers(c, m.figures[c.key]) for i, c in enumerate(columns) if c.key in m.figures},
            }
            for m in board.models.values()
        ],
        "tracks": [track_view(t, board.models) for t in board.tracks],
    }  # fmt: skip


def _first_sort(board: Board, columns: Sequence[Column]) -> str:
    """The column that a fresh page ranks by: a measured robust one, else any measured one, else the fullest."""
    measured = [c for c in columns if c.kind == MEASURED]
    wanted = [c for c in measured if c.role == "robust"] or measured or columns
    filled = Counter(key for m in board.models.values() for key in m.figures)
    fullest = max(wanted, key=lambda c: (filled[c.key], "robust" in c.key), default=None)  # before AutoAttack alone
    return fullest.key if fullest else ""


def _numbers(column: Column, figure: Figure) -> list[Any]:
    """[value, low, high, n], and the reasons to doubt it where there are some."""
    return numbers(column, figure) + ([list(figure.flags)] if figure.flags else [])


def _whole(text: str) -> int | None:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return None


def _shared(name: str) -> str:
    return (resources.files("aresbench.report") / "templates" / name).read_text("utf-8")
