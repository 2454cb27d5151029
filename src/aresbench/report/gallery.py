"""Clean, changed and difference pictures, small enough to travel inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from aresbench.report.breakers import attack_name
from aresbench.report.corruptions import doses, modes
from aresbench.report.reading import Reading, budget_label

PER_MODEL, CORRUPTED = 3, 2
THUMB = 112  # pixels of a picture's longer side in the contact sheet
TINY = 64  # pixels up to which a picture is kept exactly and shown as squares


@dataclass(frozen=True)
class Triple:
    """Three pictures as data addresses, with the labels before and after."""

    clean: str
    changed: str
    difference: str
    size: tuple[int, int]
    factor: float
    model: str
    what: str
    truth: str
    before: str
    after: str
    broken: bool


@dataclass(frozen=True)
class Sheet:
    """One image through all corruptions measured: corruption → severity → picture, and the clean image."""

    model: str
    mode: str
    image: str
    truth: str
    clean: str
    severities: tuple[int, ...]
    rows: Mapping[str, Mapping[int, tuple[str, str]]]
    tiny: bool


def contact_sheet(models: Mapping[str, Sequence[Reading]]) -> Sheet | None:
    """The image that most corruption tasks of one model and mode show; ``None`` where there are fewer than three.

    Corrupted images are the same for all models of one input size: one model's are enough.
    """
    found = [(model, mode, doses(group, mode)) for model, group in models.items() for mode in modes(group)]
    model, mode, mine = max(found, key=lambda one: len(one[2]), default=("", "", {}))
    shown: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
    for dose, reading in mine.items():
        for row in reading.cell.examples().to_dict("records"):
            if isinstance(row["changed_png"], bytes):
                shown.setdefault(str(row["id"]), {})[dose] = row
    best = max(shown, key=lambda image: len(shown[image]), default="")
    return _sheet(model, mode, best, shown[best], next(iter(mine.values()))) if best and len(shown[best]) > 2 else None


def _sheet(
    model: str, mode: str, image: str, shown: Mapping[tuple[str, int], Mapping[str, Any]], reading: Reading
) -> Sheet:
    classes = reading.about.get("classes") or ()
    rows: dict[str, dict[int, tuple[str, str]]] = {}
    for (corruption, severity), row in shown.items():
        rows.setdefault(corruption, {})[severity] = _thumb(row["changed_png"]), class_name(row["prediction"], classes)
    first = next(iter(shown.values()))
    size = Image.open(io.BytesIO(first["clean_png"])).size
    return Sheet(
        model=model,
        mode=mode,
        image=image,
        truth=class_name(first["label"], classes),
        clean=_thumb(first["clean_png"]),
        severities=tuple(sorted({severity for _, severity in shown})),
        rows=rows,
        tiny=max(size) <= TINY,
    )


def _thumb(png: bytes) -> str:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if max(picture.size) > TINY:
        picture.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    return address(picture)


def gallery(models: Mapping[str, Sequence[Reading]]) -> tuple[Triple, ...]:
    """A few pictures of every model: broken ones of each attack first, then corrupted ones.

    Args:
        models: label → its cells on one dataset; each cell names the classes in its model's order.
    """
    found: list[Triple] = []
    for model, group in models.items():
        clean = {r.home: r.images["prediction"] for r in group if r.kind == "clean"}
        for kind, most in (("adversary", PER_MODEL), ("corruption", CORRUPTED)):
            rows = [(r, row) for r in group if r.kind == kind for row in r.cell.examples().to_dict("records")]
            rows = [(r, _told(r, row, clean)) for r, row in rows if isinstance(row["changed_png"], bytes)]
            found += [_triple(model, r, row) for r, row in _choose(rows, most)]
    return tuple(found)


def _told(reading: Reading, row: dict[str, Any], clean: Mapping[str, pd.Series]) -> dict[str, Any]:
    """An example with the answers before and after: a corruption's row knows only the one after."""
    if reading.kind != "corruption":
        return row
    known = clean.get(reading.home)
    before = known.get(row["id"]) if known is not None else None
    return {**row, "prediction": before, "adv_prediction": row["prediction"]}


def _choose(rows: list[tuple[Reading, dict[str, Any]]], most: int) -> list[tuple[Reading, dict[str, Any]]]:
    """At most ``most`` rows: other images before other tasks, changed answers before unchanged ones."""
    left = sorted(rows, key=lambda pair: not _changed(pair[1]))
    chosen: list[tuple[Reading, dict[str, Any]]] = []
    while left and len(chosen) < most:
        images = {row["id"] for _, row in chosen}
        tasks = {r.name for r, _ in chosen}
        best = min(left, key=lambda pair: (pair[1]["id"] in images) + (pair[0].name in tasks))
        left.remove(best)
        chosen.append(best)
    return chosen


def _changed(row: Mapping[str, Any]) -> bool:
    return _index(row["adv_prediction"]) not in (None, _index(row["prediction"]))


def _index(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _triple(model: str, reading: Reading, row: Mapping[str, Any]) -> Triple:
    classes = reading.description.get("dataset", {}).get("classes") or ()
    clean, changed = (Image.open(io.BytesIO(row[k])).convert("RGB") for k in ("clean_png", "changed_png"))
    answer = row["prediction"] if pd.isna(row["adv_prediction"]) else row["adv_prediction"]
    difference, factor = amplified(clean, changed)
    truth = class_name(row["label"], classes)
    before, after = class_name(row["prediction"], classes), class_name(answer, classes)
    attack, eps = row.get("attack"), row.get("eps")
    what = reading.name
    if isinstance(attack, str):
        what = attack_name(attack) + (f" at {budget_label(reading.norm, eps)}" if isinstance(eps, str) and eps else "")
    return Triple(
        clean=address(clean),
        changed=address(changed),
        difference=address(difference),
        size=clean.size,
        factor=factor,
        model=model,
        what=what,
        truth=truth if truth != before else "",
        before=before,
        after=after,
        broken=_index(answer) != _index(row["label"]),
    )


def amplified(clean: Image.Image, changed: Image.Image) -> tuple[Image.Image, float]:
    """The difference around middle grey, multiplied so that its largest entry is seen in full, and that factor.

    The factor is 0 where the two are equal: a change of less than half a step of 255 leaves no trace in a picture.
    """
    gap = np.asarray(changed, dtype=np.float32) - np.asarray(clean, dtype=np.float32)
    largest = float(np.abs(gap).max())
    factor = max(1.0, round(127 / largest, 1 if largest > 32 else 0)) if largest else 0.0
    return Image.fromarray(np.clip(127.5 + factor * gap, 0, 255).astype(np.uint8)), factor


def address(picture: Image.Image) -> str:
    """A picture as a data address: exact where it is tiny, compressed for the eye where it is a photograph."""
    buffer = io.BytesIO()
    if max(picture.size) <= TINY:
        picture.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        picture.save(buffer, "WEBP", quality=82, method=4)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def class_name(index: Any, classes: Sequence[str]) -> str:
    """The first word of a class's label text (``tench, Tinca tinca`` → ``tench``), or ``class 7``; ``–`` if missing."""
    number = _index(index)
    if number is None:
        return "–"
    return str(classes[number]).split(",")[0] if 0 <= number < len(classes) else f"class {number}"
