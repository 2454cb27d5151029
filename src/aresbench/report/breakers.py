"""Who broke which image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aresbench.core.budget import parse_fraction
from aresbench.core.spec import parse_call
from aresbench.report.reading import Reading, common_ids, evidence

CLEAN, RESISTED, SEVERAL = "wrong without attack", "resisted all", "several attacks"


@dataclass(frozen=True)
class Outcome:
    """How one model's images fared at one pinned budget.

    Args:
        counts: ``wrong without attack``, the name of the one attack that broke it, ``several
            attacks``, or ``resisted all`` → number of images.
        broken_by: attack → number of images it broke, alone or with others.
        n: number of images.
    """

    norm: str
    eps: str
    model: str
    counts: Mapping[str, int]
    broken_by: Mapping[str, int]
    n: int


def outcomes(models: Mapping[str, Sequence[Reading]]) -> tuple[Outcome, ...]:
    """Every model's images at every pinned budget, split by who broke them."""
    budgets = {(r.norm, eps) for g in models.values() for r in g if r.plain_adversary for eps in r.pinned}
    found = []
    for norm, eps in sorted(budgets, key=lambda b: (b[0] != "linf", b[0], parse_fraction(b[1]))):
        for model, group in models.items():
            known = [r for r in group if r.plain_adversary and r.norm == norm]
            pinned = [r for r in known if eps in r.pinned]
            if pinned and len(ids := common_ids(pinned)):
                found.append(_outcome(norm, eps, model, known, ids))
    return tuple(found)


def _outcome(norm: str, eps: str, model: str, known: Sequence[Reading], ids: pd.Index) -> Outcome:
    size = float(parse_fraction(eps))
    breaking = evidence(known, ids)
    breakers: dict[str, set[str]] = {}
    for reading in known:
        for image, attack in _breaks(reading, size):
            breakers.setdefault(image, set()).add(attack)
    counts: Counter[str] = Counter()
    by: Counter[str] = Counter()
    for image, budget in zip(ids, breaking, strict=True):
        who = breakers.get(image, set())
        if budget == 0:
            counts[CLEAN] += 1
        elif budget > size:
            counts[RESISTED] += 1
        else:
            by.update(who)
            counts[next(iter(who)) if len(who) == 1 else SEVERAL] += 1
    return Outcome(norm, eps, model, dict(counts), dict(by), len(ids))


def _breaks(reading: Reading, size: float) -> set[tuple[str, str]]:
    """(image, attack) of every confirmed break within a budget."""
    found: set[tuple[str, str]] = set()
    tried = reading.attempts
    # A bounded search lies within its rung by construction; a minimal-norm one is known by its distance.
    rungs = {eps: float(parse_fraction(eps)) if eps else np.nan for eps in tried["eps"].unique()}
    reach = tried["eps"].map(rungs).astype(float)
    within = reach.where(reach.notna(), tried["distance"]) <= size
    hits = tried[(tried["verdict"] == "broken") & within]
    found |= {(image, attack_name(attack)) for image, attack in zip(hits["id"], hits["attack"], strict=True)}
    seen = {image for image, _ in found}
    for image, budget, attack in zip(reading.images.index, reading.breaking, reading.images["broken_by"], strict=True):
        if image not in seen and 0 < budget <= size and isinstance(attack, str):
            found.add((image, attack_name(attack)))
    return found


def attack_name(spec: str) -> str:
    """``pgd(steps=20)`` → ``pgd``."""
    return parse_call(spec).name
