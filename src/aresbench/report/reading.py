"""One cell read once: what it measured, and its rows as arrays."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from aresbench.core.budget import parse_fraction
from aresbench.metrics import breaking_values, worst_case
from aresbench.metrics.budgets import as_float
from aresbench.metrics.score import Floats
from aresbench.store import Cell

# Resize, crop and interpolation are bound to the weights, so that two models rightly differ in them;
# a class map's hash follows from the model's own class order.
# A corruption takes its parameters from the size of the model's input.
BOUND_TO_THE_MODEL = frozenset({"preprocessing", "hash", "parameter_set", "parameters"})

KINDS = ("clean", "corruption", "filter", "adversary")
CONTAMINATED = "contaminated"  # the flag of a corruption that the model's training came close to
UNVERIFIED = "unverified"  # the flag of a model whose card says that its weights were never checked
NORM_NAMES = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}


@dataclass(frozen=True)
class Reading:
    """A cell's description together with its tables, read from disk once.

    Args:
        cell: the cell in its store.
        ids: only these images (the view that was asked for); ``None``: all that the cell holds.
    """

    cell: Cell
    ids: frozenset[str] | None = None

    @property
    def description(self) -> Mapping[str, Any]:
        return self.cell.description

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row per image, indexed by image id, in the dataset's published order."""
        return self._of_view(self.cell.images()).set_index("id")

    @cached_property
    def attempts(self) -> pd.DataFrame:
        """One row per image, attack and budget; empty for tasks without an adversary."""
        return self._of_view(self.cell.attempts())

    def _of_view(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows if self.ids is None else rows[rows["id"].isin(self.ids)]

    @property
    def about(self) -> Mapping[str, Any]:
        """What was recorded of the dataset: title, classes, parent, class rule, corruption of published files."""
        found: Mapping[str, Any] = self.description.get("dataset", {})
        return found

    @property
    def published(self) -> tuple[str, int] | None:
        """Corruption and severity that the dataset's files already bear, as those of ImageNet-C do."""
        found = self.about.get("corruption")
        return (str(found[0]), int(found[1])) if found else None

    @cached_property
    def task(self) -> Mapping[str, Any]:
        """What was asked; a corruption that published files bear is a part of it."""
        task: Mapping[str, Any] = self.description.get("task", {})
        if self.published is None:
            return task
        name, severity = self.published
        plain = task.get("kind", "clean") == "clean"
        files = f"files of {self.dataset.partition('/')[0]}"
        return {
            **task,
            "kind": "corruption" if plain else task["kind"],
            "corruption": " + ".join(filter(None, (name, task.get("corruption")))),
            "severity": severity if plain else None,
            "mode": files,
            "name": f"{name} {severity} ({files})" if plain else f"{task.get('name')} on {name} {severity} ({files})",
        }

    @property
    def mode(self) -> str:
        """A corruption's protocol: ``memory``, ``disk``, ``imagecorruptions``, ``files of imagenet-c``; or none."""
        return str(self.task.get("mode") or "memory") if self.task.get("corruption") else ""

    @property
    def home(self) -> str:
        """The dataset whose tables the cell belongs to: of published corrupted files the one they were made from."""
        parent = self.about.get("parent")
        if self.published is None or not parent:
            return self.dataset
        return str(parent) + part_of(self.dataset)

    @property
    def kind(self) -> str:
        """``clean``, ``corruption``, ``filter`` or ``adversary``."""
        return str(self.task.get("kind", "clean"))

    @property
    def name(self) -> str:
        """The task's name as printed everywhere."""
        return str(self.task.get("name") or self.description["identity"]["threat"])

    @property
    def model(self) -> str:
        return str(self.description["identity"]["model"]["name"])

    @property
    def fingerprint(self) -> str:
        return str(self.description["identity"]["model"].get("fingerprint", ""))

    @property
    def dataset(self) -> str:
        return str(self.description["identity"]["dataset"])

    @property
    def norm(self) -> str:
        return str(self.task.get("norm") or "")

    @property
    def plain_adversary(self) -> bool:
        """An adversary on clean images: its evidence may be joined with that of other such tasks."""
        return self.kind == "adversary" and not self.task.get("corruption") and not self.task.get("filter")

    @cached_property
    def rungs(self) -> tuple[str, ...]:
        """The texts of this task's budgets, smallest first."""
        return tuple(sorted(self.task.get("rungs") or (), key=parse_fraction))

    @cached_property
    def pinned(self) -> tuple[str, ...]:
        """The texts of the budgets that are attacked cold and in full, smallest first."""
        return tuple(sorted(self.task.get("pinned") or (), key=parse_fraction))

    @cached_property
    def breaking(self) -> pd.Series:
        """Breaking budget of every image (by id): 0 for a clean error, inf where every rung was resisted."""
        return pd.Series(breaking_values(self.images["breaking_budget"]), index=self.images.index)

    @cached_property
    def breaking_distance(self) -> pd.Series:
        """Smallest confirmed distance of every image (by id): 0 for a clean error, inf where nothing broke it."""
        found = self.images["breaking_distance"].astype(float).fillna(np.inf)
        return found.where(self.correct, 0.0)

    @cached_property
    def breaking_in_8_bits(self) -> pd.Series | None:
        """As ``breaking``, of those breaks alone that are still such once their image is rounded to 8 bits.

        Nobody looked for breaks in 8 bits, so it is an upper bound. ``None`` where it is not known of some break.
        """
        tried = self.attempts[self.attempts["verdict"] == "broken"]
        rungs = np.array([as_float(rung) for rung in self.rungs])
        # A break counts for its own budget and, with the judge's tolerance, for every rung at or above its distance.
        above = np.searchsorted(rungs * (1 + 1e-6) + 1e-7, tried["distance"].to_numpy())
        own = tried["eps"].map({eps: as_float(eps) if eps else np.inf for eps in tried["eps"].unique()})
        reach = np.fmin(own.to_numpy(dtype=float), np.append(rungs, np.inf)[above])
        if tried["survives_rounding"].isna()[np.isfinite(reach)].any():
            return None
        kept = tried["survives_rounding"].fillna(False).to_numpy(dtype=bool)
        least = pd.Series(reach[kept], index=tried["id"][kept], dtype=float).groupby(level=0).min()
        found = least.reindex(self.images.index, fill_value=np.inf)
        return found.where(self.breaking > 0, 0.0).clip(lower=self.breaking)

    @cached_property
    def correct(self) -> pd.Series:
        """Is each image (by id) right before any attack (of a corruption: right on the corrupted image)?"""
        return self.images["correct"].astype(bool)

    @cached_property
    def flags(self) -> list[dict[str, Any]]:
        """Reasons to doubt this cell: what was found, and what the model's card says against itself."""
        card = self.description.get("model") or {}
        return [*self.cell.flags(), *card_flags(card), *seen_flags(card, str(self.task.get("corruption") or ""))]

    @cached_property
    def probes(self) -> dict[str, int]:
        """Forwards and backwards of the second opinions that looked for reasons to doubt the cell."""
        records = [record.get("probes", {}) for record in self.cell.provenance()]
        return {k: sum(int(record.get(k, 0)) for record in records) for k in ("forwards", "backwards")}

    @property
    def forwards(self) -> int:
        """Of all attempts on the view's images, and of the probes."""
        return int(self.attempts["forwards"].sum()) + self.probes["forwards"]

    @property
    def backwards(self) -> int:
        """Of all attempts on the view's images, and of the probes."""
        return int(self.attempts["backwards"].sum()) + self.probes["backwards"]


def card_flags(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a model's card says of itself, as flags: that nobody checked its weights, and its notes."""
    notes = card.get("notes") or ()
    told = " ".join(_sentence(str(note).rstrip(".")) for note in ([notes] if isinstance(notes, str) else notes))
    if card.get("verified") is False:
        message = "It is doubtful whether architecture and weights of this model belong together."
        remedy = "Compare its clean accuracy with the published one before believing any other number."
        return [_card_flag(UNVERIFIED, "warning", f"{message} {told}".strip(), remedy)]
    return [_card_flag("note", "info", told, "")] if told else []


def seen_flags(card: Mapping[str, Any], corruption: str) -> list[dict[str, Any]]:
    """That the training has seen something close to a corruption (or to one of several in a chain), as flags."""
    seen: Mapping[str, str] = card.get("contaminated") or {}
    reasons = [f"{name}: {seen[name]}" for name in corruption.split(" + ") if name in seen]
    if not reasons:
        return []
    message = f"The training has seen something close to this corruption ({'; '.join(reasons)})."
    remedy = "Do not compare it here with models whose augmentation keeps away from the test's corruptions."
    return [_card_flag(CONTAMINATED, "warning", message, remedy)]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _card_flag(name: str, level: str, message: str, remedy: str) -> dict[str, Any]:
    return {"name": name, "level": level, "about": "model", "message": message, "remedy": remedy, "evidence": {}}


def part_of(dataset: str) -> str:
    """``-part-1a2b3c4d`` of a dataset that is there in part only; such parts have their parents' images."""
    found = re.search(r"-part-[0-9a-f]{8}$", dataset)
    return found.group() if found else ""


def budget_label(norm: str, eps: str) -> str:
    """``L∞ 4/255``."""
    return f"{NORM_NAMES.get(norm, norm)} {eps}"


def fields(cell: Cell | Reading, *, of_the_model: bool = False) -> dict[str, str]:
    """What identifies a measurement besides the model, flat: ``{"protocol.mode": "memory", "seed": "0", …}``.

    Args:
        of_the_model: also the fields that a model brings along (resize, crop, interpolation).
    """
    identity = cell.description["identity"]
    flat: dict[str, str] = {}
    for name in ("dataset", "threat", "protocol", "settings", "seed"):
        flatten(name, identity.get(name), flat)
    if of_the_model:
        return flat
    return {k: v for k, v in flat.items() if not BOUND_TO_THE_MODEL & set(k.split("."))}


def protocol(cell: Cell | Reading) -> dict[str, str]:
    """Every field of a cell's protocol, flat."""
    asked = fields(cell, of_the_model=True)
    return {k.removeprefix("protocol."): v for k, v in asked.items() if k.startswith("protocol.")}


def protocol_name(cell: Cell | Reading) -> str:
    """Eight hex digits that name a protocol."""
    return hashlib.sha256(json.dumps(protocol(cell), sort_keys=True).encode()).hexdigest()[:8]


def question(cell: Cell | Reading) -> dict[str, str]:
    """The part of :func:`fields` that all tasks of one table must share: dataset, seed, class rule."""
    shared = ("dataset", "seed", "protocol.")
    asked = {k: v for k, v in fields(cell).items() if k.startswith(shared) and not k.endswith(".mode")}
    return {**asked, "dataset": (cell if isinstance(cell, Reading) else Reading(cell)).home}


def differences(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Field → (value in a, value in b), where they differ; a missing field reads ``–``."""
    names = [*a, *(k for k in b if k not in a)]
    return {k: (a.get(k, "–"), b.get(k, "–")) for k in names if a.get(k, "–") != b.get(k, "–")}


def flatten(prefix: str, value: Any, into: dict[str, str]) -> None:
    """Write a nested record as ``prefix.key`` → text."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            flatten(f"{prefix}.{key}", inner, into)
    elif isinstance(value, list | tuple):
        into[prefix] = " × ".join(map(str, value)) if len(value) <= 4 else f"{len(value)} values"
    else:
        into[prefix] = "–" if value is None or value == {} else str(value)


def read(cells: Iterable[Cell | Reading]) -> list[Reading]:
    """Readings of cells, each cell once, sorted by task: clean, corruptions by severity, adversaries."""
    found: dict[str, Reading] = {}
    for cell in cells:
        reading = cell if isinstance(cell, Reading) else Reading(cell)
        found.setdefault(reading.cell.key, reading)
    return sorted(found.values(), key=_place)


def _place(reading: Reading) -> tuple[str, int, str, str, int, str]:
    task = reading.task
    kind = KINDS.index(reading.kind) if reading.kind in KINDS else len(KINDS)
    dose = int(task.get("severity") or task.get("radius") or 0)
    changed = str(task.get("corruption") or task.get("filter") or "")
    return reading.home, kind, reading.mode, changed, dose, reading.name


def common_ids(readings: Sequence[Reading]) -> pd.Index:
    """Ids of the images that every one of these cells has, in published order."""
    ids = readings[0].images.index
    for reading in readings[1:]:
        other = reading.images.index
        if not ids.equals(other):  # the usual case is quick: every cell has the same images
            ids = ids[ids.isin(other)]
    return ids


def evidence(readings: Sequence[Reading], ids: pd.Index) -> Floats:
    """[N] smallest breaking budget of each image over several cells; a cell without the image says nothing."""
    return worst_case([r.breaking.reindex(ids, fill_value=np.inf).to_numpy() for r in readings])
