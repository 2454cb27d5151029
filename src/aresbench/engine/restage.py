"""A cell's model, images and threat set up again from what the archive says of them: to check it, or to repeat it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aresbench.core.budget import Ladder, ladder_of
from aresbench.core.errors import DataError
from aresbench.core.spec import parse_call, split_top
from aresbench.core.suite import Task
from aresbench.core.threat import Threat, parse_threat
from aresbench.data.base import Dataset
from aresbench.engine.driver import batch_for
from aresbench.engine.pictures import Pictures
from aresbench.engine.plan import SHARD, Planned, make_plan
from aresbench.engine.prepare import OwnRandomState, Prepared
from aresbench.models.classifier import Classifier
from aresbench.report.reading import differences, flatten
from aresbench.store import Cell, Store

WINDOW = 4 * SHARD  # images held at once
NEAR = 1e-4  # two logits closer than this may change places between two machines


@dataclass(frozen=True)
class Asked:
    """What a cell's threat says without knowing its attacks, which may be another person's or none at all.

    Args:
        changes: corruptions and filters.
        ladder: the adversary's budgets; ``None`` where there is no adversary.
    """

    changes: Threat
    ladder: Ladder | None


def asked(threat: str) -> Asked:
    """Read a threat's text, its attacks left unread."""
    parts = split_top(threat, "+")
    last = parse_call(parts[-1])
    ladder = None
    if last.name in ("adversary", "transfer"):
        ladder = ladder_of(last.args[0], last.args[1])
        parts = parts[:-1]
    return Asked(parse_threat(" + ".join(parts) or "clean"), ladder)


def view_of(data: Dataset, ids: Collection[str]) -> Dataset:
    """The images of these ids, in published order; ids that the data lack are left out.

    Raises:
        DataError: the data have none of them, or none is asked for.
    """
    wanted = set(ids)
    if not wanted:
        raise DataError("there are no images to look at")
    places = [place for place, name in enumerate(data.ids) if name in wanted]
    if not places:
        raise DataError(
            f"{data.name} has none of the {len(wanted)} images, e.g. {min(wanted)!r}",
            "name the data that were measured: --data SPEC",
        )
    return data[places]


def replan(store: Store, model: Classifier, view: Dataset, threat: Threat, *, seed: int, name: str = "") -> Planned:
    """The cell of a model under a threat on exactly these images, planned and not run.

    Raises:
        AresError: model and data do not fit together, or a component of the threat does not exist.
    """
    plan = make_plan([model], [Task(view.name, threat, name)], store, data=view, seed=seed)
    return plan.cells[0]


def changed_since(cell: Cell, plan: Planned, *, whole: bool) -> dict[str, tuple[str, str]]:
    """Field → (what the cell says, what is here), for everything that decides what its numbers mean.

    Args:
        whole: also its attacks and their settings, as repeating asks for; checking does not.
    """
    there, here = cell.description["identity"], plan.description["identity"]
    names = ("dataset", "protocol", *(("threat",) if whole else ()))
    flat: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for identity, into in zip((there, here), flat, strict=True):
        for name in names:
            flatten(name, identity.get(name), into)
        flatten("model.fingerprint", identity["model"].get("fingerprint"), into)
        settings: Mapping[str, Any] = identity.get("settings") or {}
        flatten("settings", {k: v for k, v in settings.items() if whole or k in here["settings"]}, into)
    return differences(*flat)


def windows(plan: Planned, places: list[int], bad: list[tuple[str, str]]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Images a window at a time: (places, the images as an adversary starts from them, labels after the class map).

    What cannot be read is added to ``bad`` as (id, reason).
    """
    pictures = Pictures()
    for start in range(0, len(places), WINDOW):
        x, good, unread = pictures.load(plan, places[start : start + WINDOW], "skip")
        bad += unread
        if good:
            yield good, pictures.changed(plan, x, good), plan.labels(good)


def answers(model: Prepared, x: Tensor, seed: int, batch: int | None) -> Tensor:
    """[N, K] logits of the user's own module, after the class map."""
    size = batch or batch_for(x, model.device)
    with OwnRandomState(seed, model.device):
        return torch.cat([model.confirm(model.place(part)).cpu() for part in x.split(size)])


def lead(logits: Tensor) -> Tensor:
    """[N] how far the largest logit is ahead of the second."""
    top = logits.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]
