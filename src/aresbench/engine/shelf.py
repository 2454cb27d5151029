"""What a run takes down once and uses for many cells: datasets and surrogates, by spec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aresbench.core.errors import DataError, SpecError
from aresbench.core.suite import Task
from aresbench.data.base import Dataset
from aresbench.data.licence import refuse_unless_commercial
from aresbench.data.load import dataset_name, load_dataset, takes
from aresbench.models.classifier import Classifier
from aresbench.models.load import load_model


class Shelf:
    """Datasets and surrogates by spec, each loaded once.

    Args:
        tasks: of the run.
        data: replaces their datasets.
        root: where the one dataset lies.
        n, balanced: how many images of each dataset, and whether class by class.
        partial: accept datasets that are there in part.
        commercial: refuse data that may not be used commercially.

    Raises:
        SpecError: one root for several datasets.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        data: str | Dataset | None,
        root: str | Path | None,
        n: int | None,
        balanced: bool,
        partial: bool,
        commercial: bool,
    ) -> None:
        self.root, self.n, self.balanced, self.partial, self.commercial = root, n, balanced, partial, commercial
        self.override = self._load(data, root) if isinstance(data, str) else data
        if self.override is not None and commercial:
            refuse_unless_commercial(self.override)
        if self.override is None and root is not None:
            _refuse_one_root_for_many(root, tasks)
        self.only = self.override is not None or len({task.dataset for task in tasks}) == 1
        self.models: list[Classifier] = []  # those of the run
        self._whole: dict[str, Dataset | DataError] = {}
        self._cut: dict[tuple[int, int], Dataset] = {}
        self._surrogates: dict[str, Classifier] = {}

    def task_data(self, task: Task) -> Dataset:
        """The task's own dataset, whole.

        Raises:
            DataError: it is not there, not whole, or may not be used commercially where that is asked for.
        """
        if task.dataset not in self._whole:
            try:
                self._whole[task.dataset] = self._load(task.dataset, None if self.override is not None else self.root)
            except DataError as error:  # remembered: to list 50,000 files again for every model and task takes hours
                self._whole[task.dataset] = error
        found = self._whole[task.dataset]
        if isinstance(found, DataError):
            raise found.with_traceback(None)
        if self.commercial:
            refuse_unless_commercial(found)
        return found

    def _load(self, spec: str, root: str | Path | None) -> Dataset:
        return load_dataset(spec, root, **{"partial": True} if self.partial and takes(spec, "partial") else {})

    def surrogate(self, spec: str) -> Classifier:
        """A model that transfers search on: one of the run's, or one of its own; many tasks may name the same."""
        for model in self.models:
            if model.name == spec:
                return model
        if spec not in self._surrogates:
            self._surrogates[spec] = load_model(spec).eval()
        return self._surrogates[spec]

    def cut(self, whole: Dataset, n: int | None) -> Dataset:
        """The images asked for, in published order; the user's n never extends a task's own.

        Of several datasets, one that is smaller than the user's n gives what it has; the table shows each n. Tasks that
        ask for the same images share one view.
        """
        sizes = [size for size in (n, self.n) if size is not None]
        if not sizes:
            return whole
        if self.n is not None and self.n > len(whole) and n is None and self.only:
            raise DataError(f"{whole.name} has {len(whole)} images, {self.n} were asked for", "choose a smaller n")
        key = id(whole), min(*sizes, len(whole))
        if key not in self._cut:
            self._cut[key] = whole.take(key[1], self.balanced)
        return self._cut[key]


def _refuse_one_root_for_many(root: str | Path, tasks: Sequence[Task]) -> None:
    names = list(dict.fromkeys(dataset_name(task.dataset) for task in tasks))
    if len(names) > 1:
        raise SpecError(
            f"root={str(root)!r} is where one dataset lies, and these tasks have {len(names)}: {', '.join(names)}",
            "set ARESBENCH_DATA to the folder that holds them all (`aresbench show NAME` says under what names), or "
            "choose one of them too, with data",
        )
