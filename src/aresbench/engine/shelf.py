"""What a run takes down once and uses for many cells: datasets and surrogates, by spec."""

from __future__ import annotations

from pathlib import Path

from aresbench.core.errors import DataError
from aresbench.core.suite import Task
from aresbench.data.base import Dataset
from aresbench.data.licence import refuse_unless_commercial
from aresbench.data.load import load_dataset
from aresbench.models.classifier import Classifier
from aresbench.models.load import load_model


class Shelf:
    """Datasets and surrogates by spec, each loaded once."""

    def __init__(
        self,
        data: str | Dataset | None,
        root: str | Path | None,
        n: int | None,
        balanced: bool,
        only: bool,
        commercial: bool,
    ) -> None:
        self.root, self.n, self.balanced, self.commercial = root, n, balanced, commercial
        self.override = load_dataset(data, root) if isinstance(data, str) else data
        if self.override is not None and commercial:
            refuse_unless_commercial(self.override)
        self.only = only or self.override is not None
        self.models: list[Classifier] = []  # those of the run
        self._whole: dict[str, Dataset] = {}
        self._surrogates: dict[str, Classifier] = {}

    def task_data(self, task: Task) -> Dataset:
        """The task's own dataset, whole."""
        if task.dataset not in self._whole:
            root = None if self.override is not None else self.root
            self._whole[task.dataset] = load_dataset(task.dataset, root)
        if self.commercial:
            refuse_unless_commercial(self._whole[task.dataset])
        return self._whole[task.dataset]

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

        Of several datasets, one that is smaller than the user's n gives what it has; the table shows each n.
        """
        sizes = [size for size in (n, self.n) if size is not None]
        if not sizes:
            return whole
        if self.n is not None and self.n > len(whole) and n is None and self.only:
            raise DataError(f"{whole.name} has {len(whole)} images, {self.n} were asked for", "choose a smaller n")
        return whole.take(min(*sizes, len(whole)), self.balanced)
