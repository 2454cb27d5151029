"""A section's figures: their records, their specifications, and the text beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aresbench.metrics import Curve, Score
from aresbench.metrics.baselines import UNORDERED, Line
from aresbench.report import charts
from aresbench.report.breakers import CLEAN, RESISTED, SEVERAL, Outcome, attack_name
from aresbench.report.curves import Curves
from aresbench.report.progress import AXES, Progress
from aresbench.report.reading import NORM_NAMES, budget_label
from aresbench.report.shifts import ShiftRow
from aresbench.report.summary import Section
from aresbench.report.words import interval

View = dict[str, Any]
Rows = list[dict[str, Any]]


class _Shelf:
    """Collects figures and tables of one section under ids of their own."""

    def __init__(self, slug: str) -> None:
        self.slug = slug
        self.specs: dict[str, Any] = {}
        self.tables: dict[str, Rows] = {}

    def figure(self, name: str, title: str, spec: dict[str, Any], caption: str = "", wide: bool = False) -> View:
        identity = f"{self.slug}--{name}"
        self.specs[identity] = spec
        text = f"{title}. {spec['description']} The numbers are in the table that can be downloaded above."
        height = spec["height"] + 60
        return {"id": identity, "title": title, "caption": caption, "alt": text, "height": height, "wide": wide}

    def table(self, name: str, rows: Rows) -> str:
        identity = f"{self.slug}--{name}"
        self.tables[identity] = rows
        return identity


def section_figures(
    section: Section, slug: str, models: Sequence[str]
) -> tuple[list[View], dict[str, Any], dict[str, Rows]]:
    """Groups of figures in the order of the page, their specifications by id, and their data by id.

    Args:
        section: what was measured.
        slug: prefix of all ids.
        models: all models of the page, in the order that gives them their colours.
    """
    shelf = _Shelf(slug)
    groups = [_epsilon(section, shelf, norm, models) for norm in dict.fromkeys(c.norm for c in section.curves)]
    groups += [_severity(section, shelf, models)] if section.severity else []
    groups += [_filters(section, shelf, models)] if section.filters else []
    for axis in AXES:
        if runs := _telling(section, axis):
            groups.append(_progress(shelf, axis, runs, models))
    groups += [_broke(section, shelf, models)] if section.broke else []
    return groups, shelf.specs, shelf.tables


def _group(title: str, text: str, table: str, figures: list[View], small: bool = False) -> View:
    return {
        "title": title, "text": text, "table": table, "figures": figures, "small": small, "more": [], "more_title": "",
    }  # fmt: skip


def _epsilon(section: Section, shelf: _Shelf, norm: str, models: Sequence[str]) -> View:
    sets = [c for c in section.curves if c.norm == norm]
    rows: Rows = []
    figures, more = [], []
    for i, curves in enumerate(sets):
        title = "Worst case over all attacks" if curves.joined else curves.name
        caption = ", ".join(dict.fromkeys(attack_name(a) for a in curves.attacks))
        accuracy, success = _budget_records(curves, curves.curves), _budget_records(curves, curves.success)
        spec = charts.epsilon_chart(accuracy, norm, curves.pinned, models)
        figures.append(shelf.figure(f"epsilon-{norm}-{i}", title, spec, caption, wide=True))
        spec = charts.epsilon_chart(success, norm, curves.pinned, models, charts.SUCCESS)
        more.append(shelf.figure(f"success-{norm}-{i}", f"{title}: attack success", spec, caption, wide=True))
        in_8_bits = _budget_records(curves, curves.in_8_bits)
        for measure, records in (("accuracy", accuracy), ("attack success", success), ("in 8 bits", in_8_bits)):
            rows += [{"curve": title, "measure": measure, **r} for r in records]
    text = (
        "The share of images still right when each may be changed within ε: the further right a curve stays up, the "
        "more robust the model. Each band holds the whole curve at once with 95 %; dotted lines mark pinned budgets. "
        "Click a name to bring one model to the fore (shift-click for several)."
    )
    table = shelf.table(f"epsilon-{norm}", rows)
    group = _group(f"Accuracy against the {NORM_NAMES.get(norm, norm)} budget", text, table, figures[:1])
    # the attack's view is of the right images alone, and so its denominator differs from model to model
    group["more"] = [more[0], *(f for pair in zip(figures[1:], more[1:], strict=True) for f in pair)]
    group["more_title"] = "Attack success, and the curves of each task alone" if sets[1:] else "Attack success"
    return group


def _budget_records(curves: Curves, of_models: Mapping[str, Curve]) -> Rows:
    rows: Rows = []
    for model, curve in of_models.items():
        points = _points(model, curve)
        rows += [{**p, "budget": b, "norm": curves.norm} for p, b in zip(points, curves.budgets, strict=True)]
    return rows


def _points(model: str, curve: Curve) -> Rows:
    """One record a point, rounded to what can be seen; points without images are left out of the line."""
    rows: Rows = []
    ends = ("value", "low", "high", "band_low", "band_high")
    for *numbers, n in zip(*(getattr(curve, name).tolist() for name in ends), curve.n.tolist(), strict=True):
        score = Score(numbers[0], n, numbers[1], numbers[2])
        shown = {k: None if score.missing else round(v, 4) for k, v in zip(ends, numbers, strict=True)}
        rows.append({"model": model, **shown, "n": score.n, "interval": interval(score)})
    return rows


def _severity(section: Section, shelf: _Shelf, models: Sequence[str]) -> View:
    figures: list[View] = []
    rows: Rows = []
    any_mean = any(name.partition(" ")[0] == "mean" for name in section.severity)
    for i, (name, curves) in enumerate(section.severity.items()):
        corruption, _, mode = name.partition(" ")
        records = _placed(curves, "severity")
        mean, ordered = corruption == "mean", corruption not in UNORDERED
        title = " ".join(filter(None, ("Mean over corruptions" if mean else corruption.replace("_", " "), mode)))
        height = charts.HEIGHT - 70 if mean else charts.SMALL
        spec = charts.severity_chart(records, models, height, legend=mean or not any_mean, ordered=ordered)
        caption = "" if ordered else "severities are not ordered by harm"
        identity = f"severity-{corruption}" if not mode else f"severity-{corruption}-{i}"
        figures.append(shelf.figure(identity, title, spec, caption, wide=mean))
        rows += [{"corruption": corruption, "mode": mode.strip("()") or "memory", **r} for r in records]
    text = (
        "Accuracy as the dose of each corruption grows; severity 0 is the clean image. No adversary is at work here: "
        "these are accidents of weather, sensor and compression."
    )
    return _group("Accuracy against corruption", text, shelf.table("severity", rows), figures, small=True)


def _filters(section: Section, shelf: _Shelf, models: Sequence[str]) -> View:
    figures: list[View] = []
    rows: Rows = []
    for name, curves in section.filters.items():
        records = _placed(curves, "radius")
        title = {"lowpass": "Low frequencies alone", "highpass": "High frequencies alone"}.get(name, name)
        figures.append(shelf.figure(f"filter-{name}", title, charts.filter_chart(records, name, models), wide=True))
        rows += [{"filter": name, **r} for r in records]
    text = (
        "Accuracy on images of which only a part of the frequencies is left, cut off sharply at the radius: coarse "
        "shapes below it, fine detail beyond it. Where a curve falls, the model needs what was just taken away."
    )
    return _group("Accuracy against frequency", text, shelf.table("filters", rows), figures)


def shift_figures(rows: Sequence[ShiftRow], slug: str, models: Sequence[str]) -> tuple[list[View], dict[str, Any]]:
    """A figure for each shift that some model has with its parent: the models among the lines of named baselines."""
    shelf = _Shelf(slug)
    figures: list[View] = []
    for shift in dict.fromkeys(row.shift for row in rows):
        here = [row for row in rows if row.shift == shift and row.before is not None]
        if not here:
            continue
        points = [_shift_point(row, row.before) for row in here if row.before is not None]
        known = {name: line for row in here for name, line in row.lines.items()}
        grid = _grid([p["before"] for p in points], [line.lowest for line in known.values()])
        lines = [record for name, line in known.items() for record in _line_records(name, line, grid)]
        spec = charts.shift_chart(points, lines, _named(points, models), here[0].parent, shift)
        banded = [name for name, line in known.items() if line.residual_sd is not None]
        caption = f"bands: {', '.join(banded)}" if banded else "" if known else "no published baseline is known"
        figures.append(shelf.figure(f"scatter-{len(figures)}", here[0].title, spec, caption))
    return figures, shelf.specs


def _named(points: Rows, models: Sequence[str]) -> list[str]:
    """The page's models in their order, then those whose name says more here (its weights)."""
    return list(dict.fromkeys([*models, *(p["model"] for p in points)]))


def _shift_point(row: ShiftRow, before: Score) -> dict[str, Any]:
    ends = {"before": before.value, "before_low": before.low, "before_high": before.high}
    ends |= {"value": row.accuracy.value, "low": row.accuracy.low, "high": row.accuracy.high}
    rounded = {name: round(value, 4) for name, value in ends.items()}
    return {"model": row.model, **rounded, "n": row.accuracy.n, "interval": interval(row.accuracy)}


def _grid(measured: Sequence[float], lowest: Sequence[float]) -> list[float]:
    """Parent accuracies at which lines are drawn: from what was measured, or the baseline's models, to 95 %."""
    low = max(0.02, min([*measured, *lowest]) - 0.05)
    high = min(0.99, max([*measured, 0.9]) + 0.04)
    return [round(low + (high - low) * k / 40, 4) for k in range(41)]


def _line_records(name: str, line: Line, grid: Sequence[float]) -> Rows:
    expected, band = line.expected(grid), line.band(grid)
    ends: Any = band if band is not None else ([None] * len(grid), [None] * len(grid))
    return [
        {
            "baseline": name,
            "before": x,
            "expected": round(float(y), 4),
            "low": None if low is None else round(float(low), 4),
            "high": None if high is None else round(float(high), 4),
        }
        for x, y, low, high in zip(grid, expected, *ends, strict=True)
    ]


def _progress(shelf: _Shelf, axis: str, runs: Sequence[Progress], models: Sequence[str]) -> View:
    """Curves over steps or queries: the worst case (or the only attack) in view, single attacks below."""
    together = {(p.norm, p.eps) for p in runs if not p.attack}
    figures: list[View] = []
    more: list[View] = []
    rows: Rows = []
    for i, part in enumerate(runs):
        label = budget_label(part.norm, part.eps)
        title = f"{attack_name(part.attack)} at {label}" if part.attack else f"All attacks side by side at {label}"
        records = _placed(part.curves, axis)
        figure = shelf.figure(f"{axis}-{i}", title, charts.progress_chart(records, axis, models), part.attack)
        (figures if not part.attack or (part.norm, part.eps) not in together else more).append(figure)
        attack = part.attack or "worst case"
        rows += [{"attack": attack, "norm": part.norm, "budget": part.eps, **r} for r in records]
    last = "steps" if axis == "step" else "queries"
    text = (
        f"How fast attacks do their work at a pinned budget: the share of images still right after each {axis} of that "
        f"run. A curve that is still falling at the end says that more {last} would lower the number. Images that a "
        "smaller budget or an earlier attack had already broken count as broken from the start."
    )
    if axis == "step":
        text += " Curves over queries have their own figures where a step takes more than one."
    group = _group(f"Accuracy against attack {last}", text, shelf.table(last, rows), figures, small=True)
    group["more"], group["more_title"] = more, "Each attack alone"
    return group


def _telling(section: Section, axis: str) -> list[Progress]:
    """The runs worth a figure: curves over queries say nothing new where each step is one query."""
    steps = {(p.attack, p.norm, p.eps): p.curves for p in section.progress if p.axis == "step"}

    def repeats(part: Progress) -> bool:
        other = steps.get((part.attack, part.norm, part.eps), {})
        return all(m in other and abs(other[m].x[-1] - c.x[-1]) <= 2 for m, c in part.curves.items())

    return [p for p in section.progress if p.axis == axis and not (axis == "query" and repeats(p))]


def _placed(curves: Mapping[str, Curve], axis: str) -> Rows:
    """Records with their place on an axis of whole numbers (severity, step)."""
    rows: Rows = []
    for model, curve in curves.items():
        rows += [{**p, axis: int(x)} for p, x in zip(_points(model, curve), curve.x, strict=True)]
    return rows


def _broke(section: Section, shelf: _Shelf, models: Sequence[str]) -> View:
    attacks = sorted({a for o in section.broke for a in o.counts} - {CLEAN, RESISTED, SEVERAL})
    figures: list[View] = []
    rows: Rows = []
    for i, (norm, eps) in enumerate(dict.fromkeys((o.norm, o.eps) for o in section.broke)):
        here = [o for o in section.broke if (o.norm, o.eps) == (norm, eps)]
        records = [
            {"model": o.model, "outcome": name, "count": count, "share": round(count / o.n, 5), "n": o.n}
            for o in here
            for name, count in o.counts.items()
        ]
        spec = charts.breaker_chart(records, [o.model for o in here], attacks)
        told = "; ".join(f"{o.model}: {_shares(o)}" for o in here if o.broken_by)
        figures.append(shelf.figure(f"broke-{i}", f"At {budget_label(norm, eps)}", spec, told))
        rows += [{"norm": norm, "budget": eps, **r} for r in records]
        for o in here:
            named = {f"broken by {a}, alone or with others": count for a, count in o.broken_by.items()}
            rows += [
                {"norm": norm, "budget": eps, "model": o.model, "outcome": name, "count": count, "n": o.n}
                for name, count in named.items()
            ]
    text = (
        "What became of every image at each pinned budget: wrong without an attack, broken by one attack alone, broken "
        "by several, or standing. Behind each model: how many of its broken images each attack broke. Where one attack "
        "alone breaks much, the others are too weak for this model."
    )
    return _group("Who broke it", text, shelf.table("broke", rows), figures)


def _shares(outcome: Outcome) -> str:
    """``pgd 9, fmn 7 of 10``: images that each attack broke, alone or with others, of all that broke."""
    broken = sum(count for name, count in outcome.counts.items() if name not in (CLEAN, RESISTED))
    each = sorted(outcome.broken_by.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{attack} {count}" for attack, count in each) + f" of {broken}"
