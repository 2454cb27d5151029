"""Stored rows under another protocol: the same answers of the model, judged by another rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aresbench.core.errors import ProtocolMismatch
from aresbench.metrics import rescore as rules
from aresbench.metrics.accuracy import accuracy
from aresbench.metrics.baselines import CORRUPTIONS, ERROR_BASELINES
from aresbench.metrics.score import Floats, Score
from aresbench.report import corruptions
from aresbench.report.flags import flag_names
from aresbench.report.reading import Reading, question, read
from aresbench.store import Cell


@dataclass(frozen=True)
class Rescored:
    """One number that stored rows give under one protocol.

    Args:
        model, dataset, task: of the cell whose rows they are.
        measured: the protocol under which the cell was measured.
        protocol: the one that this number follows.
        score: the number; ``None`` where the rows do not tell.
        why: what is missing then, or what to know about the number.
    """

    model: str
    dataset: str
    task: str
    measured: str
    protocol: str
    score: Score | None
    why: str = ""


MASKED, WHOLE = "among the data's classes", "among all of the model's classes"
OBJECTNET = ("official", "sublist", "all-images")


def rescore(cells: Iterable[Cell | Reading]) -> list[Rescored]:
    """What stored rows say under other protocols: masked or 1,000-way, ObjectNet's three, both AlexNets' mCE.

    Class rules are changed of clean accuracies, and of those under corruptions and filters: an attack searches under
    one rule, and what it found says nothing about another. Cells for which there is one rule only are left out.

    Args:
        cells: of any models, datasets and tasks.
    """
    found: list[Rescored] = []
    groups: dict[tuple[str, ...], list[Reading]] = {}
    for reading in read(cells):
        if reading.kind != "adversary":
            found += _of_cell(reading)
        groups.setdefault((reading.model, reading.fingerprint, *question(reading).values()), []).append(reading)
    for group in groups.values():
        found += _mce(group)
    return found


def _mce(group: Sequence[Reading]) -> list[Rescored]:
    """A model's mCE and relative mCE under every baseline over the fifteen corruptions."""
    found = []
    for mode in corruptions.modes(group):
        for baseline in (name for name, known in ERROR_BASELINES.items() if set(known.error) == set(CORRUPTIONS)):
            for relative, task in ((False, f"mCE ({mode})"), (True, f"relative mCE ({mode})")):
                score, used, _ = corruptions.corruption_error(group, mode, relative=relative, baseline=baseline)
                if score is not None:
                    flagged = score.with_flags(flag_names(used))
                    about = group[0].model, group[0].dataset, task, corruptions.BASELINE, baseline
                    found.append(Rescored(*about, flagged))
    return found


def rescored_frame(cells: Iterable[Cell | Reading]) -> pd.DataFrame:
    """What stored rows say under other protocols: one row per cell and protocol.

    Masked or 1,000-way, ObjectNet's three, both AlexNets' mCE; no model is asked again. ``value``, ``low`` and
    ``high`` are shares in [0, 1], missing where the rows do not tell, and ``why`` says then what it would take.

    Args:
        cells: results of any models, datasets and tasks.
    """
    rows = []
    for one in rescore(cells):
        score = one.score
        rows.append(
            {
                "model": one.model,
                "dataset": one.dataset,
                "task": one.task,
                "measured": one.measured,
                "protocol": one.protocol,
                "value": score.value if score else float("nan"),
                "low": score.low if score else float("nan"),
                "high": score.high if score else float("nan"),
                "n": score.n if score else 0,
                "why": one.why,
            }
        )
    columns = ["model", "dataset", "task", "measured", "protocol", "value", "low", "high", "n", "why"]
    return pd.DataFrame(rows, columns=columns)


def _of_cell(reading: Reading) -> list[Rescored]:
    about = reading.description.get("dataset", {})
    outputs, mask, rows = about.get("outputs") or [], about.get("mask") or [], reading.images
    if reading.dataset.startswith("objectnet-"):
        return _objectnet(reading, outputs)
    if outputs:
        return _both(reading, MASKED, WHOLE, lambda: rules.unmasked(_whole(rows), rows["label"], outputs))
    if mask:
        return _both(reading, WHOLE, MASKED, lambda: rules.masked(list(rows["top5"]), rows["label"], mask))
    return []


def _both(reading: Reading, measured: str, other: str, verdicts: Callable[[], rules.Verdicts]) -> list[Rescored]:
    """A cell's own number, and the one under the other rule."""
    own = _entry(reading, measured, measured, accuracy(reading.correct))
    try:
        return [own, _entry(reading, measured, other, verdicts().score())]
    except ProtocolMismatch as error:
        return [own, _entry(reading, measured, other, None, str(error).replace("\n", "; "))]


def _objectnet(reading: Reading, outputs: Sequence[Sequence[int]]) -> list[Rescored]:
    measured = next((name for name in OBJECTNET if reading.dataset.startswith(f"objectnet-{name}")), "")
    rows, masked = reading.images, measured == "sublist"
    try:
        scores = rules.objectnet_protocols(
            _whole(rows), rows["label"], outputs, prediction=rows["prediction"] if masked else None
        )
    except ProtocolMismatch as error:
        return [_entry(reading, measured, measured, accuracy(reading.correct), str(error).replace("\n", "; "))]
    needs = {"sublist": "needs a cell measured under sublist", "all-images": "needs images of all 313 classes"}
    return [
        _entry(reading, measured, name, None if scores[name].missing else scores[name], needs.get(name, ""))
        for name in OBJECTNET
    ]


def _whole(rows: pd.DataFrame) -> Floats:
    return rows["full_prediction"].astype("Float64").to_numpy(dtype=float, na_value=np.nan)


def _entry(reading: Reading, measured: str, protocol: str, score: Score | None, why: str = "") -> Rescored:
    flagged = score.with_flags(flag_names([reading])) if score else None
    return Rescored(reading.model, reading.dataset, reading.name, measured, protocol, flagged, "" if score else why)
