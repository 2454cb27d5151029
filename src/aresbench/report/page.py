"""The report: one HTML file with its data, its pictures and its chart library inside."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from aresbench.core.errors import StoreError
from aresbench.report.derived_tables import calibration_table, heat_tables, shift_table, transfer_tables
from aresbench.report.figures import section_figures, shift_figures
from aresbench.report.flags import Flag, flag_names
from aresbench.report.gallery import Triple, contact_sheet, gallery
from aresbench.report.html import chart_library, json_text, script, template, version
from aresbench.report.page_tables import answer, cell_rows, headline, papers, provenance, task_table
from aresbench.report.reading import UNVERIFIED
from aresbench.report.summary import Section, Summary, summarise
from aresbench.report.words import CITATION, DEFINITIONS, TITLE, counted
from aresbench.store import Cell


def build_report(cells: Iterable[Cell], path: str | Path, command: str | None = None) -> Path:
    """Write the report about these cells as one HTML file that needs no network, ever.

    Args:
        cells: what to report, e.g. ``Store("runs").cells()``.
        path: the file to write; its folder is made if it is not there.
        command: the exact command that reproduces the cells; default: the one they recorded.

    Returns:
        the path written.

    Raises:
        StoreError: no image has been measured yet, or the file cannot be written.
    """
    summary = summarise(cells)
    html = render(summary, command)
    target = Path(path).expanduser()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(html, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"the report {target} could not be written ({error.strerror or error})", "choose another file"
        ) from error
    return target


def render(summary: Summary, command: str | None = None) -> str:
    """The report's HTML text."""
    figures: dict[str, Any] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    sections = [_section(s, summary.models, figures, tables) for s in summary.sections]
    shifts, shift_data = shift_table(summary.shifts, summary.models)
    if shifts is not None:
        tables["shifts"] = shift_data
        shifts["figures"], specs = shift_figures(summary.shifts, "shifts", summary.models)
        figures.update(specs)
    tables["cells"], cells, protocols = cell_rows(summary)
    records = [record for reading in summary.readings for record in reading.cell.provenance()]
    commands = dict.fromkeys(_tidy(str(r["command"])) for r in records if r.get("command"))
    models, readings = len(summary.models), len(summary.readings)
    return _template().render(
        title=TITLE if models == 1 else f"How robust are these {models} models?",
        lead=f"{counted(models, 'model')}, {counted(len(sections), 'dataset')}, {counted(readings, 'cell')}: "
        "each image measured as it is and under every threat listed below. All numbers come from rows per image and "
        "carry their intervals.",
        sections=sections,
        doubted=_doubted(summary),
        shifts=shifts,
        command=command or "\n".join(commands),
        provenance=provenance(records),
        cells=cells,
        protocols=protocols,
        definitions=[{"word": word, "meaning": meaning} for word, meaning in DEFINITIONS],
        citation=CITATION,
        papers=papers(summary),
        figures=json_text(figures),
        tables=json_text(tables),
        bundle=script(chart_library()),
        css=Markup(_text("report.css")),
        js=Markup(_text("report.js")),
        version=version(),
        date=datetime.date.today().isoformat(),
    )


def _doubted(summary: Summary) -> set[str]:
    """Every name under which an unverified model stands on the page."""
    found = set()
    for section in summary.sections:
        for label, group in section.models.items():
            if UNVERIFIED in flag_names(group):
                found |= {label, *(r.model for r in group)}
    return found


def _section(
    section: Section, models: tuple[str, ...], figures: dict[str, Any], tables: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """The template's view of a section; its figures and downloadable tables are added to the page's."""
    slug = _slug(section.title, {k.partition("--")[0] for k in tables})
    groups, specs, data = section_figures(section, slug, models)
    figures.update(specs)
    tables.update(data)
    head, tables[f"{slug}--models"] = headline(section, f"{slug}--models", models)
    heat, heat_rows = heat_tables(section, slug)
    sure, sure_rows = calibration_table(section, models)
    transfers, transfer_rows = transfer_tables(section)
    for name, rows in (("heat", heat_rows), ("transfer", transfer_rows), ("calibration", sure_rows)):
        if rows:
            tables[f"{slug}--{name}"] = rows
    tasks, tables[f"{slug}--tasks"] = task_table(section, f"{slug}--tasks")
    return {
        "slug": slug,
        "title": section.title,
        "subtitle": _subtitle(section),
        "answer": answer(section, models),
        "notes": section.notes,
        "headline": head,
        "figures": groups,
        "heat": heat,
        "transfers": transfers,
        "sheet": contact_sheet(section.models),
        "calibration": sure,
        "gallery": [_triple(t) for t in gallery(section.models)],
        "flags": [_flag(f) for f in section.flags],
        "tasks": tasks,
    }


def _subtitle(section: Section) -> str:
    counts = sorted({n for row in section.rows for n in row.n})
    n = f"{counts[0]}–{counts[-1]} images" if len(counts) > 1 else counted(counts[0], "image")
    classes = len(section.about.get("classes") or ())
    parts = [f"Dataset “{section.dataset}”", n, f"{classes} classes" if classes else ""]
    return " · ".join(p for p in parts if p)


def _triple(t: Triple) -> dict[str, Any]:
    return {
        "clean": t.clean,
        "changed": t.changed,
        "difference": t.difference,
        "width": t.size[0],
        "height": t.size[1],
        "tiny": max(t.size) <= 64,
        "factor": f"× {t.factor:g}" if t.factor else "under ½ of 1/255",
        "alt_clean": f"clean image, answered {t.before}",
        "alt_changed": f"the same image under {t.what}, answered {t.after}",
        "alt_difference": f"what {t.what} changed"
        + (f", amplified {t.factor:g} times" if t.factor else ": too little to be seen"),
        "before": t.before,
        "after": t.after,
        "truth": t.truth,
        "broken": t.broken,
        "model": t.model,
        "what": t.what,
    }


def _flag(flag: Flag) -> dict[str, Any]:
    where = ", ".join(flag.models) + (f" · {', '.join(flag.tasks)}" if flag.tasks else "")
    return {"name": flag.name, "level": flag.level, "message": flag.message, "remedy": flag.remedy, "where": where}


def _slug(title: str, taken: set[str]) -> str:
    base = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "dataset"
    slug, count = base, 2
    while slug in taken or slug in ("reproduce", "definitions", "cells", "main", "shifts"):
        slug, count = f"{base}-{count}", count + 1
    return slug


def _tidy(command: str) -> str:
    """The command without the place where it happened to be installed."""
    return re.sub(r"^\S*/(?:aresbench/__main__\.py|aresbench)(?=\s|$)", "aresbench", command)


@cache
def _template() -> jinja2.Template:
    return template(_text("report.html.j2"))


def _text(name: str) -> str:
    return (resources.files("aresbench.report") / "templates" / name).read_text("utf-8")
