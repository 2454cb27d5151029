"""The columns of the table of models, and the numbers at one budget that stand in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aresbench.core.budget import parse_fraction
from aresbench.metrics import Score, robust_accuracy, union_accuracy
from aresbench.metrics.budgets import as_float
from aresbench.report import corruptions
from aresbench.report.best_known import best_known, has_autoattack, submission_name
from aresbench.report.curves import is_ladder, norms
from aresbench.report.reading import Reading, budget_label, common_ids, evidence


@dataclass(frozen=True)
class Column:
    """One number of the table of models: its key, its heading and what it means."""

    key: str
    label: str
    hint: str


def pinned_budgets(readings: Iterable[Reading]) -> list[tuple[str, str]]:
    """(norm, budget) of every pinned budget of plain adversaries, by norm and then size."""
    found = {(r.norm, eps) for r in readings if r.plain_adversary for eps in r.pinned}
    return sorted(found, key=lambda pair: (pair[0] != "linf", pair[0], parse_fraction(pair[1])))


def unions(readings: Iterable[Reading]) -> list[tuple[tuple[str, str], ...]]:
    """Pinned budgets of several norms that are asked together: the smallest of each, then the next."""
    of_norm: dict[str, list[tuple[str, str]]] = {}
    for budget in pinned_budgets(readings):
        of_norm.setdefault(budget[0], []).append(budget)
    return list(zip(*of_norm.values(), strict=False)) if len(of_norm) > 1 else []


def union_label(budgets: Iterable[tuple[str, str]]) -> str:
    """``L∞ 4/255 ∪ L2 0.5``."""
    return " ∪ ".join(budget_label(norm, eps) for norm, eps in budgets)


def columns_of(readings: Sequence[Reading], models: Mapping[str, Sequence[Reading]]) -> tuple[Column, ...]:
    """All columns of a section's table of models."""
    found = [Column("clean", "Clean", "share of images that are right without any attack or corruption")]
    for norm, eps in pinned_budgets(readings):
        found += _of_budget(readings, norm, eps)
    found += [
        Column(
            f"union {' '.join(map(' '.join, budgets))}", union_label(budgets), "share right under every one of these"
        )
        for budgets in unions(readings)
    ]
    found += [Column(*facts) for facts in corruptions.columns(models)]
    for norm in norms(r.norm for r in readings if is_ladder(r)):
        hint = "area under the accuracy curve over its range of budgets: the mean accuracy under attack"
        found.append(Column(f"area {norm}", f"Area {budget_label(norm, '').strip()}", hint))
    return tuple(found)


def _of_budget(readings: Sequence[Reading], norm: str, eps: str) -> list[Column]:
    """The worst case over everything; where AutoAttack's own number stands beside it, it says that it is that."""
    label, hint = budget_label(norm, eps), "share right on the clean image and under every attack"
    of_norm = [r for r in readings if r.plain_adversary and r.norm == norm]
    auto = any(eps in r.pinned and has_autoattack(r) for r in of_norm)
    if not auto and all(submission_name(r) is None for r in of_norm):
        return [Column(f"robust {norm} {eps}", label, hint)]
    own = Column(f"autoattack {norm} {eps}", f"AutoAttack {label}", "share right under AutoAttack standard")
    best = f"{hint}, verified submissions among them; never above AutoAttack's on the same images"
    return [own] * auto + [Column(f"robust {norm} {eps}", f"Best known {label}", best)]


def robust_at(group: Iterable[Reading], norm: str, eps: str) -> tuple[Score | None, list[Reading]]:
    """Worst case over all attacks at one pinned budget, on the images that every task pinned there has seen.

    Breaks found by other tasks of the same norm count too: more evidence can only lower the number.
    """
    known = [r for r in group if r.plain_adversary and r.norm == norm]
    pinned = [r for r in known if eps in r.pinned]
    if not pinned or not len(ids := common_ids(pinned)):
        return None, []
    return robust_accuracy(evidence(known, ids), eps), known


def autoattack_at(group: Iterable[Reading], norm: str, eps: str) -> tuple[Score | None, list[Reading]]:
    """Robust accuracy under AutoAttack's standard version alone, on the images of :func:`robust_at`."""
    found = best_known(group, norm, eps)
    return (None, []) if found is None else (found.autoattack, list(found.auto))


def union_at(group: Iterable[Reading], budgets: Sequence[tuple[str, str]]) -> tuple[Score | None, list[Reading]]:
    """Share of images right under every one of several pinned budgets, on those that all of their tasks have seen."""
    known = [r for r in group if r.plain_adversary]
    pinned = [[r for r in known if r.norm == norm and eps in r.pinned] for norm, eps in budgets]
    if not all(pinned) or not len(ids := common_ids([r for part in pinned for r in part])):
        return None, []
    used = {norm: [r for r in known if r.norm == norm] for norm, _ in budgets}
    robust = [evidence(used[norm], ids) > as_float(eps) for norm, eps in budgets]
    return union_accuracy(robust), [r for part in used.values() for r in part]
