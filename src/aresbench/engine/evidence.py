"""The images behind a cell's breaks, made again: an attempt that is run again draws the same numbers.

The archive keeps what was found and not the images, which are larger than all the rest. Who wants others to check a
result makes them when it is packed, at the price of one attempt for each broken image: the one that decided its
breaking budget, which proves every number that counts the image as broken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from aresbench.core.budget import format_fraction, parse_fraction
from aresbench.core.errors import StoreError
from aresbench.core.threat import Adversary, parse_threat
from aresbench.data.base import Dataset
from aresbench.engine.campaign import Campaign
from aresbench.engine.ladder import Attempt, Move, breaking_rung, within
from aresbench.engine.plan import SHARD, Planned
from aresbench.engine.prepare import Prepared, prepared
from aresbench.engine.restage import changed_since, replan, view_of, windows
from aresbench.engine.transfer import surrogates
from aresbench.models.classifier import Classifier
from aresbench.report.best_known import SUBMISSION
from aresbench.store import Cell, Store
from aresbench.store.exact import origin, pack


@dataclass
class Kept:
    """What came of making images again.

    Args:
        there: breaks whose image the cell has already.
        made: breaks whose image was made now.
        lost: (id, reason) of the others.
        forwards, backwards: what it cost.
    """

    there: int = 0
    made: int = 0
    lost: list[tuple[str, str]] = field(default_factory=list)
    forwards: int = 0
    backwards: int = 0


def keep_breaks(
    cell: Cell,
    model: Classifier,
    data: Dataset,
    *,
    device: torch.device | str = "cpu",
    batch: int | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Kept:
    """Make the image of each claimed break again and keep it in the cell; killed, the next call goes on.

    Args:
        cell: of an archive that may be written.
        model, data: what it was measured on.
        device, batch: as in ``evaluate``.
        advance: called with how many images are done, of how many.

    Raises:
        StoreError: model, data, protocol or attacks are not those of the cell; it says in which field.
        AresError: what is named is not there.
    """
    kept = Kept()
    identity = cell.description["identity"]
    rows = {row["id"]: row for row in cell.images().to_dict("records") if row["breaking_budget"] not in (None, "0")}
    have = {name for name, _, _ in cell.with_breaks()}
    kept.there = sum(name in have for name in rows)
    wanted = {name: row for name, row in rows.items() if name not in have}
    if not wanted:
        return kept
    if f"{SUBMISSION}(" in identity["threat"]:
        kept.lost = [(name, "a submitted image cannot be made again") for name in wanted]
        return kept
    view = view_of(data, wanted)
    threat = parse_threat(identity["threat"])
    plan = replan(Store(cell.folder.parent.parent), model, view, threat, seed=identity["seed"])
    if changed := changed_since(cell, plan, whole=True):
        told = "; ".join(f"{name} is {here} here, {there} in the results" for name, (there, here) in changed.items())
        raise StoreError(f"{cell} cannot be run again: {told}", "use the model, data and version that measured it")
    kept.lost = [(name, "the data have no such image") for name in wanted if name not in set(view.ids)]
    moves = _moves(cell, plan, wanted)
    done = 0
    with ExitStack() as stack:
        models: tuple[Prepared, Prepared | None] | None = None
        for places, x, y in windows(plan, list(range(len(view))), kept.lost):
            models = models or _open(plan, x[:2], device, stack)
            _make(cell, plan, models, moves, places, (x, y), batch, kept)
            done += len(places)
            advance(done, len(view))
    return kept


def _open(
    plan: Planned, example: Tensor, device: torch.device | str, stack: ExitStack
) -> tuple[Prepared, Prepared | None]:
    """The model, and of a transfer what its attacks see instead."""
    target = stack.enter_context(prepared(plan.model, example, class_map=plan.class_map, device=device))
    if not plan.surrogates:
        return target, None
    others, maps = zip(*plan.surrogates, strict=True)
    return target, stack.enter_context(surrogates(others, example, target, maps))


def _moves(cell: Cell, plan: Planned, wanted: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Move, Fraction]]:
    """Image → the attempt that decided its breaking budget, and that budget."""
    assert plan.adversary is not None
    attempts = cell.attempts()
    attempts = attempts[(attempts["verdict"] == "broken") & attempts["id"].isin(wanted)]
    rungs = plan.adversary.ladder.rungs
    found: dict[str, tuple[Move, Fraction]] = {}
    for row in attempts.to_dict("records"):
        claim = wanted[row["id"]]
        attempt = Attempt(row["attack"], row["eps"], True, float(row["distance"]))
        if row["attack"] != claim["broken_by"] or row["attack"] not in plan.attacks:
            continue
        place = breaking_rung(rungs, [attempt])
        if place == len(rungs) or format_fraction(rungs[place]) != claim["breaking_budget"]:
            continue
        found.setdefault(row["id"], (_move(row, plan, plan.adversary), rungs[place]))  # where two did, either proves it
    return found


def _move(row: Mapping[str, Any], plan: Planned, adversary: Adversary) -> Move:
    """The move that an attempt was: as ``ladder.next_move`` made it."""
    rung: Fraction | None = parse_fraction(row["eps"]) if row["eps"] else None
    minimal = {spec for spec, attack in plan.attacks.items() if attack.kind == "minimal"}
    beside_others = rung is None and row["attack"] in adversary.attacks and not set(adversary.attacks) <= minimal
    short = beside_others and adversary.ladder.search is None
    return Move(row["attack"], rung, bool(row["pinned"]), float(adversary.ladder.rungs[0]) if short else 0.0)


def _make(
    cell: Cell,
    plan: Planned,
    models: tuple[Prepared, Prepared | None],
    moves: Mapping[str, tuple[Move, Fraction]],
    places: list[int],
    images: tuple[Tensor, Tensor],
    batch: int | None,
    kept: Kept,
) -> None:
    """Run the attempts of one window again and store their images."""
    assert plan.adversary is not None
    x, y = images
    ids = [plan.dataset.ids[place] for place in places]
    campaign = Campaign(
        models[0], plan.adversary, plan.attacks, x, y, ids, seed=plan.seed, batch=batch, surrogate=models[1]
    )
    kept.lost += [(name, "none of its attempts decided what its row says") for name in ids if name not in moves]
    rows = []
    for group in campaign.repeat([(k, moves[name][0]) for k, name in enumerate(ids) if name in moves]):
        for finished, move in group:
            kept.forwards += finished.forwards
            kept.backwards += finished.backwards
            k = finished.job.row
            if finished.broken and within(finished.distance, moves[ids[k]][1]):
                position = int(plan.dataset.positions[places[k]])
                rows.append(break_row(ids[k], position, move.attack, move.eps, finished.x_adv, x[k]))
            else:
                kept.lost.append((ids[k], f"run again, the attempt came out as {finished.verdict}"))
    cell.add_breaks(rows)
    kept.made += len(rows)


def break_row(name: str, position: int, attack: str, eps: str, image: Tensor, original: Tensor) -> dict[str, Any]:
    """An adversarial image [3, H, W] as a row of the archive."""
    levels, rest = pack(image.detach().cpu().contiguous().numpy())
    return {
        "id": name,
        "position": position,
        "shard": position // SHARD,
        "attack": attack,
        "eps": eps,
        "height": image.shape[1],
        "width": image.shape[2],
        "levels": levels,
        "rest": rest,
        "origin": origin(original.numpy()),
    }
