"""``ab.evaluate``: models on tasks, row by row into the archive, and back as results."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import PIL
import torch

from aresbench import __version__
from aresbench.core.errors import AresError, SpecError, StoreError
from aresbench.core.suite import Suite, Task
from aresbench.data.base import Dataset
from aresbench.engine.cell import fill
from aresbench.engine.doctor import examine
from aresbench.engine.events import Clock, Event, Progress
from aresbench.engine.forecast import Forecast, costs
from aresbench.engine.pictures import Pictures, side_by_side
from aresbench.engine.plan import Plan, Planned, Skipped, make_plan
from aresbench.engine.reliability import flags_after
from aresbench.engine.results import Results
from aresbench.models.classifier import Classifier
from aresbench.report.reading import Reading
from aresbench.report.summary import measures
from aresbench.store import Store


def evaluate(
    models: str | Classifier | Sequence[str | Classifier] | None = None,
    suite: str | Suite | Sequence[Task] = "quickstart",
    *,
    data: str | Dataset | None = None,
    root: str | Path | None = None,
    n: int | None = None,
    balanced: bool = False,
    store: str | Path | Store = "runs",
    seed: int = 0,
    device: str | torch.device | None = None,
    batch: int | None = None,
    on_bad: str = "raise",
    doctor: bool = True,
    partial: bool = False,
    commercial: bool = False,
    progress: Progress | None = None,
) -> Results:
    """Measure models on the tasks of a suite; what the archive already holds is not computed again.

    Interrupt it at any time: the same call finishes the rest. A larger n computes only the images that
    are new.

    Args:
        models: specs or classifiers; ``None``: the models the suite names.
        suite: a suite's name or object, or a list of tasks.
        data: replaces the dataset of every task whose classes the models know.
        root: where the dataset lies, of which there must be one; of several, each lies in ``$ARESBENCH_DATA``.
        n: images of each dataset, in its published order; a task's own smaller n stays.
        balanced: choose the n images class by class.
        store: the archive's folder.
        seed: of all random draws.
        device: ``cpu``, ``cuda`` …; default: a GPU if there is one.
        batch: images in flight; default: what suits the machine.
        on_bad: ``raise`` at an image that cannot be read, or ``skip`` it (the results then say so).
        doctor: examine each model before its first cell, and look again at a few of the images that attacks left
            standing, for reasons to doubt the number.
        partial: accept datasets that are there in part, under names of their own.
        commercial: leave out data whose terms do not allow commercial use, by name.
        progress: called with events as the run goes on.

    Raises:
        AresError: nothing to do, something named does not exist, or the archive cannot be written. A cell
            whose model or data fail is reported among ``results.skipped`` and the others go on.
    """
    tell = progress or (lambda event: None)
    where = chosen_device(device)
    archive = store if isinstance(store, Store) else Store(store)
    plan = make_plan(
        models,
        suite,
        archive,
        data=data,
        root=root,
        n=n,
        balanced=balanced,
        seed=seed,
        partial=partial,
        commercial=commercial,
    )
    for skipped in plan.skipped:
        tell(Event("skip", skipped=skipped, message=skipped.reason))
    if progress is not None:  # else nobody would hear of it
        forecast = Forecast(where)
        known = forecast.timed(plan.cells) if forecast.worth_timing(plan.cells) else costs(plan.cells)
        tell(Event("plan", plan=plan, costs=tuple(known)))
    run = _Run(plan, where, batch, on_bad, doctor, tell)
    found = {id(planned): run.one(planned) for planned in side_by_side(plan.cells)}
    for note in run.pictures.cache.notes:
        tell(Event("note", message=note))
    readings = [reading for planned in plan.cells if (reading := found[id(planned)]) is not None]
    return Results(readings, plan.skipped)


def default_device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def chosen_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or a GPU if there is one.

    Raises:
        SpecError: torch knows no such device, or this machine has none.
    """
    if device is None:
        return default_device()
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise SpecError(
            f"no device {str(device)!r} here: {reason}", "choose cpu, or cuda where there is a GPU"
        ) from error
    return where


class _Run:
    """The cells of a plan, one after the other."""

    def __init__(
        self, plan: Plan, device: torch.device, batch: int | None, on_bad: str, doctor: bool, tell: Progress
    ) -> None:
        self.plan, self.device, self.batch, self.on_bad, self.doctor, self.tell = (
            plan,
            device,
            batch,
            on_bad,
            doctor,
            tell,
        )
        self.pictures = Pictures()
        self.pictures.expect(plan.cells)
        prices = [cost.passes for cost in costs(plan.cells)]
        self.prices = {id(planned): price for planned, price in zip(plan.cells, prices, strict=True)}
        self.clock = Clock(prices)
        self.examined: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.views: dict[int, frozenset[str]] = {}  # of thousands of cells one set of ids for each dataset

    def one(self, planned: Planned) -> Reading | None:
        """Fill a cell; ``None`` if it failed, which the plan then says among what was left out."""
        total = len(planned.missing)
        self.tell(Event("start", planned, total=total))
        began = time.time()

        def advance(done: int, what: str) -> None:
            left = self.clock.seconds_left(self.prices[id(planned)], done / max(1, total))
            self.tell(Event("advance", planned, done=done, total=total, seconds_left=left, message=what))

        try:
            if total:
                flags = self._flags_before(planned)
                bad = fill(
                    planned,
                    self.pictures,
                    device=self.device,
                    batch=self.batch,
                    on_bad=self.on_bad,
                    advance=advance,
                )
                advance(total, "second opinions")
                found, cost = flags_after(
                    planned, self.pictures, bad, device=self.device, batch=self.batch, probes=self.doctor
                )
                planned.cell.add_flags([*flags, *(flag.record() for flag in found)])
                planned.cell.add_provenance({**provenance(self.device, began), "probes": asdict(cost)})
                planned.cell.write_result(_derived(planned))
        except StoreError:
            raise  # nothing more can be kept
        except Exception as error:
            # A model of the user's own may raise anything; the cells of the others are still worth having.
            planned.close()
            if os.environ.get("ARESBENCH_DEBUG"):
                raise
            reason = str(error) if isinstance(error, AresError) else f"{type(error).__name__}: {error}"
            skipped = Skipped(planned.model.name, planned.task, reason, True)
            self.plan.skipped.append(skipped)
            self.tell(Event("failed", planned, skipped=skipped, message=reason))
            return None
        finally:
            self.clock.finish(self.prices[id(planned)])
            if total:
                self.pictures.finish(planned)
        view = self.views.setdefault(id(planned.dataset), frozenset(planned.dataset.ids))
        reading = Reading(planned.cell, view)
        self.tell(Event("done", planned, done=total, total=total))
        return reading

    def _flags_before(self, planned: Planned) -> list[dict[str, Any]]:
        """The doctor's findings about this model on these data, once per pair."""
        if not self.doctor:
            return []
        pair = (planned.fingerprint, planned.dataset.name)
        if pair not in self.examined:
            found = examine(planned.model, planned.dataset, device=self.device, on_bad=self.on_bad)
            self.examined[pair] = [flag.record() for flag in found]
        return self.examined[pair]


def _derived(planned: Planned) -> dict[str, Any]:
    """A cell's scores over all the images it holds; readers who want no tables find them in ``result.json``."""
    reading = Reading(planned.cell)
    return {
        "description": planned.description["task"],
        "scores": {name: score.to_dict() for name, score in measures(reading).items()},
        "cost": {"forwards": reading.forwards, "backwards": reading.backwards, "of which probes": reading.probes},
        "flags": planned.cell.flags(),
        "provenance": planned.cell.provenance(),
    }


def provenance(device: torch.device, began: float) -> dict[str, Any]:
    """With what a session computed: versions, device, command and times."""
    return {
        "aresbench": __version__,
        "torch": torch.__version__,
        "pillow": PIL.__version__,  # its resizing has changed by a level between versions
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(time.time() - began, 1),
    }
