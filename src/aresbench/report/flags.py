"""Flags: reasons to doubt a number, each told once with everything it concerns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aresbench.report.reading import Reading
from aresbench.report.weak_curves import NAME, REMEDY, weak_curves

LEVELS = ("error", "warning", "info")


@dataclass(frozen=True)
class Flag:
    """One finding: what it means, what to do, and the models and tasks it concerns."""

    name: str
    level: str
    message: str
    remedy: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]


def flag_names(readings: Iterable[Reading]) -> list[str]:
    """Names of the warnings and errors on these cells (an info is no reason to doubt)."""
    return list(dict.fromkeys(f["name"] for r in readings for f in r.flags if f["level"] != "info"))


def collect_flags(models: Mapping[str, Sequence[Reading]]) -> tuple[Flag, ...]:
    """All flags, errors first; the same finding on many cells is told once.

    What only several cells together show is among them: curves that other tasks show to be too high.
    """
    found: dict[tuple[str, str, str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for model, group in models.items():
        for reading in group:
            for flag in reading.flags:
                key = (flag["name"], flag["level"], flag["message"], flag.get("remedy") or "")
                where = found.setdefault(key, ({}, {}))
                where[0][model] = None
                if flag.get("about") == "cell":
                    where[1][reading.name] = None
    for model, task, message in weak_curves(models):
        where = found.setdefault((NAME, "warning", message, REMEDY), ({}, {}))
        where[0][model], where[1][task] = None, None
    flags = [Flag(*key, tuple(m), tuple(t)) for key, (m, t) in found.items()]
    return tuple(sorted(flags, key=lambda f: (LEVELS.index(f.level), f.name)))
