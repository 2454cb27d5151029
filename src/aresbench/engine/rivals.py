"""Cells of one model beside each other: does an adversary without gradients break what gradients left standing?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aresbench.attacks.load import make_attack
from aresbench.core.errors import AresError
from aresbench.engine.plan import Planned
from aresbench.metrics import reliability
from aresbench.metrics.budgets import as_float, breaking_values
from aresbench.metrics.reliability import Verdict
from aresbench.store import Cell


def rivals_of(plan: Planned) -> Iterator[tuple[Cell, Verdict]]:
    """Verdicts from a finished cell and the others of the same model, images, norm and seed in its archive.

    A white-box adversary is compared with transfers and with adversaries that see logits or labels only. Each
    verdict comes with the white-box cell that it is about, which may be the other one.
    """
    kind = _kind(plan.description)
    if kind is None:
        return
    for other in plan.store.cells():
        if other.key == plan.cell.key or not _same_question(plan.description, other.description):
            continue
        theirs = _kind(other.description)
        if theirs is None or (kind == "white") == (theirs == "white"):
            continue
        white, rival = (plan.cell, other) if kind == "white" else (other, plan.cell)
        verdict = _compared(white, rival, transfer="transfer" in (kind, theirs))
        if verdict is not None:
            yield white, verdict


def _kind(description: dict[str, Any]) -> str | None:
    """``white``, ``transfer`` or ``black``; ``None`` for what is no adversary, or one that cannot be told."""
    task = description["task"]
    if task["kind"] != "adversary":
        return None
    if any(name.startswith("surrogate ") for name in description["identity"]["settings"]):
        return "transfer"
    try:
        access = {make_attack(spec).access for spec in task["attacks"]}
    except AresError:  # the user's own, from a file that is not here
        return None
    return "white" if "gradient" in access else "black" if access <= {"score", "label"} else None


def _same_question(one: dict[str, Any], other: dict[str, Any]) -> bool:
    first, second = one["identity"], other["identity"]
    same = all(first[name] == second[name] for name in ("model", "dataset", "protocol", "seed"))
    return same and all(one["task"].get(k) == other["task"].get(k) for k in ("norm", "corruption", "severity"))


def _compared(white: Cell, rival: Cell, *, transfer: bool) -> Verdict | None:
    """What the rival broke of what the other left, at the budget that speaks loudest; ``None`` where nothing stood."""
    task = white.description["task"]
    mine, theirs = (cell.images().set_index("id")["breaking_budget"] for cell in (white, rival))
    ids = mine.index.intersection(theirs.index)
    left, found = breaking_values(mine.loc[ids]), breaking_values(theirs.loc[ids])
    seen = []
    for eps in task["pinned"] or task["rungs"]:
        stands = left > as_float(eps)
        seen.append((int((stands & (found > 0) & (found <= as_float(eps))).sum()), int(stands.sum()), eps))
    seen = [s for s in seen if s[1]]
    if not seen:
        return None
    count, n, eps = min(seen, key=lambda s: (reliability.chance(s[0], s[1]), -s[1]))
    name = "transfer-beats-white-box" if transfer else "black-box-beats-white-box"
    rival_name = rival.description["task"]["name"]
    what = f"{rival_name} breaks {{count}} of the {{n}} images that gradients left at {task['norm']} {eps}"
    return reliability.counted(name, count, n, what, eps=eps, source=rival_name)
