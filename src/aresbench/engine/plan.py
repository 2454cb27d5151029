"""What a run will do: which model on which task, under which protocol, and what is already there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aresbench.attacks.base import Attack
from aresbench.core import threat as threats
from aresbench.core.budget import format_fraction
from aresbench.core.classes import ClassMap
from aresbench.core.errors import AresError, DataError, ModelError, SpecError
from aresbench.core.preprocessing import Preprocessing
from aresbench.core.suite import Suite, Task, load_suite
from aresbench.core.threat import EACH, Adversary
from aresbench.corruptions.change import Change
from aresbench.corruptions.load import make_corruption, make_filter
from aresbench.data.base import Dataset
from aresbench.engine.adversary import arm
from aresbench.engine.class_rule import class_map_for, output_names
from aresbench.engine.shelf import Shelf
from aresbench.models.classifier import Classifier
from aresbench.models.load import load_model
from aresbench.store import Cell, Store

SHARD = 32


@dataclass(frozen=True)
class Planned:
    """One cell to fill: a model on a task, everything loaded and matched.

    Args:
        model, task, dataset: what is measured; the dataset is already cut to the images asked for.
        preprocessing: how its pictures become the model's input.
        class_map: how the model's outputs answer the dataset's labels.
        changes: corruptions and filters, applied to each image first, in order.
        adversary: the task's, ensembles taken apart; ``None`` where there is none.
        attacks: spec text → attack, the adversary's own and its bound.
        surrogates: of a transfer, the models its attacks see, each with its class map.
        fingerprint: of the model's weights, read once.
        store, description: where the rows go, and under what identity.
        missing: places in ``dataset`` whose rows are not there yet.
        seed: of all random draws.
    """

    model: Classifier
    task: Task
    dataset: Dataset
    preprocessing: Preprocessing | None
    class_map: ClassMap
    changes: tuple[Change, ...]
    adversary: Adversary | None
    attacks: dict[str, Attack]
    surrogates: tuple[tuple[Classifier, ClassMap], ...]
    fingerprint: str
    store: Store
    description: dict[str, Any]
    missing: Sequence[int]
    seed: int

    @cached_property
    def cell(self) -> Cell:
        """The cell that takes the rows, made when it is first asked for: a plan alone writes nothing."""
        return self.store.cell(self.description)

    def close(self) -> None:
        """Let go of the cell; one that was never asked for is not made now."""
        if "cell" in self.__dict__:
            self.cell.close()

    def labels(self, places: Sequence[int]) -> Tensor:
        """[n] int64: the labels of some images of the dataset, after the class map."""
        return torch.tensor(self.class_map.target)[torch.as_tensor(self.dataset.labels[list(places)])]

    @property
    def passes(self) -> tuple[int, int]:
        """Forwards plus backwards for an image that nothing breaks: of the model, and of a transfer's surrogates."""
        if self.adversary is None:
            return 1, 0
        runs = {spec: 1 if a.kind == "minimal" else self.adversary.ladder.runs for spec, a in self.attacks.items()}
        search = sum(runs[spec] * attack.passes for spec, attack in self.attacks.items())
        return (1 + sum(runs.values()), search) if self.surrogates else (1 + search, 0)


@dataclass(frozen=True)
class Skipped:
    """A task that is not run on a model, and why; one stands for all tasks on its dataset left out for one reason."""

    model: str
    task: Task
    reason: str
    failed: bool


@dataclass
class Plan:
    """All cells of a run in order, and what is left out."""

    cells: list[Planned] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def tasks_of(suite: str | Suite | Sequence[Task]) -> tuple[list[Task], Suite | None]:
    """The tasks of a suite (by name or object) or of a plain list."""
    if isinstance(suite, str):
        suite = load_suite(suite)
    if isinstance(suite, Suite):
        return list(suite.tasks), suite
    tasks = list(suite)
    for task in tasks:
        if not isinstance(task, Task):
            raise SpecError(f"{task!r} is not a task", 'write aresbench.Task("digits", "corruption(fog, 3)")')
    return tasks, None


def make_plan(
    models: str | Classifier | Sequence[str | Classifier] | None,
    suite: str | Suite | Sequence[Task],
    store: Store,
    *,
    data: str | Dataset | None = None,
    root: str | Path | None = None,
    n: int | None = None,
    balanced: bool = False,
    seed: int = 0,
    partial: bool = False,
    commercial: bool = False,
) -> Plan:
    """Load what is needed, match classes by name, and see which rows are missing.

    A task whose classes a model does not know is skipped by name; where nothing at all is left for a
    model, that is an error.

    Args:
        models: specs or classifiers; ``None``: the suite's own.
        suite: name, object or list of tasks.
        store: where results are kept.
        data: replaces the dataset of every task whose classes the model knows.
        root: where the dataset lies, of which there must be one; of several, each lies in ``$ARESBENCH_DATA``.
        n: how many images of each dataset's published order (a task's own smaller n stays).
        balanced: choose them class by class.
        seed: of all random draws.
        partial: accept datasets that are there in part, under names of their own.
        commercial: leave out data that may not be used commercially, by name.

    Raises:
        AresError: no models, something named does not exist, or one root for several datasets.
    """
    tasks, named = tasks_of(suite)
    if models is None:
        models = list(named.models) if named else []
    if isinstance(models, str | Classifier | nn.Module):
        models = [models]
    if not models:
        raise SpecError("no model is named", "give one, e.g. timm:resnet50.a1_in1k, or see `aresbench list models`")
    shelf = Shelf(tasks, data, root, n, balanced, partial=partial, commercial=commercial)
    plan = Plan()
    for entry in models:
        try:
            shelf.models.append(_loaded(entry))
        except AresError as error:
            if len(models) == 1 or not isinstance(entry, str):
                raise
            plan.skipped += [Skipped(entry, task, str(error), True) for task in tasks]
    for model in shelf.models:
        _plan_model(plan, model, tasks, named, shelf, store, seed)
    return plan


def _loaded(entry: str | Classifier) -> Classifier:
    if isinstance(entry, str):
        return load_model(entry).eval()
    if isinstance(entry, Classifier):
        return entry
    raise ModelError(
        f"a {type(entry).__name__} does not say what its outputs mean",
        "wrap it: Classifier(module, mean=…, std=…, classes=[…], preprocessing=size)",
    )


def _plan_model(
    plan: Plan, model: Classifier, tasks: list[Task], suite: Suite | None, shelf: Shelf, store: Store, seed: int
) -> None:
    refusals: list[AresError] = []
    before = len(plan.cells)
    told: set[tuple[str, str]] = set()
    fingerprint = model.fingerprint
    own = suite is not None and model.name in suite.models  # the suite knows which of its models suits which data
    if shelf.override is not None:
        tasks = _for_these_data(model, tasks, shelf, shelf.override)
    for task in tasks:
        quiet = False
        try:
            whole = shelf.task_data(task) if shelf.override is None else shelf.override
            quiet = own
            class_map = class_map_for(model, whole)
            quiet = False
            data = shelf.cut(whole, task.n)
            for one in _from_each(task, whole, class_map, shelf):
                plan.cells.append(_plan_cell(model, fingerprint, one, suite, data, class_map, store, seed, shelf))
        except (DataError, ModelError) as error:
            refusals.append(error)
            reason = (task.dataset, str(error))
            if reason not in told and not quiet:
                told.add(reason)
                plan.skipped.append(Skipped(model.name, task, str(error), False))
    if len(plan.cells) == before and refusals:
        raise ModelError(f"no task suits {model.name}: {refusals[0].problem}", refusals[0].remedy)


def _from_each(task: Task, data: Dataset, class_map: ClassMap, shelf: Shelf) -> list[Task]:
    """A transfer ``from=each`` taken apart: one task for each of the run's models that answers these labels alike."""
    adversary = task.threat.adversary
    if adversary is None or adversary.surrogates != (EACH,):
        return [task]
    found = []
    for source in shelf.models:
        with suppress(DataError):
            if class_map_for(source, data).target == class_map.target:
                threat = replace(task.threat, adversary=replace(adversary, surrogates=(source.name,)))
                named = "" if task.name == task.threat.title else f"{task.name} from {source.name}"
                found.append(Task(task.dataset, threat, named, task.n))
    return found


def _for_these_data(model: Classifier, tasks: list[Task], shelf: Shelf, data: Dataset) -> list[Task]:
    """The threats of one of the suite's datasets, put to other data.

    Those of the suite's dataset of the same name, else of the first one whose classes the model knows, else
    of the suite's first: budgets that suit photographs are not those that suit digits.
    """
    names = list(dict.fromkeys(task.dataset for task in tasks))
    chosen = names[0]
    for name in names:
        if len(names) == 1 or name == data.name:
            chosen = name
            break
        try:
            class_map_for(model, shelf.task_data(next(t for t in tasks if t.dataset == name)))
        except DataError:
            continue
        chosen = name
        break
    return [replace(task, dataset=data.name) for task in tasks if task.dataset == chosen]


def _plan_cell(
    model: Classifier,
    fingerprint: str,
    task: Task,
    suite: Suite | None,
    data: Dataset,
    class_map: ClassMap,
    store: Store,
    seed: int,
    shelf: Shelf,
) -> Planned:
    threat = task.threat
    changes = tuple(map(_change, threat.changes))
    preprocessing = data.prepared_by(model.preprocessing)
    size = preprocessing.size if preprocessing is not None else ()
    for change in changes:
        change.require(*size)
    settings: dict[str, Any] = {
        str(asked): made.describe(*size) for asked, made in zip(threat.changes, changes, strict=True)
    }
    armed = None
    surrogates: dict[str, tuple[Classifier, ClassMap]] = {}
    if threat.adversary is not None:
        if data.accepted is not None:
            raise DataError(
                f"several labels count as right for an image of {data.name}: what would break it is not defined",
                "put the adversary on the dataset with one label an image",
            )
        armed = arm(threat.adversary)
        threat = replace(threat, adversary=armed.named)
        task = replace(task, threat=threat)
        settings.update(armed.settings)
        surrogates = _surrogates(armed.named.surrogates, data, class_map, shelf)
        settings.update({f"surrogate {spec}": other.fingerprint for spec, (other, _) in surrogates.items()})
    adversary = armed.plan if armed else None
    names = output_names(model, data, class_map)
    description = {
        "identity": {
            "model": {"name": model.name, "fingerprint": fingerprint},
            "dataset": data.name,
            "threat": str(threat),
            "protocol": {
                "preprocessing": preprocessing.describe() if preprocessing else None,
                "classes": class_map.describe(),
            },
            "settings": settings,
            "seed": seed,
        },
        "model": {"name": model.name, **model.card, "published": model.published},
        "dataset": {
            "name": data.name,
            "title": data.title,
            "parent": data.parent,
            "class_rule": data.class_rule,
            "corruption": list(data.corrupted_by) if data.corrupted_by else None,
            "classes": names,
            # what verdicts under another class rule need: the outputs behind each class, of a map that chooses or
            # merges outputs; and of data with fewer classes than the model, the outputs of these classes
            "outputs": [list(group) for group in class_map.outputs],
            "mask": [] if class_map.outputs or len(class_map.target) == len(names) else list(class_map.target),
        },
        "task": {
            "name": task.name,
            "threat": str(threat),
            "kind": threat.kind,
            "norm": adversary.ladder.norm if adversary else None,
            "rungs": [format_fraction(r) for r in adversary.ladder.marks] if adversary else [],
            "pinned": [format_fraction(r) for r in adversary.ladder.marks if r in adversary.ladder.pinned]
            if adversary
            else [],
            "attacks": list(adversary.attacks) if adversary else [],
            **_named(threat.changes),
        },
        "suite": suite.name if suite else None,
    }
    there = store.find(description)
    have = set() if there is None else set(there.images()["id"])
    # Of a cell not yet begun a range says it all: thousands of cells of 50,000 images each would fill the memory.
    missing = tuple(k for k, image_id in enumerate(data.ids) if image_id not in have) if have else range(len(data))
    return Planned(
        model,
        task,
        data,
        preprocessing,
        class_map,
        changes,
        adversary,
        armed.attacks if armed else {},
        tuple(surrogates.values()),
        fingerprint,
        store,
        description,
        missing,
        seed,
    )


def _change(asked: threats.Corruption | threats.Filter) -> Change:
    if isinstance(asked, threats.Filter):
        return make_filter(asked.name, asked.radius)
    return make_corruption(asked.name, asked.severity, asked.mode)


def _named(changes: Sequence[threats.Corruption | threats.Filter]) -> dict[str, Any]:
    """What tables and curves need to know of a task's changes."""
    corruptions = [change for change in changes if isinstance(change, threats.Corruption)]
    filters = [change for change in changes if isinstance(change, threats.Filter)]
    alone = len(changes) == 1
    return {
        "corruption": " + ".join(change.name for change in corruptions) or None,
        "severity": corruptions[0].severity if corruptions and alone else None,
        "mode": corruptions[0].mode if corruptions and alone else None,
        "filter": " + ".join(change.name for change in filters) or None,
        "radius": filters[0].radius if filters and alone else None,
    }


def _surrogates(
    specs: Sequence[str], data: Dataset, class_map: ClassMap, shelf: Shelf
) -> dict[str, tuple[Classifier, ClassMap]]:
    """The models a transfer searches on, which must answer the dataset's labels in the target's own order.

    Raises:
        ModelError: one does not.
    """
    found = {}
    for spec in specs:
        model = shelf.surrogate(spec)
        own = class_map_for(model, data)
        if own.target != class_map.target:
            raise ModelError(
                f"the surrogate {spec} numbers the classes of {data.name} differently from the model",
                "a surrogate must know the same classes in the same order",
            )
        found[spec] = (model, own)
    return found
