"""``aresbench verify``: what a cell claims, checked by forward passes only; nothing is attacked.

What is known without asking anybody: a claimed break holds if its image lies in the box, inside the budget around the
data's own image, and the model itself gets it wrong. That an image resists cannot be checked this way, and is counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from aresbench.attacks import geometry
from aresbench.core.budget import Ladder, format_fraction, parse_fraction
from aresbench.core.errors import AresError
from aresbench.data.base import Dataset
from aresbench.engine.judge import fooled, right
from aresbench.engine.ladder import Attempt, breaking_rung, within
from aresbench.engine.plan import Planned
from aresbench.engine.prepare import Prepared, prepared
from aresbench.engine.restage import NEAR, answers, asked, changed_since, lead, replan, view_of, windows
from aresbench.models.classifier import Classifier
from aresbench.store import Cell, Store
from aresbench.store.exact import origin, unpack

FEW = 0.005  # share of images on which float noise may turn a verdict


@dataclass(frozen=True)
class Finding:
    """Something that does not hold.

    Args:
        what: ``model``, ``data``, ``protocol``, ``row`` (it contradicts itself or its attempts), ``clean``,
            ``break``.
        id: the image; empty where it is about the cell.
        message: what the bundle says, and what is found here.
    """

    what: str
    id: str
    message: str


@dataclass
class Verified:
    """What became of one cell's claims.

    Args:
        name: model, dataset and task.
        images: rows looked at.
        clean: of these, rows whose verdict on the image before any attack was found again.
        claims: images said to be broken by an attack.
        holds: of these, with an image in the bundle that breaks the model inside the budget.
        unpictured: of these, not checkable: no image in the bundle.
        resisted: images said to have resisted; forward passes cannot tell.
        noise: verdicts that differ where two logits are closer than float noise; not counted among the findings.
        findings: what does not hold.
        notes: what holds, and yet differs: another wrong class, another original.
    """

    name: str
    images: int = 0
    clean: int = 0
    claims: int = 0
    holds: int = 0
    unpictured: int = 0
    resisted: int = 0
    noise: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Nothing was found that does not hold."""
        return not self.findings

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "sound": self.sound}


def verify(
    cell: Cell,
    model: Classifier,
    data: Dataset,
    *,
    n: int | None = None,
    device: torch.device | str = "cpu",
    batch: int | None = None,
) -> Verified:
    """Check the claims of a cell.

    Args:
        cell: of an archive or an unpacked bundle.
        model: the model it is about, got from where the reader trusts it.
        data: the images it is about, likewise.
        n: only the first images of the published order.
        device: where the model runs.
        batch: images in flight; default: what suits the machine.

    Raises:
        AresError: model and data do not fit together, or the data have none of the images.
    """
    identity = cell.description["identity"]
    rows = cell.images().head(n) if n is not None else cell.images()
    task = cell.description.get("task", {}).get("name") or identity["threat"]
    found = Verified(f"{identity['model']['name']} on {identity['dataset']}, {task}", images=len(rows))
    threat = asked(identity["threat"])
    view = view_of(data, rows["id"])
    plan = replan(Store(cell.folder.parent.parent), model, view, threat.changes, seed=identity["seed"])
    _compare(cell, plan, found)
    known = set(view.ids)
    found.findings += [Finding("data", i, "the data have no image of this id") for i in rows["id"] if i not in known]
    checker = _Checker(cell, plan, threat.ladder, rows, found, batch)
    bad: list[tuple[str, str]] = []
    with ExitStack() as stack:
        ready: Prepared | None = None
        for places, x, y in windows(plan, list(range(len(view))), bad):
            ready = ready or stack.enter_context(
                prepared(model, x[:2], class_map=plan.class_map, device=device, attacked=False)
            )
            checker.window(ready, places, x, y)
    found.findings += [Finding("data", i, reason) for i, reason in bad]
    if found.noise > max(1, FEW * len(rows)):
        found.findings.append(
            Finding("clean", "", f"{found.noise} verdicts differ by float noise, which explains a few and not so many")
        )
    return found


def _compare(cell: Cell, plan: Planned, found: Verified) -> None:
    """Is this the model, are these the data and the protocol?"""
    for name, (there, here) in changed_since(cell, plan, whole=False).items():
        what = "model" if name.startswith("model") else "data" if name == "dataset" else "protocol"
        subject = f"{plan.model.name} is another model: its fingerprint" if what == "model" else name
        found.findings.append(Finding(what, "", f"{subject} is {here} here and {there} in the results"))


@dataclass
class _Checker:
    """The rows of one cell, and what of them has been checked."""

    cell: Cell
    plan: Planned
    ladder: Ladder | None
    rows: pd.DataFrame
    found: Verified
    batch: int | None

    def __post_init__(self) -> None:
        self.by_id = {row["id"]: row for row in self.rows.to_dict("records")}
        self.names = list(self.cell.description.get("dataset", {}).get("classes") or ())
        self.broken: dict[str, list[Attempt]] = defaultdict(list)
        attempts = self.cell.attempts()
        for row in attempts[attempts["verdict"] == "broken"].to_dict("records"):
            self.broken[row["id"]].append(Attempt(row["attack"], row["eps"], True, float(row["distance"])))

    def window(self, model: Prepared, places: list[int], x: Tensor, y: Tensor) -> None:
        """Check the rows of these images."""
        ids = [self.plan.dataset.ids[place] for place in places]
        self._clean(model, ids, places, x, y)
        for k, name in enumerate(ids):
            self._row(self.by_id[name], int(y[k]))
        if self.ladder is not None:
            self._breaks(model, self.ladder, ids, x, y)

    def _clean(self, model: Prepared, ids: list[str], places: list[int], x: Tensor, y: Tensor) -> None:
        logits = answers(model, x, self.plan.seed, self.batch)
        said = logits.argmax(1)
        accepted = self.plan.dataset.accepted
        if accepted is not None:
            target = self.plan.class_map.target
            sets = [{target[label] for label in accepted[place]} for place in places]
            fine = torch.tensor([int(choice) in labels for choice, labels in zip(said, sets, strict=True)])
            y = torch.where(fine, said, y)
        correct = right(logits, y)
        near = lead(logits) < NEAR
        for k, name in enumerate(ids):
            row = self.by_id[name]
            if int(said[k]) == row["prediction"] and bool(correct[k]) == row["correct"]:
                self.found.clean += 1
            elif near[k]:
                self.found.noise += 1
            else:
                told = f"the row says {self._class(row['prediction'])}{'' if row['correct'] else ', wrong'}"
                self._fail("clean", name, f"{told}; the model says {self._class(said[k])}")

    def _row(self, row: Mapping[str, Any], label: int) -> None:
        """Does a row agree with the data and with its own attempts?"""
        name, claim = row["id"], row["breaking_budget"]
        if row["label"] != label and self.plan.dataset.accepted is None:
            self._fail("row", name, f"the row says its label is {self._class(row['label'])}, the data say otherwise")
        if self.ladder is None:
            if claim is not None:
                self._fail("row", name, "the row claims a break where nothing was attacked")
            return
        if (claim == "0") == row["correct"]:
            self._fail("row", name, "the row calls the image right and an error at once")
            return
        if claim == "0":
            return
        try:
            place = breaking_rung(self.ladder.rungs, self.broken[name])
        except ValueError:
            self._fail("row", name, "an attempt was made at a budget that the task does not have")
            return
        told = format_fraction(self.ladder.rungs[place]) if place < len(self.ladder.rungs) else None
        if told != claim:
            self._fail("row", name, f"the row says {_fate(claim)}, its attempts say {_fate(told)}")

    def _breaks(self, model: Prepared, ladder: Ladder, ids: list[str], x: Tensor, y: Tensor) -> None:
        """Judge the images that are said to be breaks, and the claims that rest on them."""
        place = {name: k for k, name in enumerate(ids)}
        proofs = {name: _Proof() for name in ids}
        shards = {int(self.by_id[name]["shard"]) for name in ids}
        kept, changed = [], []
        for row in self.cell.breaks(shards).to_dict("records"):
            if row["id"] not in place:
                continue
            try:
                image = torch.from_numpy(unpack(row["levels"], row["rest"], row["height"], row["width"]))
            except ValueError:
                proofs[row["id"]].reasons.append("its image is not as large as it is said to be")
                continue
            if image.shape != x.shape[1:]:
                proofs[row["id"]].reasons.append(f"its image is {row['height']}×{row['width']}, not as the data's")
                continue
            kept.append(row)
            changed.append(image)
        if kept:
            at = torch.tensor([place[row["id"]] for row in kept])
            self._judge(model, ladder, kept, torch.stack(changed), x[at], y[at], proofs)
        for name in ids:
            self._claim(self.by_id[name], ladder, proofs[name])

    def _judge(
        self,
        model: Prepared,
        ladder: Ladder,
        kept: list[dict[str, Any]],
        changed: Tensor,
        x: Tensor,
        y: Tensor,
        proofs: Mapping[str, _Proof],
    ) -> None:
        low, high = geometry.extent(changed)
        distance = geometry.distance(changed, x, ladder.norm)
        logits = answers(model, changed.nan_to_num().clamp(0, 1), self.plan.seed, self.batch)
        broke, ahead = fooled(logits, y, False), lead(logits)
        for k, row in enumerate(kept):
            claim, proof = self.by_id[row["id"]], proofs[row["id"]]
            if row["origin"] != origin(x[k].numpy()):
                self._note("data", row["id"], "it was made from another picture than the one in the data here")
            if not (low[k] >= 0 and high[k] <= 1):  # NaN is in no box
                proof.reasons.append(f"its image leaves [0, 1]: it runs from {low[k]:.4g} to {high[k]:.4g}")
                continue
            wanted, rung = _place(ladder, claim["breaking_budget"]), _reached(ladder, float(distance[k]))
            seen = self._class(logits[k].argmax())
            if wanted is not None and rung > wanted:
                size = f"{ladder.norm} {claim['breaking_budget']}"
                proof.reasons.append(f"its image lies outside {size}: at a distance of {float(distance[k]):.6g}")
            elif broke[k]:
                proof.rungs.append(rung)
                said = claim["adv_prediction"]
                if row["attack"] == claim["broken_by"] and not pd.isna(said) and self._class(said) != seen:
                    self._note("break", row["id"], f"it breaks as {seen}; the row says {self._class(said)}")
            elif wanted is not None and ahead[k] < NEAR:
                self.found.noise += 1
                proof.rungs.append(wanted)
            else:
                proof.reasons.append(f"the model is not fooled: it says {seen}")

    def _claim(self, row: Mapping[str, Any], ladder: Ladder, proof: _Proof) -> None:
        """Count what a row claims, and say where its images prove less, or more."""
        name, claim = row["id"], row["breaking_budget"]
        place = _place(ladder, claim)
        best = min(proof.rungs, default=len(ladder.rungs))
        if claim is None:
            self.found.resisted += 1
        if place is not None:
            self.found.claims += 1
            if best <= place:
                self.found.holds += 1
            elif proof.reasons:
                self._fail("break", name, f"claimed {_fate(claim)}: {'; '.join(proof.reasons)}")
            else:
                self.found.unpictured += 1
        if claim != "0" and best < (len(ladder.rungs) if place is None else place):
            size = format_fraction(ladder.rungs[best])
            self._fail("row", name, f"the row says {_fate(claim)}, and its own image breaks at {ladder.norm} {size}")

    def _class(self, index: Any) -> str:
        return repr(self.names[int(index)]) if 0 <= int(index) < len(self.names) else f"class {int(index)}"

    def _fail(self, what: str, name: str, message: str) -> None:
        self.found.findings.append(Finding(what, name, message))

    def _note(self, what: str, name: str, message: str) -> None:
        self.found.notes.append(Finding(what, name, message))


@dataclass
class _Proof:
    """What an image's stored breaks come to: the rungs that they reach, and what is wrong with the others."""

    rungs: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def _place(ladder: Ladder, claim: str | None) -> int | None:
    """Where a claimed breaking budget stands on the ladder; ``None`` where none is claimed, or a wrong one."""
    if claim in (None, "0"):
        return None
    try:
        return ladder.rungs.index(parse_fraction(str(claim)))
    except (ValueError, AresError):
        return None


def _reached(ladder: Ladder, distance: float) -> int:
    """Place of the smallest rung that a break at this distance counts for; the number of rungs where none is left."""
    return bisect_left(range(len(ladder.rungs)), True, key=lambda place: within(distance, ladder.rungs[place]))


def _fate(budget: str | None) -> str:
    return "it resisted" if budget is None else f"broken at {budget}"


def problem_of(error: AresError) -> Finding:
    """A cell that could not even be set up, as a finding about it."""
    return Finding("data", "", str(error).replace("\n", " "))
