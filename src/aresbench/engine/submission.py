"""Adversarial images that anyone submits: judged by the engine, and what holds is entered beside our own attacks."""

from __future__ import annotations

import hashlib
import re
import time
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.core.budget import Ladder, format_fraction, parse_budget
from aresbench.core.errors import DataError, SpecError
from aresbench.core.threat import Threat
from aresbench.data.base import Dataset
from aresbench.engine.evaluate import provenance
from aresbench.engine.evidence import break_row
from aresbench.engine.judge import fooled, right
from aresbench.engine.ladder import within
from aresbench.engine.plan import SHARD, Planned
from aresbench.engine.prepare import Prepared, prepared
from aresbench.engine.restage import answers, replan, view_of, windows
from aresbench.models.classifier import Classifier
from aresbench.report.best_known import SUBMISSION
from aresbench.report.reading import Reading
from aresbench.store import Cell, Store


@dataclass
class Submitted:
    """What came of a submission.

    Args:
        cell: where it was entered; ``None`` where none of its images could be judged.
        accepted: ids of the images that break the model inside the budget.
        rejected: (id, reason) of the others.
        new: of the accepted, those that no result in the archive had broken at this budget.
    """

    cell: Cell | None = None
    accepted: list[str] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    new: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Entry:
    """The submission as it is judged."""

    attack: str
    ladder: Ladder
    images: dict[str, Tensor]

    @property
    def eps(self) -> Fraction:
        return self.ladder.rungs[0]


def submit(
    file: str | Path,
    model: Classifier,
    data: Dataset,
    budget: str,
    *,
    store: Store,
    name: str,
    device: torch.device | str = "cpu",
    batch: int | None = None,
) -> Submitted:
    """Judge submitted images, and enter those that hold as attempts of an attack ``submission(NAME)``.

    They get a cell of their own, so that every worst case over the cells of this model takes them in: more evidence
    can only lower a curve. Rows of images that do not hold say "resisted" and change nothing.

    Args:
        file: ``.npz`` with ``x_adv`` [n, 3, H, W], uint8 or float32 in [0,1], after the model's own resize and crop,
            and ``ids`` [n], the dataset's image ids.
        model, data: what the images are made for.
        budget: one, e.g. ``linf:4/255``.
        store: where the results are kept.
        name: who submits: letters, digits, ``.``, ``_`` and ``-``.
        device, batch: as in ``evaluate``.

    Raises:
        DataError: the file cannot be read or does not fit together, or no id is one of the data.
        SpecError: a name or a budget that is none.
    """
    began = time.time()
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise SpecError(f"{name!r} is no name for a submission", "use letters, digits, '.', '_' and '-'")
    ladder = parse_budget(budget)
    if len(ladder.rungs) != 1 or ladder.search is not None:
        raise SpecError(f"{budget} is more than one budget", "submit for one, e.g. linf:4/255")
    path = Path(file).expanduser()
    ids, images = read_submission(path)
    found = Submitted()
    entry = _Entry(f"{SUBMISSION}({name})", ladder, {})
    known = set(data.ids)
    for image_id, image in zip(ids, images, strict=True):
        if image_id not in known:
            found.rejected.append((image_id, f"{data.name} has no image of this id"))
        elif image_id in entry.images:
            found.rejected.append((image_id, "it is there twice; the first was judged"))
        else:
            entry.images[image_id] = image
    if data.accepted is not None:
        raise DataError(f"several labels count as right for an image of {data.name}", "what breaks it is not defined")
    view = view_of(data, ids)
    plan = replan(store, model, view, Threat(), seed=0)
    rows: list[tuple[str, dict[str, Any]]] = []
    unread: list[tuple[str, str]] = []
    with ExitStack() as stack:
        ready: Prepared | None = None
        for places, x, y in windows(plan, list(range(len(view))), unread):
            if x.shape[1:] != images.shape[1:]:
                shape, wanted = (" × ".join(map(str, part.shape[1:])) for part in (images, x))
                raise DataError(f"x_adv holds images of {shape}; the model sees {wanted}", "submit what the model sees")
            ready = ready or stack.enter_context(
                prepared(model, x[:2], class_map=plan.class_map, device=device, attacked=False)
            )
            rows += _judge(ready, plan, entry, places, x, y, batch, found)
    found.rejected += unread
    if rows:
        found.new = _new(store, plan, entry, found.accepted)
        found.cell = cell = store.cell(_description(plan, entry, name))
        cell.write_rows(rows)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        session = provenance(torch.device(device), began)
        cell.add_provenance({**session, "submission": {"name": name, "file": path.name, "sha256": digest}})
    return found


def read_submission(path: Path) -> tuple[list[str], Tensor]:
    """Ids and float32 images of a submission's file.

    Raises:
        DataError: it cannot be read, lacks an array, or its arrays do not fit together.
    """
    example = "np.savez(FILE, x_adv=images, ids=ids), images uint8 or float32 [n, 3, H, W]"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("x_adv", "ids") if key in file}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", "give the file of a submission") from None
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}", f"write it with {example}") from None
    if missing := {"x_adv", "ids"} - arrays.keys():
        raise DataError(f"{path} has no array {min(missing)!r}", f"write it with {example}")
    x, ids = arrays["x_adv"], arrays["ids"]
    if x.ndim != 4 or x.shape[1] != 3 or x.dtype not in (np.uint8, np.float32):
        raise DataError(f"x_adv of {path} is {x.dtype} {list(x.shape)}", f"write it with {example}")
    if ids.shape != (len(x),) or ids.dtype.kind not in "US":
        raise DataError(f"ids of {path} must be {len(x)} texts, not {ids.dtype} {list(ids.shape)}", example)
    texts = [value.decode() if isinstance(value, bytes) else str(value) for value in ids.tolist()]
    whole = torch.from_numpy(x)
    return texts, whole.to(torch.float32).div_(255) if x.dtype == np.uint8 else whole


def _judge(
    model: Prepared,
    plan: Planned,
    entry: _Entry,
    places: list[int],
    x: Tensor,
    y: Tensor,
    batch: int | None,
    found: Submitted,
) -> list[tuple[str, dict[str, Any]]]:
    """The rows of one window of images."""
    ids = [plan.dataset.ids[place] for place in places]
    changed = torch.stack([entry.images[name] for name in ids])
    norm, eps = entry.ladder.norm, entry.eps
    clean = answers(model, x, plan.seed, batch)
    correct = right(clean, y)
    low, high = geometry.extent(changed)
    distance = geometry.distance(changed, x, norm)
    logits = answers(model, changed.nan_to_num().clamp(0, 1), plan.seed, batch)
    broke = fooled(logits, y, False)
    rounded = (changed.nan_to_num().clamp(0, 1) * 255).round() / 255
    survives = fooled(answers(model, rounded, plan.seed, batch), y, False)
    near = geometry.distance(rounded, x, norm)
    names = plan.description["dataset"]["classes"]
    text = format_fraction(eps)
    rows: list[tuple[str, dict[str, Any]]] = []
    for k, (name, place) in enumerate(zip(ids, places, strict=True)):
        position, far = int(plan.dataset.positions[place]), float(distance[k])
        where = {"id": name, "position": position, "shard": position // SHARD}
        reason = ""
        if not bool(correct[k]):
            reason = "the model is wrong without any attack, which counts already"
        elif not (low[k] >= 0 and high[k] <= 1):  # NaN is in no box
            reason = f"it leaves [0, 1]: it runs from {low[k]:.4g} to {high[k]:.4g}"
        elif not within(far, eps):
            reason = f"it lies outside {norm} {text}: at a distance of {far:.6g}"
        elif not bool(broke[k]):
            reason = f"the model is not fooled: it says {names[int(logits[k].argmax())]!r}"
        said = None if reason else int(logits[k].argmax())
        if reason:
            found.rejected.append((name, reason))
        else:
            found.accepted.append(name)
            rows.append(("breaks", break_row(name, position, entry.attack, text, changed[k], x[k])))
        image = _image_row(clean[k : k + 1], y[k : k + 1], bool(correct[k]))
        if not reason:
            image |= {"breaking_budget": text, "breaking_distance": far, "broken_by": entry.attack}
        rows.append(("images", {**where, **image, "adv_prediction": said}))
        if correct[k]:
            tried = {
                "attack": entry.attack,
                "norm": norm,
                "eps": text,
                "start": "cold",
                "pinned": False,
                "verdict": "resisted" if reason else "broken",
                "distance": None if reason else far,
                "forwards": 2 * model.draws,
                "adv_prediction": said,
                "survives_rounding": None if reason else bool(survives[k]) and within(float(near[k]), eps),
                "seed": plan.seed,
            }
            counts = dict.fromkeys(("backwards", "zero_gradients", "nan_gradients", "rejected"), 0)
            rows.append(("attempts", {**where, **tried, **counts}))
    return rows


def _image_row(logits: Tensor, y: Tensor, correct: bool) -> dict[str, Any]:
    """What a row of images says of one image before any attack."""
    return {
        "label": int(y),
        "prediction": int(logits.argmax()),
        "top5": logits[0].topk(min(5, logits.shape[1])).indices.tolist(),
        "margin": float(losses.margin(logits, y).nan_to_num(nan=0.0)),
        "confidence": float(logits.softmax(1).amax().nan_to_num(nan=0.0)),
        "correct": correct,
        "breaking_budget": None if correct else "0",
        "breaking_distance": None if correct else 0.0,
    }


def _description(plan: Planned, entry: _Entry, name: str) -> dict[str, Any]:
    """The clean cell's description under another threat; no budget is pinned: not all images were tried."""
    norm, _, sizes = str(entry.ladder).partition(":")
    eps = format_fraction(entry.eps)
    threat = f"adversary({norm}, {sizes}, {entry.attack})"
    clean = plan.description
    return {
        **clean,
        "identity": {**clean["identity"], "threat": threat, "settings": {entry.attack: {"revision": 1}}},
        "task": {
            **clean["task"],
            "name": f"submission {name}, {norm} {eps}",
            "threat": threat,
            "kind": "adversary",
            "norm": norm,
            "rungs": [eps],
            "pinned": [],
            "attacks": [entry.attack],
        },
        "suite": None,
    }


def _new(store: Store, plan: Planned, entry: _Entry, accepted: list[str]) -> list[str]:
    """Which of the accepted images nobody in the archive had broken at this budget."""
    broken: set[str] = set()
    for cell in store.cells():
        other = Reading(cell)
        same = all(
            cell.description["identity"].get(part) == plan.description["identity"].get(part)
            for part in ("model", "dataset", "protocol")
        )
        if same and other.plain_adversary and other.norm == entry.ladder.norm:
            broken.update(other.breaking.index[other.breaking <= float(entry.eps)])
    return [name for name in accepted if name not in broken]
