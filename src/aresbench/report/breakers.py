"""Who broke which image, and after how many steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aresbench.core.budget import parse_fraction
from aresbench.core.spec import parse_call
from aresbench.metrics import Curve, step_curve
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


@dataclass(frozen=True)
class StepCurves:
    """Accuracy after each step of one attack at one pinned budget, one curve a model."""

    attack: str
    norm: str
    eps: str
    curves: Mapping[str, Curve]


def outcomes(models: Mapping[str, Sequence[Reading]]) -> tuple[Outcome, ...]:
    """Every model's images at every pinned budget, split by who broke them."""
    budgets = {(r.norm, eps) for g in models.values() for r in g if r.plain_adversary for eps in r.pinned}
    found = []
    for norm, eps in sorted(budgets, key=lambda b: (b[0], parse_fraction(b[1]))):
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


def step_curves(models: Mapping[str, Sequence[Reading]]) -> tuple[StepCurves, ...]:
    """Curves over the steps of each task's first attack (the one that meets every image) at its pinned budgets.

    An image that had already broken at a smaller budget needs no step here: it counts as broken from the start.
    """
    found: dict[tuple[str, str, str], dict[str, Curve]] = {}
    for model, group in models.items():
        for reading in group:
            tried = reading.attempts
            if not reading.plain_adversary or tried.empty or not reading.task.get("attacks"):
                continue
            attack = str(reading.task["attacks"][0])
            for eps in reading.pinned:
                runs = tried[(tried["attack"] == attack) & tried["pinned"] & (tried["eps"] == eps)]
                curve = _steps(reading, attack, eps, runs) if (runs["start"] == "cold").all() else None
                if curve is not None:
                    found.setdefault((attack, reading.norm, eps), {})[model] = curve
    order = sorted(found, key=lambda k: (k[0], k[1], parse_fraction(k[2])))
    return tuple(StepCurves(*key, found[key]) for key in order)


def _steps(reading: Reading, attack: str, eps: str, runs: pd.DataFrame) -> Curve | None:
    ids = reading.images.index
    steps = runs.set_index("id")["first_step"].astype(float).reindex(ids)
    # not attacked here although it was right: a smaller budget had already broken it
    earlier = ~ids.isin(runs["id"]) & (reading.breaking <= float(parse_fraction(eps))) & (reading.breaking > 0)
    steps[earlier] = 0.0
    if not (earlier | ids.isin(runs["id"]) | (reading.breaking == 0)).all():
        return None  # some images have not been attacked here (yet)
    planned = parse_call(attack).kwargs.get("steps", "")
    length = int(planned) if planned.isdigit() else 0
    return step_curve(steps.to_numpy(), reading.breaking.to_numpy() > 0, max(length, int(steps.fillna(0).max())))
