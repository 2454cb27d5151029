"""Numbers over many corruption tasks: means, mCE, and what became of each corruption at each severity.

The modes of a corruption (``memory``, ``disk``, ``imagecorruptions``, published files) are different protocols: each
has numbers of its own, and none is a mean over two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd

from aresbench.metrics import Score, accuracy
from aresbench.metrics.baselines import CORRUPTIONS, EXTRAS, UNORDERED
from aresbench.metrics.corruption_error import (
    SEVERITIES,
    corruption_errors,
    mean_corruption_error,
    missing_conditions,
)
from aresbench.metrics.resample import bootstrap_mean
from aresbench.report.curves import benchmark_order, clean_readings, is_dose
from aresbench.report.reading import Reading, common_ids

BASELINE = "alexnet-50k"
IMAGENET_CLASSES, ALEXNET_SIZE = 1000, 224

Doses: TypeAlias = "dict[tuple[str, int], Reading]"
Found: TypeAlias = "tuple[Score | None, list[Reading], str]"


@dataclass(frozen=True)
class HeatRow:
    """One corruption: accuracy at each severity and their mean, CE where it can be said; ``None``: not measured."""

    corruption: str
    ordered: bool
    scores: tuple[Score | None, ...]
    mean: Score | None
    error: Score | None


@dataclass(frozen=True)
class HeatMap:
    """One model under one mode: corruptions × severities."""

    model: str
    mode: str
    severities: tuple[int, ...]
    rows: tuple[HeatRow, ...]


def modes(readings: Iterable[Reading]) -> list[str]:
    """The modes of the corruption tasks, each a protocol of its own; ``memory`` first."""
    return sorted({r.mode for r in readings if is_dose(r)}, key=lambda mode: (mode != "memory", mode))


def doses(group: Iterable[Reading], mode: str) -> Doses:
    """(corruption, severity) → cell, of one mode; in the benchmark's order."""
    found = {(str(r.task["corruption"]), int(r.task["severity"])): r for r in group if is_dose(r) and r.mode == mode}
    return {key: found[key] for key in sorted(found, key=lambda key: (benchmark_order(key[0]), key[1]))}


def columns(models: Mapping[str, Sequence[Reading]]) -> list[tuple[str, str, str]]:
    """(key, heading, explanation) of every number over corruptions that the table of models has."""
    everyone = [r for group in models.values() for r in group]
    found = []
    for mode in modes(everyone):
        suffix = "" if mode == "memory" and len(modes(everyone)) == 1 else f" ({mode})"
        common, extras = _wanted(everyone, mode)
        for kind, title, keys in (("corruptions", "Corruptions", common), ("extras", "Extra corruptions", extras)):
            if keys:
                names = len({name for name, _ in keys})
                hint = (
                    f"mean accuracy over {len(keys)} tasks ({names} corruptions), each counting the same; mode {mode}"
                )
                found.append((f"{kind} {mode}", title + suffix, hint))
        if any(not _no_mce(group, mode) for group in models.values()):
            hint = (
                f"errors over fifteen corruptions and five severities, each corruption's over AlexNet's on the "
                f"published files (baseline {BASELINE}; AlexNet: 100 %); mode {mode}"
            )
            found.append((f"mce {mode}", f"mCE ↓ {BASELINE}{suffix}", hint))
            hint = (
                f"how much errors grow from the clean images, over AlexNet's growth (baseline {BASELINE}); mode {mode}"
            )
            found.append((f"relative-mce {mode}", f"Relative mCE ↓ {BASELINE}{suffix}", hint))
    return found


def score(key: str, group: Sequence[Reading], section: Sequence[Reading]) -> Found:
    """A model's number under a key of ``columns``, the cells behind it, and why it is missing where it is."""
    kind, _, mode = key.partition(" ")
    if kind in ("corruptions", "extras"):
        return _mean(doses(group, mode), _wanted(section, mode)[kind == "extras"])
    return corruption_error(group, mode, relative=kind != "mce")


def corruption_error(group: Sequence[Reading], mode: str, *, relative: bool, baseline: str = BASELINE) -> Found:
    """A model's mCE, or relative mCE, under a mode and a baseline over the fifteen corruptions."""
    if reason := _no_mce(group, mode):
        return None, [], reason
    used = {key: r for key, r in doses(group, mode).items() if key[0] in CORRUPTIONS}
    readings = list(used.values())
    if not relative:
        ids = common_ids(readings)
        return mean_corruption_error(correct_rows(used, ids), baseline), readings, ""
    clean = clean_readings(group)[:1]
    ids = common_ids([*readings, *clean]) if clean else pd.Index([])
    if not len(ids):
        return None, [], "not measured on the clean images"
    untouched = clean[0].correct.reindex(ids).to_numpy(bool)
    return mean_corruption_error(correct_rows(used, ids), baseline, untouched), [*readings, *clean], ""


def _wanted(readings: Iterable[Reading], mode: str) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
    """All doses that a mode was measured at by anybody: the benchmark's (and others), and the four extras."""
    keys = set(doses(readings, mode))
    extras = {key for key in keys if key[0] in EXTRAS}
    return keys - extras, extras


def _mean(mine: Doses, wanted: set[tuple[str, int]]) -> Found:
    used = [r for key, r in mine.items() if key in wanted]
    if len(used) != len(wanted):  # a mean over another set of corruptions is no answer to the same question
        return None, [], f"{len(used)} of {len(wanted)} corruption tasks measured"
    ids = common_ids(used)
    if not len(ids):
        return None, [], "the corruption tasks share no image"
    return bootstrap_mean(shares(used, ids), (0.0, 1.0)), used, ""


def shares(used: Sequence[Reading], ids: pd.Index) -> np.ndarray:
    """[N] of each image the share of tasks in which it is right."""
    right = np.stack([r.correct.reindex(ids).to_numpy(bool) for r in used])
    return np.asarray(right.sum(axis=0) / len(used))


def correct_rows(used: Doses, ids: pd.Index) -> dict[str, dict[int, np.ndarray]]:
    """corruption → severity → [N] right, as the metrics take it."""
    rows: dict[str, dict[int, np.ndarray]] = {}
    for (name, severity), reading in used.items():
        rows.setdefault(name, {})[severity] = reading.correct.reindex(ids).to_numpy(bool)
    return rows


def _no_mce(group: Sequence[Reading], mode: str) -> str:
    """Why a model has no mCE in a mode; empty where it has one."""
    mine = doses(group, mode)
    rows: dict[str, dict[int, tuple[()]]] = {}
    for name, severity in mine:
        rows.setdefault(name, {})[severity] = ()
    lacking = missing_conditions(rows)
    if lacking:
        return f"{len(lacking)} of {len(CORRUPTIONS) * len(SEVERITIES)} tasks of the benchmark are not measured"
    used = [r for key, r in mine.items() if key[0] in CORRUPTIONS]
    if reason := next((reason for r in used if (reason := unlike_alexnet(r))), ""):
        return reason
    return "" if len(common_ids(used)) else "the corruption tasks share no image"


def unlike_alexnet(reading: Reading) -> str:
    """Why AlexNet's errors are no yardstick for a corruption task; empty where they are one."""
    if reading.published is not None:
        name = reading.dataset.partition("/")[0]
        return "" if name == "imagenet-c" else f"AlexNet's errors are those on ImageNet-C, not on {name}"
    if len(reading.about.get("classes") or ()) != IMAGENET_CLASSES:
        return "AlexNet's errors are those among ImageNet's 1000 classes"
    size = parameter_set(reading)
    if size not in (0, ALEXNET_SIZE):
        return f"measured with the doses of {size} pixels; AlexNet's errors are of those for {ALEXNET_SIZE}"
    return ""


def parameter_set(reading: Reading) -> int:
    """The image size whose doses a corruption task had; 0 where nothing was recorded."""
    if not is_dose(reading):
        return 0
    settings = reading.description["identity"].get("settings", {})
    return max((int(record.get("parameter_set", 0)) for record in settings.values()), default=0)


def heat_maps(models: Mapping[str, Sequence[Reading]]) -> tuple[HeatMap, ...]:
    """Accuracy of every corruption at every severity, a table a model and mode with at least two doses."""
    found = []
    for mode in modes(r for group in models.values() for r in group):
        for model, group in models.items():
            mine = doses(group, mode)
            if len(mine) > 1:
                found.append(_heat_map(model, mode, mine))
    return tuple(found)


def _heat_map(model: str, mode: str, mine: Doses) -> HeatMap:
    severities = tuple(sorted({severity for _, severity in mine}))
    rows = []
    for name in dict.fromkeys(name for name, _ in mine):
        here = {severity: mine[name, severity] for severity in severities if (name, severity) in mine}
        scores = tuple(accuracy(here[s].correct) if s in here else None for s in severities)
        used = list(here.values())
        ids = common_ids(used)
        mean = bootstrap_mean(shares(used, ids), (0.0, 1.0)) if len(here) == len(severities) and len(ids) else None
        error = None
        if set(here) == set(SEVERITIES) and len(ids) and name in CORRUPTIONS and not any(map(unlike_alexnet, used)):
            error = corruption_errors(correct_rows({(name, s): r for s, r in here.items()}, ids), BASELINE)[name]
        rows.append(HeatRow(name, name not in UNORDERED, scores, mean, error))
    return HeatMap(model, mode, severities, tuple(rows))
