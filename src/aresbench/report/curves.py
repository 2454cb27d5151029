"""Curves of every model over the budget and over the severity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aresbench.core.budget import parse_fraction
from aresbench.metrics import Curve, severity_curve, survival_curve, worst_case
from aresbench.metrics.baselines import CORRUPTIONS, EXTRAS
from aresbench.metrics.resample import bootstrap_mean
from aresbench.report.reading import Reading, common_ids, evidence

LADDER = 3  # rungs from which on a task is a curve


@dataclass(frozen=True)
class Curves:
    """Robust accuracy over the budget, one curve a model.

    Args:
        name: the task, or the norm where several tasks are joined.
        joined: the worst case over several tasks.
        budgets: the exact texts of the curve's points, ``"0"`` first.
        pinned: those of them that are attacked cold and in full.
        curves: model → share of all images still right.
        success: model → share broken of the images that were right at first.
        in_8_bits: model → as ``curves``, of breaks alone that survive rounding to 8 bits; models of which it is known.
    """

    name: str
    norm: str
    joined: bool
    attacks: tuple[str, ...]
    budgets: tuple[str, ...]
    pinned: tuple[str, ...]
    curves: Mapping[str, Curve]
    success: Mapping[str, Curve]
    in_8_bits: Mapping[str, Curve]


def is_ladder(reading: Reading) -> bool:
    """Has it enough budgets, on clean images, to be a curve?"""
    return reading.plain_adversary and len(reading.rungs) >= LADDER


def is_dose(reading: Reading) -> bool:
    """One corruption at one severity, and nothing else?"""
    return reading.kind == "corruption" and bool(reading.task.get("severity"))


def norms(found: Iterable[str]) -> list[str]:
    """Each norm once, L∞ before the others."""
    return sorted(set(found), key=lambda norm: (norm != "linf", norm))


def rungs_of(readings: Iterable[Reading]) -> list[str]:
    """The texts of all budgets above zero, rising, each size once."""
    sizes = {parse_fraction(t): t for r in readings for t in r.rungs}
    return [sizes[s] for s in sorted(sizes) if s > 0]


def clean_readings(group: Iterable[Reading]) -> list[Reading]:
    """Cells that say which images are right untouched: the clean task first, else an attack's clean verdicts."""
    clean = [r for r in group if r.kind == "clean"]
    return clean or [r for r in group if r.plain_adversary]


def epsilon_curves(models: Mapping[str, Sequence[Reading]]) -> tuple[Curves, ...]:
    everyone = [r for group in models.values() for r in group]
    found = []
    for norm in norms(r.norm for r in everyone if is_ladder(r)):
        tasks = dict.fromkeys(r.name for r in everyone if r.plain_adversary and r.norm == norm)
        if len(tasks) > 1:
            found.append(_curve_set(models, norm, None))
        ladders = dict.fromkeys(r.name for r in everyone if is_ladder(r) and r.norm == norm)
        found += [_curve_set(models, norm, name) for name in ladders]
    return tuple(found)


def _curve_set(models: Mapping[str, Sequence[Reading]], norm: str, task: str | None) -> Curves:
    """The curves of one ladder, or (``task=None``) the worst case over all tasks of a norm."""
    budgets = _all_rungs(models, norm, task)
    curves: dict[str, Curve] = {}
    success: dict[str, Curve] = {}
    in_8_bits: dict[str, Curve] = {}
    used: list[Reading] = []
    for model, group in models.items():
        known = [r for r in group if r.plain_adversary and r.norm == norm and task in (None, r.name)]
        ladders = [r for r in known if is_ladder(r)]
        if ladders and len(ids := common_ids(ladders)):
            breaking = evidence(known, ids)
            curves[model] = survival_curve(breaking, budgets)
            success[model] = survival_curve(breaking, budgets, success=True)
            rounded = [r.breaking_in_8_bits for r in known]
            if all(part is not None for part in rounded):
                parts = [part.reindex(ids, fill_value=np.inf) for part in rounded if part is not None]
                in_8_bits[model] = survival_curve(worst_case(parts), budgets)
            used += known
    attacks = dict.fromkeys(a for r in used for a in r.task.get("attacks", ()))
    pinned = {eps for r in used for eps in r.pinned}
    return Curves(
        name=task or norm,
        norm=norm,
        joined=task is None,
        attacks=tuple(attacks),
        budgets=("0", *budgets),
        pinned=tuple(b for b in budgets if b in pinned),
        curves=curves,
        success=success,
        in_8_bits=in_8_bits,
    )


def _all_rungs(models: Mapping[str, Sequence[Reading]], norm: str, task: str | None) -> list[str]:
    """Rungs of the ladders, and pinned budgets of other tasks that lie within their range."""
    every = [r for g in models.values() for r in g if r.plain_adversary and r.norm == norm and task in (None, r.name)]
    top = max(parse_fraction(r.rungs[-1]) for r in every if is_ladder(r))
    return [b for b in rungs_of(every) if parse_fraction(b) <= top]


def severity_curves(models: Mapping[str, Sequence[Reading]]) -> dict[str, dict[str, Curve]]:
    """Corruption → model → accuracy over severity, with the clean image as severity 0; ``mean`` first.

    Where corruptions were measured in several modes, each has curves of its own: ``mean (disk)``, ``fog (disk)``.
    """
    everyone = [r for group in models.values() for r in group if is_dose(r)]
    found_modes = list(dict.fromkeys(r.mode for r in everyone))
    kept: dict[str, dict[str, Curve]] = {}
    for mode in found_modes:
        names = {str(r.task["corruption"]) for r in everyone if r.mode == mode}
        common = names - set(EXTRAS) or names  # the extras are no part of a benchmark's mean
        found: dict[str, dict[str, Curve]] = {"mean": {}}
        for model, group in models.items():
            clean = {0: clean_readings(group)[0].correct} if clean_readings(group) else {}
            doses: dict[str, dict[int, pd.Series]] = {}
            for reading in (r for r in group if is_dose(r) and r.mode == mode):
                doses.setdefault(str(reading.task["corruption"]), {})[int(reading.task["severity"])] = reading.correct
            for name in sorted(doses, key=benchmark_order):
                found.setdefault(name, {})[model] = severity_curve({**clean, **doses[name]})
            if common <= doses.keys():  # a mean over fewer corruptions is another number
                mean = _mean_severity([doses[name] for name in sorted(common)], clean)
                if mean is not None:
                    found["mean"][model] = mean
        suffix = f" ({mode})" if len(found_modes) > 1 or mode != "memory" else ""
        kept.update({name + suffix: curves for name, curves in found.items() if curves})
    # one corruption at one severity is a number, not a curve
    return (
        kept if len(kept) > 1 or any((c.x > 0).sum() > 1 for curves in kept.values() for c in curves.values()) else {}
    )


def benchmark_order(corruption: str) -> tuple[int, str]:
    """The fifteen of ImageNet-C in the paper's order, its extras, then others by name."""
    known = (*CORRUPTIONS, *EXTRAS)
    return (known.index(corruption) if corruption in known else len(known)), corruption


def filter_curves(models: Mapping[str, Sequence[Reading]]) -> dict[str, dict[str, Curve]]:
    """Filter (``lowpass``, ``highpass``) → model → accuracy over the radius, where at least two were measured."""
    found: dict[str, dict[str, Curve]] = {}
    for model, group in models.items():
        by_radius: dict[str, dict[int, pd.Series]] = {}
        for reading in group:
            if reading.kind == "filter" and reading.task.get("radius") is not None:
                by_radius.setdefault(str(reading.task["filter"]), {})[int(reading.task["radius"])] = reading.correct
        for name, doses in by_radius.items():
            if len(doses) > 1:
                found.setdefault(name, {})[model] = severity_curve(doses)
    return found


def _mean_severity(doses: Sequence[Mapping[int, pd.Series]], clean: Mapping[int, pd.Series]) -> Curve | None:
    """Mean over corruptions at each severity that all of them have; an image counts as its share of right answers."""
    severities = sorted(set.intersection(*(set(d) for d in doses))) if len(doses) > 1 else []
    if not severities:
        return None
    points = {0: list(clean.values())} if clean else {}
    points.update({s: [d[s] for d in doses] for s in severities})
    shares = [pd.concat(series, axis=1, join="inner").astype(float).mean(axis=1) for series in points.values()]
    scores = [bootstrap_mean(share.to_numpy(), (0.0, 1.0)) for share in shares]
    wide = [bootstrap_mean(share.to_numpy(), (0.0, 1.0), level=1 - 0.05 / len(shares)) for share in shares]
    value, low, high = (np.array([getattr(s, name) for s in scores]) for name in ("value", "low", "high"))
    band_low, band_high = (np.array([getattr(s, name) for s in wide]) for name in ("low", "high"))
    n = np.array([s.n for s in scores], dtype=np.int64)
    return Curve(np.array(list(points), dtype=np.float64), value, low, high, band_low, band_high, n)
