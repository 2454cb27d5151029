"""Two models on the same images: which is better, by how much, and could it be luck?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from aresbench.core.errors import ProtocolMismatch, SpecError, StoreError
from aresbench.metrics import accuracy, curve_area, image_areas, mcnemar, paired_difference
from aresbench.metrics.budgets import as_float
from aresbench.report.columns import pinned_budgets
from aresbench.report.curves import is_ladder, rungs_of
from aresbench.report.pairs import Pair, mean_pairs, mode_gap
from aresbench.report.reading import Reading, budget_label, common_ids, differences, evidence, fields, read
from aresbench.store import Cell


@dataclass(frozen=True)
class Comparison:
    """All numbers that two models share.

    Args:
        first, second: the models' names.
        pairs: one per shared number.
        only_first, only_second: tasks (``dataset · task``) that only one of them has.
        notes: what differs between the two by right (their own preprocessing) and is good to know.
    """

    first: str
    second: str
    pairs: tuple[Pair, ...]
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def frame(self) -> pd.DataFrame:
        """One row per shared number."""
        rows = []
        for pair in self.pairs:
            row = {"dataset": pair.dataset, "task": pair.task, "measure": pair.measure, "n": pair.difference.n}
            for name in ("first", "second", "difference"):
                score = getattr(pair, name)
                row.update({name: score.value, f"{name}_low": score.low, f"{name}_high": score.high})
            rows.append({**row, **{k: asdict(pair)[k] for k in ("p_value", "only_first", "only_second")}})
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        from aresbench.report.tables import comparison_html

        return comparison_html(self)

    def __str__(self) -> str:
        return "\n".join([f"{self.first} − {self.second}", *map(str, self.pairs), *self.notes])


def compare(cells_a: Iterable[Cell | Reading], cells_b: Iterable[Cell | Reading]) -> Comparison:
    """Compare two models task by task, paired on the same image ids.

    Args:
        cells_a: cells of one model.
        cells_b: cells of another model (or of the same one, measured again).

    Raises:
        StoreError: one side has no measured cell.
        SpecError: one side holds several models.
        ProtocolMismatch: a task was measured under different protocols (the fields are named), or
            the two share no task or no image.
    """
    a, b = _one_model(cells_a, "first"), _one_model(cells_b, "second")
    matches = _match(a, b)
    pairs = [pair for one, other in matches for pair in _pairs(one, other)]
    pairs += _worst_cases(matches) + mean_pairs(matches)
    known = {id(r) for match in matches for r in match}
    notes = []
    own: dict[str, tuple[str, str]] = {}
    for one, other in matches:
        own |= differences(fields(one, of_the_model=True), fields(other, of_the_model=True))
    told = [f"{k.split('.')[-1]}: {x} and {y}" for k, (x, y) in own.items() if ".preprocessing." in k]
    if told:
        notes.append(f"Each model sees the images in its own way ({'; '.join(told)}).")
    sizes = dict.fromkeys(f"{x} and {y}" for k, (x, y) in own.items() if k.endswith(".parameter_set"))
    if sizes:
        notes.append(f"Corruptions have the parameters of each model's image size ({'; '.join(sizes)} pixels).")
    if gap := mode_gap(a, b):
        notes.append(f"{gap}; none of these is compared with another.")
    counts = {(len(one.images), len(other.images), len(common_ids([one, other]))) for one, other in matches}
    if any(n != m or k != n for n, m, k in counts):
        notes.append("Only images that both models have are compared.")
    return Comparison(
        a[0].model,
        b[0].model,
        tuple(pairs),
        tuple(f"{r.dataset} · {r.name}" for r in a if id(r) not in known),
        tuple(f"{r.dataset} · {r.name}" for r in b if id(r) not in known),
        tuple(notes),
    )


def _one_model(cells: Iterable[Cell | Reading], side: str) -> list[Reading]:
    readings = [r for r in read(cells) if len(r.images)]
    if not readings:
        raise StoreError(
            f"the {side} side of the comparison has no measured image", "measure it first with `aresbench run`"
        )
    models = sorted({f"{r.model} ({r.fingerprint})" for r in readings})
    if len(models) > 1:
        raise SpecError(f"the {side} side holds {len(models)} models: {', '.join(models)}", "choose one of them")
    seeds = sorted({str(r.description["identity"].get("seed")) for r in readings})
    if len(seeds) > 1:
        raise SpecError(f"the {side} side holds results of the seeds {', '.join(seeds)}", "choose one: --seed N")
    return readings


def _match(a: Sequence[Reading], b: Sequence[Reading]) -> list[tuple[Reading, Reading]]:
    """Cells that answer the same question; refuses a task that was asked differently on the two sides."""
    matches: list[tuple[Reading, Reading]] = []
    refused: dict[str, dict[str, tuple[str, str]]] = {}
    for one in a:
        peers = [other for other in b if (other.dataset, other.name) == (one.dataset, one.name)]
        exact = [other for other in peers if not _different(one, other)]
        if exact:
            matches.append((one, exact[0]))
        elif peers:
            refused[f"{one.dataset} · {one.name}"] = min((_different(one, other) for other in peers), key=len)
    asked = {(one.dataset, one.name) for one, _ in matches}
    refused = {name: found for name, found in refused.items() if tuple(name.split(" · ", 1)) not in asked}
    if refused:
        name, found = next(iter(refused.items()))
        told = "; ".join(f"{k}: {x} and {y}" for k, (x, y) in found.items())
        more = f" (and {len(refused) - 1} more tasks)" if len(refused) > 1 else ""
        raise ProtocolMismatch(
            f"{name} was measured under different protocols{more}: {told}",
            f"measure both with the same {', '.join(found)}, or leave this task out",
        )
    if not matches:
        names = [sorted({f"{r.dataset} · {r.name}" for r in side}) for side in (a, b)]
        raise ProtocolMismatch(
            f"{a[0].model} and {b[0].model} share no task: one has {_some(names[0])}, the other {_some(names[1])}"
            + (f"; {gap}" if (gap := mode_gap(a, b)) else ""),
            "run the same suite on both: `aresbench run MODEL… --suite NAME`",
        )
    for one, other in matches:
        if not len(common_ids([one, other])):
            raise ProtocolMismatch(
                f"{one.dataset} · {one.name}: the two share no image id ({one.images.index[0]!r} … and "
                f"{other.images.index[0]!r} …)",
                "measure both on the same images of the dataset",
            )
    return matches


def _different(one: Reading, other: Reading) -> dict[str, tuple[str, str]]:
    """Fields that forbid a comparison; for the same weights the preprocessing is one of them."""
    same = one.fingerprint == other.fingerprint and one.model == other.model
    return differences(fields(one, of_the_model=same), fields(other, of_the_model=same))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def _pairs(one: Reading, other: Reading) -> list[Pair]:
    ids = common_ids([one, other])
    if one.kind != "adversary":
        right = [r.correct.reindex(ids).to_numpy(bool) for r in (one, other)]
        return [_verdicts(one, "accuracy", right)]
    breaking = [r.breaking.reindex(ids).to_numpy() for r in (one, other)]
    pairs = [
        _verdicts(one, f"accuracy at {budget_label(one.norm, eps)}", [values > as_float(eps) for values in breaking])
        for eps in (one.pinned or one.rungs[-1:])
    ]
    if is_ladder(one):
        rungs = rungs_of([one])
        first, second = breaking
        difference = paired_difference(image_areas(first, rungs), image_areas(second, rungs))
        label = f"area up to {budget_label(one.norm, rungs[-1])}"
        areas = curve_area(first, rungs), curve_area(second, rungs)
        pairs.append(Pair(one.dataset, one.name, label, areas[0], areas[1], difference))
    return pairs


def _worst_cases(matches: Sequence[tuple[Reading, Reading]]) -> list[Pair]:
    """Robust accuracy over all shared tasks of a norm, where there is more than one."""
    pairs = []
    for dataset in dict.fromkeys(one.dataset for one, _ in matches):
        here = [match for match in matches if match[0].dataset == dataset and match[0].plain_adversary]
        for norm, eps in pinned_budgets([one for one, _ in here]):
            known = [match for match in here if match[0].norm == norm]
            ids = common_ids([r for match in known for r in match if eps in r.pinned])
            if len(known) > 1 and len(ids):
                right = [evidence([m[side] for m in known], ids) > as_float(eps) for side in (0, 1)]
                label = f"accuracy at {budget_label(norm, eps)}"
                pairs.append(_verdicts(known[0][0], label, right, "worst case over all attacks"))
    return pairs


def _verdicts(reading: Reading, measure: str, right: Sequence[np.ndarray], task: str = "") -> Pair:
    test = mcnemar(right[0], right[1])
    return Pair(
        dataset=reading.dataset,
        task=task or reading.name,
        measure=measure,
        first=accuracy(right[0]),
        second=accuracy(right[1]),
        difference=paired_difference(right[0], right[1]),
        p_value=test.p_value,
        only_first=test.only_first,
        only_second=test.only_second,
    )
