"""A section's figures: their records, their specifications, and the text beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aresbench.metrics import Curve, Score
from aresbench.report import charts
from aresbench.report.breakers import CLEAN, RESISTED, SEVERAL, Outcome, attack_name
from aresbench.report.curves import Curves
from aresbench.report.progress import AXES, Progress
from aresbench.report.reading import NORM_NAMES, budget_label
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
    for name, curves in section.severity.items():
        records = _placed(curves, "severity")
        mean = name == "mean"
        title = "Mean over corruptions" if mean else name.replace("_", " ")
        height = charts.HEIGHT - 70 if mean else charts.SMALL
        spec = charts.severity_chart(records, models, height, legend=mean or "mean" not in section.severity)
        figures.append(shelf.figure(f"severity-{name}", title, spec, wide=mean))
        rows += [{"corruption": name, **r} for r in records]
    text = (
        "Accuracy as the dose of each corruption grows; severity 0 is the clean image. No adversary is at work here: "
        "these are accidents of weather, sensor and compression."
    )
    return _group("Accuracy against corruption", text, shelf.table("severity", rows), figures, small=True)


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
