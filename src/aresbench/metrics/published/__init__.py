"""What others have published, as tables of ours: figures with source, date, licence and protocol.

A published figure was measured by other people under their protocol. It is read from here, shown beside measured ones
under its source's name, and never averaged, ranked or subtracted with them. The tables live in this room because they
are reference points like ``metrics.baselines``, and the report may read them here.

``sources.toml`` says what each table and each of its figures is; ``NAME.tsv`` holds one row a model.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from aresbench.core.errors import UnknownName, did_you_mean
from aresbench.metrics.score import wilson

FACTS = (
    "key", "board", "name", "family", "architecture", "paradigm", "data", "parameters", "size", "note", "link", "flags",
)  # fmt: skip
"""The columns of a table that are no figures; all others are, and stand in ``sources.toml``."""


@dataclass(frozen=True)
class Measure:
    """One kind of figure: what was measured, and how.

    Args:
        key: the heading in the table.
        label: the heading as printed.
        protocol: images, preprocessing, threat and attack, in one line.
        role: ``clean``, ``robust``, ``corruption`` or ``natural``: what the figure speaks of.
        budget: the threat's budget as printed, e.g. ``L∞ 4/255``; empty for none.
        better: ``higher`` or ``lower``.
        n: dataset → number of images, where the figure is a plain share of right images; it then has an interval.
    """

    key: str
    label: str
    protocol: str
    role: str
    budget: str
    better: str
    n: Mapping[str, int]

    def score(self, percent: float, board: str) -> tuple[float, float, float]:
        """A figure with its 95 % interval, as shares; the ends are the figure itself where n is not known."""
        value, n = percent / 100, self.n.get(board, 0)
        low, high = wilson(min(n, round(value * n)), n) if n else (value, value)
        return value, min(low, value), max(high, value)


@dataclass(frozen=True)
class Entry:
    """One model's row: who it is, and its figures in percent."""

    facts: Mapping[str, str]
    figures: Mapping[str, float]

    @property
    def key(self) -> str:
        """The name by which this package would load the model, with the input size where a source has several."""
        return self.facts["key"]

    @property
    def board(self) -> str:
        """The dataset whose classes the model knows."""
        return self.facts["board"]


@dataclass(frozen=True)
class Published:
    """One source's table."""

    name: str
    title: str
    address: str
    date: str
    licence: str
    citation: str
    remarks: str
    measures: Mapping[str, Measure]
    entries: tuple[Entry, ...]


def names() -> tuple[str, ...]:
    """All sources there are tables of."""
    return tuple(_sources())


@cache
def published(name: str) -> Published:
    """The table of one source.

    Args:
        name: one of ``names()``, e.g. ``robustbench``.

    Raises:
        UnknownName: no such source.
    """
    if name not in _sources():
        raise UnknownName(
            f"there are no published figures called {name!r}",
            did_you_mean(name, names()) or f"there are: {', '.join(names())}",
        )
    about = dict(_sources()[name])
    measures = {key: _measure(key, facts) for key, facts in about.pop("measures").items()}
    text = (resources.files(__name__) / f"{name}.tsv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t"))
    entries = tuple(
        Entry(
            {fact: row.get(fact) or "" for fact in FACTS},
            {key: float(row[key]) for key in measures if row.get(key)},
        )
        for row in rows
    )
    return Published(name, measures=measures, entries=entries, **about)


def _measure(key: str, facts: Mapping[str, Any]) -> Measure:
    known = {"budget": "", "better": "higher", "n": {}, **facts}
    return Measure(key, **known)


@cache
def _sources() -> dict[str, dict[str, Any]]:
    text = (resources.files(__name__) / "sources.toml").read_text("utf-8")
    return tomllib.loads(text)
