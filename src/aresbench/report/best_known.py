"""The best known attack: robust accuracy under everything that anybody found, beside AutoAttack's own number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aresbench.core.spec import parse_call
from aresbench.metrics import Score, robust_accuracy
from aresbench.metrics.budgets import as_float
from aresbench.report.reading import Reading, budget_label, common_ids, evidence, question
from aresbench.report.words import counted

SUBMISSION = "submission"  # the name of the attack that stands for images found elsewhere


@dataclass(frozen=True)
class BestKnown:
    """Robust accuracy of one model at one budget, by who found the breaks; all on the same images.

    Args:
        score: under everything in these cells: every attack of this norm, and every submission.
        autoattack: under the tasks that AutoAttack's standard version is a part of; ``None`` where there is none.
        measured: under everything but submissions.
        submitted: name → number of the images that stood under everything measured and that it broke.
        readings: the cells behind ``score``.
        auto: of these the cells behind ``autoattack``.
    """

    score: Score
    autoattack: Score | None
    measured: Score
    submitted: dict[str, int]
    readings: tuple[Reading, ...]
    auto: tuple[Reading, ...]


def best_known(group: Iterable[Reading], norm: str, eps: str) -> BestKnown | None:
    """The worst case over all cells of one model on one dataset; ``None`` where nothing was measured at this budget.

    It is taken on the images that every task with this pinned budget has seen; a cell that has seen some of them
    only (as submissions do) says nothing about the others. More evidence can only lower the number.

    Args:
        group: cells of one model (name and weights) under one protocol, e.g. one group of ``label_models``.
        norm, eps: the budget, e.g. ``linf`` and ``4/255``.

    Raises:
        ValueError: the cells are of several models, datasets or protocols.
    """
    known = [r for r in group if r.plain_adversary and r.norm == norm]
    whose = {(r.model, r.fingerprint, tuple(question(r).items())) for r in known}
    if len(whose) > 1:
        raise ValueError(f"best known of {len(whose)} models, datasets or protocols at once")
    own = [r for r in known if not submission_name(r)]
    pinned = [r for r in own if eps in r.pinned]
    if not pinned or not len(ids := common_ids(pinned)):
        return None
    measured = evidence(own, ids)
    stands = measured > as_float(eps)
    submitted: dict[str, int] = {}
    for reading in known:
        if (name := submission_name(reading)) is not None:
            broken = evidence([reading], ids) <= as_float(eps)
            submitted[name] = submitted.get(name, 0) + int(np.sum(stands & broken))
    auto = [r for r in pinned if has_autoattack(r)]
    return BestKnown(
        score=robust_accuracy(evidence(known, ids), eps),
        autoattack=robust_accuracy(evidence(auto, ids), eps) if auto else None,
        measured=robust_accuracy(measured, eps),
        submitted=submitted,
        readings=tuple(known),
        auto=tuple(auto),
    )


def submission_name(reading: Reading) -> str | None:
    """Who submitted the images of a cell; ``None`` for a cell that was measured."""
    attacks: Sequence[str] = reading.task.get("attacks") or ()
    call = parse_call(attacks[0]) if len(attacks) == 1 else None
    return call.args[0] if call is not None and call.name == SUBMISSION and call.args else None


def told(group: Sequence[Reading]) -> list[str]:
    """What submissions added to the best known attack of one model, a sentence for each budget."""
    sentences: list[str] = []
    if all(submission_name(r) is None for r in group):
        return sentences
    budgets = dict.fromkeys((r.norm, eps) for r in group if r.plain_adversary for eps in r.pinned)
    for norm, eps in budgets:
        found = best_known(group, norm, eps)
        if found is not None and found.submitted:
            parts = ", ".join(f"“{name}” broke {counted(n, 'image')}" for name, n in sorted(found.submitted.items()))
            sentences.append(
                f"Of {counted(found.score.n, 'image')}, beyond everything measured at {budget_label(norm, eps)}, "
                f"verified submissions: {parts}."
            )
    return sentences


def has_autoattack(reading: Reading) -> bool:
    """Is AutoAttack in its standard version among what the cell was attacked with?"""
    settings = reading.description["identity"].get("settings") or {}
    return any(
        parse_call(spec).name == "autoattack" and found.get("version") == "standard" for spec, found in settings.items()
    )
