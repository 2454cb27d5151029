"""Measured summaries and published tables → boards: one a dataset, a row a model, a column a figure of one source.

A column belongs to exactly one source and protocol, so that a measured and a published number never share one; a row
may have figures of several sources, where they name the same model at the same input size.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aresbench.metrics import Curve, Score
from aresbench.metrics.published import Published
from aresbench.report import charts
from aresbench.report.columns import Column as Measured
from aresbench.report.reading import NORM_NAMES, Reading, budget_label, card_flags
from aresbench.report.summary import Section, Summary

MEASURED, PUBLISHED = "measured", "published"
TITLES = {"imagenet": "ImageNet", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
TRANSFORMERS = frozenset({
    "beit", "beit3", "beitv2", "caformer", "cait", "coat", "coatnet", "coatnext", "convit", "crossvit", "davit", "deit",
    "edgenext", "efficientformer", "efficientformerv2", "efficientvit", "eva", "fastvit", "flexivit", "gcvit", "hiera",
    "levit", "maxvit", "maxxvit", "maxxvitv2", "mobilevit", "mobilevitv2", "mvitv2", "naflexvit", "nest", "nextvit",
    "pit", "pvt", "rvt", "shvit", "swiftformer", "swin", "swinv2", "t2t_vit", "tiny_vit", "tnt", "transformer", "twins",
    "visformer", "vit", "volo", "xcit",
})  # fmt: skip
"""Families counted as Transformers, hybrids with attention among them; others that are named count as CNNs."""


@dataclass(frozen=True)
class Column:
    """One kind of figure of one source.

    Args:
        key: unique on its board; starts with ``measured`` or the published source's name.
        kind: ``measured`` or ``published``.
        source: the group's heading, e.g. ``RobustBench``.
        hint: the protocol, in one line.
        role: what the figure speaks of: ``clean``, ``robust``, ``corruption``, ``natural`` …
        budget: the threat's budget, or empty.
        group: figures of one group may stand in one plot: those of a source, and measured natural shifts with what was
            measured on the data they are shifts of.
    """

    key: str
    label: str
    kind: str
    source: str
    hint: str
    role: str
    budget: str
    better: str
    unit: str
    group: str


@dataclass(frozen=True)
class Figure:
    """A number with its interval, as shares where the unit is ``%``; ``n`` 0: not known, and then no interval."""

    value: float
    low: float
    high: float
    n: int
    flags: tuple[str, ...] = ()


@dataclass
class Model:
    """One row: who it is, where it comes from, its figures by column, and what its card says against all of them."""

    key: str
    name: str
    facts: dict[str, str] = field(default_factory=dict)
    sources: dict[str, Mapping[str, str]] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    warnings: tuple[Mapping[str, Any], ...] = ()

    @property
    def flags(self) -> list[str]:
        """Names of all reasons to doubt a number of it."""
        own = {flag["name"] for flag in self.warnings if flag["level"] != "info"}
        return sorted(own.union(*(figure.flags for figure in self.figures.values())))

    @property
    def page(self) -> str:
        """The file name of its page."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.key.lower()).strip("-")[:60]
        return f"{slug}-{hashlib.blake2b(self.key.encode(), digest_size=4).hexdigest()}.html"

    @property
    def kind(self) -> str:
        """``Transformer``, ``CNN and others``, or empty where the family is unknown."""
        family = self.facts.get("family", "")
        return ("Transformer" if family in TRANSFORMERS else "CNN and others") if family else ""


@dataclass(frozen=True)
class Track:
    """Curves of the measured models of one section.

    Args:
        ticks: place on the axis → what is written there.
        curves: model key → points: what stands at the place, the place, and value, low and high as shares.
    """

    title: str
    axis: str
    ticks: Mapping[float, str]
    curves: Mapping[str, list[tuple[str, float, float, float, float]]]


@dataclass
class Board:
    """Everything about one dataset."""

    name: str
    title: str
    columns: dict[str, Column] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    tracks: list[Track] = field(default_factory=list)
    sections: list[tuple[Section, Mapping[str, str]]] = field(default_factory=list)
    """Measured sections, each with the key of every model's row."""


def boards(
    summary: Summary | None, tables: Sequence[Published], cards: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Board]:
    """All boards: those with measured results first, then those of published figures alone.

    Args:
        summary: what was measured, or nothing.
        tables: published tables to show beside it.
        cards: model's name → card, for those that were not measured here.
    """
    found: dict[str, Board] = {}
    taken = {entry.key for table in tables for entry in table.entries}
    sections = sorted(summary.sections, key=lambda s: bool(s.about.get("parent"))) if summary else ()  # parents first
    for place, section in enumerate(sections):
        _add_section(_board(found, section.dataset, section.title), section, place, taken)
    for table in tables:
        _add_table(found, table)
    for board in found.values():
        for key, card in (cards or {}).items():
            if (model := board.models.get(key)) and MEASURED not in model.sources:
                _add_card(model, card)
        used = {key for model in board.models.values() for key in model.figures}
        board.columns = {key: column for key, column in board.columns.items() if key in used}
        sizes = Counter(source for model in board.models.values() for source in model.sources)
        board.columns = dict(  # measured first, then the sources with most models
            sorted(
                board.columns.items(), key=lambda item: (item[1].kind != MEASURED, -sizes[item[0].partition(":")[0]])
            )
        )
    return list(found.values())


def home(dataset: str) -> str:
    """The board of a dataset: ``imagenet`` of ``imagenet-r`` and ``cifar10`` of ``cifar10.1``."""
    return next((name for name in TITLES if re.match(rf"{name}(?![a-z0-9])", dataset)), dataset)


def _board(found: dict[str, Board], dataset: str, title: str) -> Board:
    name = home(dataset)
    return found.setdefault(name, Board(name, TITLES.get(name, title)))


def _add_section(board: Board, section: Section, place: int, taken: set[str]) -> None:
    prefix, source = f"{MEASURED}{place}:", section.title
    for column in section.columns:
        units = [s for row in section.rows if (s := row.scores.get(column.key)) is not None]
        better, unit = (units[0].better, units[0].unit) if units else ("higher", "%")
        role, budget = _role(column, section)
        key = prefix + column.key
        main = next((s.title for s, _ in board.sections if s.dataset == board.name), source)
        group = main if role == "natural" else source
        board.columns[key] = Column(
            key, column.label, MEASURED, source, f"{section.title}: {column.hint}", role, budget, better, unit, group
        )
    keys = {}
    for row in section.rows:
        key = keys[row.model] = _key(row.model, section.models[row.model], taken)
        model = board.models.setdefault(key, Model(key, row.model))
        _add_card(model, {**row.about, **_weights(section.models[row.model][0])})
        if size := input_size(section.models[row.model][0]):
            model.facts["size"] = str(size)
        model.sources.setdefault(MEASURED, {})
        for name, score in row.scores.items():
            if score is not None and not score.missing:
                model.figures[prefix + name] = _figure(score)
    board.sections.append((section, keys))
    board.tracks += _tracks(section, keys)


def _add_card(model: Model, card: Mapping[str, Any]) -> None:
    """A model's own card goes before what tables say of it."""
    told = {name: text for name, value in card.items() if name != "name" and (text := _told(value))}
    model.facts = {**model.facts, **told}
    if family := model.facts.get("family"):  # "Wide ResNet" of a card is "wide_resnet" of a table
        model.facts["family"] = re.sub(r"[ -]+", "_", family.lower())
    model.warnings = tuple(card_flags(card))


def _told(value: Any) -> str:
    """A fact of a card as one line; empty where there is nothing to tell."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        colon = ":" if any(isinstance(inner, Mapping) for inner in value.values()) else ""
        return "; ".join(f"{name}{colon} {text}" for name, inner in value.items() if (text := _told(inner)))
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_told, value)))
    return "" if value is None else str(value)


def _weights(reading: Reading) -> dict[str, Any]:
    """Which weights were measured, and how pictures were prepared for them."""
    prepared = reading.description["identity"]["protocol"].get("preprocessing")
    return {"fingerprint": reading.fingerprint, "preprocessing": prepared}


def _figure(score: Score) -> Figure:
    return Figure(score.value, score.low, score.high, score.n, score.flags)


def _key(label: str, readings: Sequence[Reading], taken: set[str]) -> str:
    """The published key of the same model at the same input size, else its own label."""
    name = readings[0].model
    if label != name:  # one name with several weights: none of them is known to be the published one
        return label
    return next((key for key in (f"{name} @{input_size(readings[0])}", name) if key in taken), name)


def input_size(reading: Reading) -> int:
    """Height of the model's input in pixels, 0 where images went in as they were."""
    preprocessing = reading.description["identity"]["protocol"].get("preprocessing") or {}
    return int((preprocessing.get("size") or [0])[0])


def _role(column: Measured, section: Section) -> tuple[str, str]:
    kind = column.key.split(" ")[0]
    if kind == "clean":
        relabelled = section.dataset.startswith("imagenet-real")  # the parent's own images
        return "relabelled" if relabelled else "natural" if section.about.get("parent") else "clean", ""
    if kind in ("robust", "autoattack"):
        return "robust", budget_label(*column.key.split(" ")[1:])
    if kind == "union":
        return "robust", column.label
    return ("area" if kind == "area" else "corruption"), ""


def _tracks(section: Section, keys: Mapping[str, str]) -> list[Track]:
    found = []
    for norm in dict.fromkeys(c.norm for c in section.curves):
        curves = next(c for c in section.curves if c.norm == norm)
        places, _ = charts.positions(curves.budgets)
        ticks = {place: charts.axis_label(budget) for budget, place in places.items()}
        points = {keys[m]: _points(places.items(), c) for m, c in curves.curves.items()}
        found.append(Track(f"{section.title}: accuracy under attack", f"{NORM_NAMES.get(norm, norm)} ε", ticks, points))
    for name, of_models in section.severity.items():
        if name.startswith("mean"):
            points = {keys[m]: _points([(f"{x:g}", float(x)) for x in c.x], c) for m, c in of_models.items()}
            ticks = {place: at for of_model in points.values() for at, place, *_ in of_model}
            found.append(Track(f"{section.title}: corruptions, {name}", "severity", ticks, points))
    return [track for track in found if track.curves]


def _points(places: Iterable[tuple[str, float]], curve: Curve) -> list[tuple[str, float, float, float, float]]:
    rows = zip(places, curve.value.tolist(), curve.low.tolist(), curve.high.tolist(), strict=True)
    return [(at, place, *ends) for (at, place), *ends in rows if all(map(math.isfinite, ends))]


def _add_table(found: dict[str, Board], table: Published) -> None:
    for entry in table.entries:
        board = _board(found, entry.board, entry.board)
        model = board.models.setdefault(entry.key, Model(entry.key, _shown(entry.key, entry.facts["name"])))
        model.sources[table.name] = entry.facts
        for fact, value in entry.facts.items():
            if value and fact not in ("key", "board", "name", "note", "link", "flags"):
                model.facts.setdefault(fact, value)
        doubts = tuple(entry.facts["flags"].split())
        for name, percent in entry.figures.items():
            measure = table.measures[name]
            key = f"{table.name}:{name}"
            if key not in board.columns:
                board.columns[key] = Column(
                    key, measure.label, PUBLISHED, table.title, f"{measure.protocol}. Published by {table.title}, "
                    f"{table.date}, {table.licence}", measure.role, measure.budget, measure.better, "%", table.title,
                )  # fmt: skip
            n = measure.n.get(board.name, 0)
            about = doubts if name.startswith("autoattack ") else ()
            model.figures[key] = Figure(*measure.score(percent, board.name), n, about)
    for board in found.values():  # as the source orders its figures, not as its rows happen to have them
        order = {f"{table.name}:{name}": i for i, name in enumerate(table.measures)}
        board.columns = dict(sorted(board.columns.items(), key=lambda item: order.get(item[0], -1)))


def _shown(key: str, name: str) -> str:
    """A published model by the name under which this package loads it, where there is one."""
    return key if key.startswith(("timm:", "zoo:")) else name
