"""What a plan costs before it starts: images, passes, and hours on this device from a timed step of each model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from aresbench.core.classes import ClassMap
from aresbench.core.errors import AresError
from aresbench.core.preprocessing import Preprocessing
from aresbench.data.base import load_images
from aresbench.engine.driver import batch_for
from aresbench.engine.pictures import side_by_side, transfer_key
from aresbench.engine.plan import Planned
from aresbench.engine.prepare import prepared
from aresbench.models.classifier import Classifier

TIMED = 2  # steps of a batch: the first warms up
WORTH = 50  # a plan this many times dearer than the timing is worth it


@dataclass(frozen=True)
class Cost:
    """What a cell costs at most: every image, every step, nothing breaking early.

    Args:
        there, missing: images whose rows are there already, and images to measure.
        asked: forward plus backward passes of the model itself.
        searched: those of a transfer's surrogates; what another cell of the plan searches for too is counted once.
        seconds: on the device at hand; ``None``: not timed.
    """

    there: int
    missing: int
    asked: int
    searched: int
    seconds: float | None = None

    @property
    def passes(self) -> int:
        """Forward plus backward passes, of whatever model."""
        return self.asked + self.searched

    @classmethod
    def total(cls, costs: Sequence[Cost]) -> Cost:
        """Of many cells; the time of those that are timed, ``None`` where none is."""
        timed = [cost.seconds for cost in costs if cost.seconds is not None]
        return cls(
            sum(cost.there for cost in costs),
            sum(cost.missing for cost in costs),
            sum(cost.asked for cost in costs),
            sum(cost.searched for cost in costs),
            sum(timed) if timed or not costs else None,
        )


def costs(cells: Sequence[Planned]) -> list[Cost]:
    """What each cell of a plan costs at most, in passes."""
    found: dict[int, Cost] = {}
    searched: dict[object, set[str]] = {}  # images that a surrogate has been attacked on by then
    for cell in side_by_side(cells):
        own, others = cell.passes
        new = set()
        if others:
            known = searched.setdefault(transfer_key(cell), set())
            new = {cell.dataset.ids[k] for k in cell.missing} - known
            known |= new
        count = len(cell.missing)
        found[id(cell)] = Cost(len(cell.dataset) - count, count, count * own, len(new) * others)
    return [found[id(cell)] for cell in cells]


class Forecast:
    """Times for the costs of cells on this device.

    One forward and one backward pass of each model at each size are timed on a batch of the first image, after a
    warm-up. Real runs are shorter by as much as images break early; decoding and corrupting pictures comes on top, and
    is small beside attacks.

    Args:
        device: where the models would run.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pass: dict[tuple[object, ...], float | None] = {}

    def timed(self, cells: Sequence[Planned]) -> list[Cost]:
        """What each cell costs at most, with its time; ``None`` where no image of it can be read."""
        return [self._with_time(cell, cost) for cell, cost in zip(cells, costs(cells), strict=True)]

    def worth_timing(self, cells: Sequence[Planned]) -> bool:
        """Is the plan so dear that timing its models is nothing beside it?"""
        models = {(c.fingerprint, c.preprocessing): c.preprocessing for c in cells if c.missing}
        price = sum(self._price_of_timing(preprocessing) for preprocessing in models.values())
        return bool(models) and sum(cost.passes for cost in costs(cells)) > WORTH * price

    def _price_of_timing(self, preprocessing: Preprocessing | None) -> int:
        height, width = preprocessing.size if preprocessing else (224, 224)
        return 2 * TIMED * batch_for(torch.empty(1, 3, height, width, device="meta"), self.device)

    def _with_time(self, cell: Planned, cost: Cost) -> Cost:
        seconds = 0.0
        for passes, models in ((cost.asked, [(cell.model, cell.class_map)]), (cost.searched, cell.surrogates)):
            for model, class_map in models if passes else ():
                one = self._seconds_a_pass(cell, model, class_map)
                if one is None:
                    return cost
                seconds += one * passes
        return Cost(cost.there, cost.missing, cost.asked, cost.searched, seconds)

    def _seconds_a_pass(self, cell: Planned, model: Classifier, class_map: ClassMap) -> float | None:
        same = (id(model), cell.preprocessing, class_map)
        if same not in self._pass:
            try:
                self._pass[same] = _time(cell, model, class_map, self.device)
            except AresError:  # the run will say so, of each cell
                self._pass[same] = None
        return self._pass[same]


def _time(cell: Planned, model: Classifier, class_map: ClassMap, device: torch.device) -> float | None:
    x, _, _ = load_images(cell.dataset, list(cell.missing[:4]), cell.preprocessing, "skip")
    if not len(x):
        return None
    x = x[:1].expand(batch_for(x, device), *x.shape[1:])
    with prepared(model, x[:2], class_map=class_map, device=device) as ready:
        x = ready.place(x.clone()).requires_grad_()
        for _ in range(TIMED):
            began = time.monotonic()
            torch.autograd.grad(ready(x).sum(), x, allow_unused=True)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return (time.monotonic() - began) / (2 * len(x))
