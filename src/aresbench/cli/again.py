"""Models and data of stored results, found again: by the names under which they were measured, or as the user says."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aresbench.cli.parser import count
from aresbench.core.errors import AresError, DataError, ModelError, SpecError

if TYPE_CHECKING:
    from aresbench.data.base import Dataset
    from aresbench.models.classifier import Classifier
    from aresbench.store import Cell


def add_sources(parser: Any) -> None:
    """Declare where model and data come from, the same for every verb that needs them again."""
    parser.add_argument("--model", metavar="SPEC", help="the model itself (default: by the name in the results)")
    parser.add_argument("--data", metavar="SPEC", help="the images themselves (default: by the name in the results)")
    parser.add_argument("--root", metavar="DIR", help="where the dataset lies")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, … (default: a GPU if there is one)")
    parser.add_argument("--batch", type=count, metavar="B", help="images in flight (default: what suits the machine)")


class Sources:
    """Models and datasets for many cells, each loaded once.

    Args:
        args: as ``add_sources`` declared them.
        cells: all that will be asked for.

    Raises:
        AresError: the model or dataset that the user names is not there, or several of the results could be meant.
    """

    def __init__(self, args: argparse.Namespace, cells: Iterable[Cell]) -> None:
        from aresbench.data.load import load_dataset
        from aresbench.models.load import load_model

        if args.root is not None and not Path(args.root).expanduser().exists():
            raise DataError(f"{args.root} does not exist", "give the folder or file in which the dataset lies")
        self.root = args.root
        self._models: dict[str, Classifier] = {}
        self._data: dict[str, Dataset] = {}
        identities = [cell.description["identity"] for cell in cells]
        if args.model is not None:
            model = load_model(args.model).eval()
            names = {str(identity["model"]["name"]) for identity in identities}
            self._models[_meant(model.name, names, "model")] = model
        if args.data is not None:
            data = load_dataset(args.data, args.root)
            names = {str(identity["dataset"]) for identity in identities}
            self._data[_meant(data.name, names, "dataset")] = data

    def model(self, cell: Cell) -> Classifier:
        """The model of a cell.

        Raises:
            ModelError: it cannot be found under the name in the results.
        """
        from aresbench.models.load import load_model

        name = str(cell.description["identity"]["model"]["name"])
        if name not in self._models:
            try:
                self._models[name] = load_model(name).eval()
            except AresError as error:
                raise ModelError(f"{name} cannot be loaded: {error.problem}", "say where it is: --model SPEC") from None
        return self._models[name]

    def data(self, cell: Cell) -> Dataset:
        """The dataset of a cell.

        Raises:
            DataError: it cannot be found under the name in the results.
        """
        from aresbench.data.load import load_dataset

        name = str(cell.description["identity"]["dataset"])
        if name not in self._data:
            try:
                self._data[name] = load_dataset(name, self.root)
            except AresError as error:
                raise DataError(f"{name} cannot be loaded: {error.problem}", "say where it is: --data SPEC") from None
        return self._data[name]


def _meant(name: str, known: set[str], what: str) -> str:
    """Which of the results' models or datasets the one that the user gives stands for."""
    if name in known or not known:
        return name
    if len(known) == 1:
        return next(iter(known))
    raise SpecError(
        f"the results are of {len(known)} {what}s, and {name} is none of them",
        f"they are {', '.join(sorted(known))}; pack those of one {what} alone",
    )
