"""After every evaluation: reasons to doubt its numbers, from its rows and from a few cheap second opinions.

Only images that were left standing can make a robust accuracy too high. A handful of them, the first of the
published order, are attacked again in other ways; where nothing stands there is nothing to ask.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from aresbench.attacks.base import Attack
from aresbench.attacks.pgd import PGD
from aresbench.core.flag import Flag
from aresbench.engine.doctor_data import unreadable_flags
from aresbench.engine.pictures import Pictures
from aresbench.engine.plan import Planned
from aresbench.engine.prepare import prepared
from aresbench.engine.probes import QUERIES, SHORT, Cost, Standing, rescaled, transferred, twice, very_large, watched
from aresbench.engine.rivals import rivals_of
from aresbench.metrics import reliability
from aresbench.metrics.budgets import as_float, breaking_values
from aresbench.metrics.reliability import Verdict

if TYPE_CHECKING:
    import pandas as pd

SHARE = 0.1  # of a cell's passes that second opinions may cost, within the next two bounds
FEWEST, FIRST, MOST = 3, 8, 16  # standing images looked at: at least, at first, and where the first raise a doubt
DOUBT = 0.2  # p-value below which more images are looked at
SAME_TWICE = 4  # images shown to the model twice


def flags_after(
    plan: Planned,
    pictures: Pictures,
    bad: list[tuple[str, str]],
    *,
    device: torch.device,
    batch: int | None,
    probes: bool,
) -> tuple[list[Flag], Cost]:
    """All that a finished cell says about its own numbers, and what asking cost.

    Args:
        plan, pictures, device, batch: as for ``fill``.
        bad: (id, reason) of images that could not be read.
        probes: ask the model again too (true), or only read the rows.
    """
    began, cost = time.monotonic(), Cost()
    attempts = plan.cell.attempts()
    if attempts.empty:
        return unreadable_flags(bad), cost
    access = {spec: attack.access for spec, attack in plan.attacks.items()}
    verdicts = verdicts_of_rows(attempts, access)
    for cell, verdict in rivals_of(plan):
        if cell is plan.cell:
            verdicts = _joined([*verdicts, verdict])
        elif verdict.doubt:
            cell.add_flags([_flag(verdict, len(cell.images())).record()])
    failed = ""
    white = not plan.surrogates and any(attack.access == "gradient" for attack in plan.attacks.values())
    if probes and white:
        try:
            verdicts = _joined([*verdicts, *_second_opinions(plan, pictures, attempts, device, batch, cost)])
        except Exception as error:  # the rows are there and true: a check that fails is no reason to lose the cell
            if os.environ.get("ARESBENCH_DEBUG"):
                raise
            failed = f"{type(error).__name__}: {error}"
    cost.seconds = round(time.monotonic() - began, 2)
    rows = len(plan.cell.images())
    flags = [_flag(v, rows) for v in verdicts if v.doubt]
    return [*unreadable_flags(bad), *flags, _summary(verdicts, rows, failed)], cost


def verdicts_of_rows(attempts: pd.DataFrame, access: Mapping[str, str]) -> list[Verdict]:
    """The verdicts that cost nothing: everything the attempts have written down.

    Args:
        attempts: the rows of a cell.
        access: attack's text → ``gradient``, ``score`` or ``label``.
    """
    if attempts.empty:
        return []
    verdicts = reliability.blind_gradients(attempts["zero_gradients"], attempts["nan_gradients"], attempts["backwards"])
    verdicts += reliability.rule_breaks(attempts["rejected"], attempts["verdict"].tolist())
    blind = np.array([access.get(spec, "gradient") in ("score", "label") for spec in attempts["attack"]])
    found = reliability.black_box(
        attempts["id"].tolist(), attempts["eps"].tolist(), blind, (attempts["verdict"] == "broken").to_numpy()
    )
    if found is not None:
        count, n, eps = found
        norm = attempts["norm"].iloc[0]
        what = f"attacks without gradients break {{count}} of the {{n}} images that gradients left at {norm} {eps}"
        verdicts.append(reliability.counted("black-box-beats-white-box", count, n, what, eps=eps, source="rows"))
    return verdicts


# -- asking again ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Left:
    """Places in the dataset of the right images that stand at a budget."""

    eps: str
    places: list[int]


def _second_opinions(
    plan: Planned, pictures: Pictures, attempts: pd.DataFrame, device: torch.device, batch: int | None, cost: Cost
) -> list[Verdict]:
    norm = str(plan.description["task"]["norm"])
    own = _own_attack(plan, norm)
    quoted, top = _left_standing(plan)
    spent = int(attempts["forwards"].sum() + attempts["backwards"].sum())
    price = 160 + (2 * own.total_steps if own is not None else 0)
    # An attack that breaks every image at its largest budget has shown that it works: a tiny cell is let off then.
    first = min(FIRST, max(int(SHARE * spent / price), FEWEST if top.places else 0))
    few = list(range(min(SAME_TWICE, len(plan.dataset))))
    places = list(dict.fromkeys([*few, *quoted.places[:MOST], *top.places[:MOST]]))
    x, good, _ = pictures.load(plan, places, "skip")
    if not good:
        return []
    x = pictures.changed(plan, x, good)
    y = plan.labels(good)
    at = {place: k for k, place in enumerate(good)}
    with prepared(plan.model, x[:2], class_map=plan.class_map, device=device) as model:

        def standing(left: _Left, eps: float) -> Callable[[int, int], Standing]:
            rows = [at[place] for place in left.places if place in at]

            def part(start: int, end: int) -> Standing:
                k = rows[start:end]
                ids = [plan.dataset.ids[good[row]] for row in k]
                return Standing(model, x[k], y[k], ids, norm, eps, plan.seed, batch, cost)

            return part

        verdicts = [reliability.repeatable(*twice(model, x[: len(few)], cost))]
        if own is not None and first >= FEWEST:
            part = standing(quoted, as_float(quoted.eps))
            verdicts += _asked(lambda images: _opinions(images, own, plan), part, first, f"{norm} {quoted.eps}")
        if own is not None and top.places:
            size = very_large(norm, x)
            verdicts += _asked(
                lambda images: {"large-eps-resisted": (int((~images.broken_by(own)).sum()), {"eps": size})},
                standing(top, size),
                first,
                f"{norm} {size:g}",
            )
    return verdicts


_Counts = dict[str, tuple[int, dict[str, float | int]]]
_WORDS = {
    "loss-does-not-rise": "the first steps of the attack take {count} of {n} standing images no further than as many "
    "random points of",
    "logit-scale-matters": "PGD on the margin or on rescaled logits breaks {count} of {n} images that stand at",
    "black-box-beats-white-box": "random search without gradients breaks {count} of {n} images that stand at",
    "transfer-beats-white-box": "images found through a copy with a straight-through input layer break {count} of {n} "
    "that stand at",
    "starts-disagree": "the same attack with other random draws breaks {count} of {n} images that stand at",
    "large-eps-resisted": "the attack leaves {count} of {n} images standing at",
}


def _asked(
    ask: Callable[[Standing], _Counts], part: Callable[[int, int], Standing], first: int, where: str
) -> list[Verdict]:
    """Ask about the first images, and about more where they raise a doubt."""
    counts: dict[str, list[int]] = {}
    figures: dict[str, dict[str, float | int]] = {}
    n = 0
    for start, end in ((0, first), (first, MOST)):
        images = part(start, end)
        if not len(images):
            break
        n += len(images)
        for name, (count, seen) in ask(images).items():
            counts.setdefault(name, []).append(count)
            known = figures.setdefault(name, {})
            for key, value in seen.items():  # whole numbers are counts of images and add up
                known[key] = known.get(key, 0) + value if isinstance(value, int) else value
        if all(reliability.chance(sum(count), n) > DOUBT for count in counts.values()):
            break
    return [
        reliability.counted(name, sum(count), n, f"{_WORDS[name]} {where}", budget=where, **figures[name])
        for name, count in counts.items()
    ]


def _opinions(images: Standing, own: Attack, plan: Planned) -> _Counts:
    """Counts of standing images that speak against the attack, by verdict."""
    found: _Counts = {}
    start, attack, random = watched(images, own)
    risen = reliability.rises(start, attack, random)
    leads = {
        "lead_at_start": float(start.median()),
        "lead_after_steps": float(attack.median()),
        "lead_of_random_points": float(random.median()),
    }
    found["loss-does-not-rise"] = int((~risen).sum()), leads
    luck = (random > 0) if images.model.draws == 1 else torch.zeros_like(random, dtype=torch.bool)
    search = images.broken_by(QUERIES) if images.norm in QUERIES.norms else torch.zeros_like(luck)
    found["black-box-beats-white-box"] = (
        int((search | luck).sum()),
        {"square": int(search.sum()), "noise": int(luck.sum())},
    )
    if images.norm in SHORT.norms:
        parts = rescaled(images)
        found["logit-scale-matters"] = (
            int(torch.stack(list(parts.values())).any(0).sum()),
            {name: int(broken.sum()) for name, broken in parts.items()},
        )
        through, cosine = transferred(images)
        found["transfer-beats-white-box"] = int(through.sum()), {"cosine": cosine} if cosine == cosine else {}
    if own in plan.attacks.values():
        found["starts-disagree"] = int(images.broken_by(own, seed=plan.seed + 1).sum()), {"seed": float(plan.seed + 1)}
    return found


def _own_attack(plan: Planned, norm: str) -> Attack | None:
    """The first attack of the adversary that follows gradients inside a budget; else PGD where it knows the norm."""
    for attack in plan.attacks.values():
        if attack.access == "gradient" and attack.kind == "bounded":
            return attack
    return PGD(steps=20) if norm in PGD.norms else None


def _left_standing(plan: Planned) -> tuple[_Left, _Left]:
    """Who stands at the budget to ask about, and at the largest.

    Asked about is the largest pinned budget (of a ladder without pins: any rung) at which at least half of the
    right images stand, else the one at which most do: there the images that stand are not all near their
    breaking point, where any attack is a matter of luck.
    """
    rows = plan.cell.images().set_index("id")
    ids = [i for i in plan.dataset.ids if i in rows.index]
    breaking = dict(zip(ids, breaking_values(rows.loc[ids, "breaking_budget"]), strict=True))
    task = plan.description["task"]

    def left(eps: str) -> _Left:
        size = as_float(eps)
        return _Left(eps, [k for k, i in enumerate(plan.dataset.ids) if breaking.get(i, 0.0) > size])

    sizes = sorted(task["pinned"] or task["rungs"], key=as_float)
    right = sum(b > 0 for b in breaking.values())
    every = [left(eps) for eps in sizes]
    half = [one for one in every if 2 * len(one.places) >= right]
    quoted = half[-1] if half else max(every, key=lambda one: len(one.places))
    return quoted, left(max(task["rungs"], key=as_float))


# -- flags ----------------------------------------------------------------------------------------


def _joined(verdicts: list[Verdict]) -> list[Verdict]:
    """One verdict a name: the one that speaks loudest, with what the other saw."""
    out: dict[str, Verdict] = {}
    for verdict in verdicts:
        known = out.get(verdict.name)
        if known is None or float(verdict.evidence.get("p", 1.0)) < float(known.evidence.get("p", 1.0)):
            out[verdict.name] = verdict
    return list(out.values())


def _flag(verdict: Verdict, rows: int | None = None) -> Flag:
    evidence = dict(verdict.evidence) if rows is None else {**verdict.evidence, "rows": rows}
    return Flag(verdict.name, verdict.level, "cell", verdict.message, verdict.remedy, evidence)


def _summary(verdicts: list[Verdict], rows: int, failed: str) -> Flag:
    """That and what was asked, quiet answers too."""
    doubts = [v.name for v in verdicts if v.doubt and v.level != "info"]
    message = f"see {', '.join(doubts)}" if doubts else "nothing speaks against the number"
    if failed:
        message += f"; the checks broke off ({failed})"
    return Flag(
        "reliability",
        "info",
        "cell",
        f"the attacks were checked: {message}",
        "",
        {"rows": rows, **{v.name: {**v.evidence, "doubt": v.doubt} for v in verdicts}},
    )
