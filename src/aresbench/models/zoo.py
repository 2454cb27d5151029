"""The zoo's table, read without torch: what each model is, where its weights are, what was published of it."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from aresbench.core.errors import ModelError, UnknownName, did_you_mean
from aresbench.core.preprocessing import Preprocessing

TABLE = Path(__file__).with_name("zoo.toml")
FOLDER = "ARESBENCH_CHECKPOINTS"
"""The environment variable that names the folder of checkpoint files."""


@dataclass(frozen=True)
class Entry:
    """One model of the zoo; ``zoo.toml`` says what each of its words means.

    Args:
        name: as after ``zoo:``.
        dataset: whose classes its outputs are: ``imagenet`` or ``cifar10``.
        classes: how many outputs.
        preprocessing: the protocol's, the same for all models of a dataset.
        mean, std: per channel in [0,1] units.
        mirrors: full addresses of the checkpoint file, best first; empty for weights that timm fetches.
        own: size, crop and interpolation that timm gives these weights; empty for checkpoint files.
        published: source → what → percent.
    """

    name: str
    family: str
    architecture: str
    parameters: int
    paradigm: str
    data: str
    weights: str
    dataset: str
    classes: int
    preprocessing: Preprocessing
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    paper: str
    arguments: dict[str, Any] = field(default_factory=dict)
    layout: str = ""
    own: dict[str, Any] = field(default_factory=dict)
    mirrors: tuple[str, ...] = ()
    sha256: str = ""
    verified: bool = True
    choice: str = "paper"
    note: str = ""
    published: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def tag(self) -> str | None:
        """``name.tag`` of weights that timm fetches, ``None`` for a checkpoint file."""
        return self.weights.removeprefix("timm:") if self.weights.startswith("timm:") else None

    @property
    def summary(self) -> str:
        """One line: what it is, trained how and on what."""
        network = self.architecture.removeprefix("timm:") if self.architecture.startswith("timm:") else self.family
        return f"{network}, {self.parameters / 1e6:.1f} M parameters, {self.paradigm}, {self.data}."

    @property
    def notes(self) -> list[str]:
        """What a reader of its numbers must know."""
        notes = [self.note] if self.note else []
        if self.choice == "ours":
            notes.append(
                "stands for one of the journal version's six additions, whose names we do not know: our choice"
            )
        return notes

    def facts(self) -> dict[str, Any]:
        """Its card, ready for JSON."""
        return {
            "family": self.family,
            "architecture": self.architecture,
            "arguments": self.arguments,
            "parameters": self.parameters,
            "paradigm": self.paradigm,
            "data": self.data,
            "weights": self.weights,
            "mirrors": list(self.mirrors),
            "sha256": self.sha256,
            "preprocessing": self.preprocessing.describe(),
            "own_preprocessing": self.own,
            "mean": list(self.mean),
            "std": list(self.std),
            "licence": self.licence,
            "paper": self.paper,
            "choice": self.choice,
            "verified": self.verified,
            "notes": self.notes,
            "published": {name: numbers | sources()[name] for name, numbers in self.published.items()},
        }


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text("utf-8"))


@cache
def entries() -> dict[str, Entry]:
    """Name → model, in the table's order."""
    table = _table()
    return {name: _entry(name, row, table) for name, row in table["models"].items()}


def entry(name: str) -> Entry:
    """The model of this name.

    Raises:
        UnknownName: there is none; the nearest right names are told.
    """
    if name not in entries():
        hint = did_you_mean(name, entries()) or "`aresbench list models 'zoo:*'` shows them all"
        raise UnknownName(f"the zoo has no model called {name!r}", hint)
    return entries()[name]


def sources() -> dict[str, dict[str, str]]:
    """Where published numbers come from: source → title and protocol."""
    found: dict[str, dict[str, str]] = _table()["sources"]
    return found


def checkpoint_path(one: Entry) -> Path:
    """The checkpoint file of a model: in the folder that ``$ARESBENCH_CHECKPOINTS`` names, else downloaded.

    Raises:
        ModelError: it is not there and no mirror gives it; it says where the file was offered.
    """
    from aresbench.models.download import fetch, weights_folder

    named = os.environ.get(FOLDER, "")
    folder = Path(named).expanduser() if named else weights_folder()
    try:
        return fetch(one.mirrors, sha256=one.sha256, name=one.weights, folder=folder)
    except ModelError as error:
        places = " or ".join(one.mirrors)
        raise ModelError(
            f"zoo:{one.name} needs the file {one.weights}: {error.problem}",
            f"fetch it from {places}; put it under its name into a folder and set {FOLDER} to that folder, "
            f"or write zoo:{one.name}?file=/path/to/it",
        ) from error


def _entry(name: str, row: dict[str, Any], table: dict[str, Any]) -> Entry:
    """One row, with the words it uses looked up."""
    row = dict(row)
    protocol = table["protocols"][row.pop("protocol", "imagenet")]
    statistics = table["statistics"][row.pop("statistics")]
    bases = (mirror.split("/", 1) for mirror in row.pop("mirrors", ()))
    return Entry(
        name=name,
        dataset=protocol["dataset"],
        classes=protocol["classes"],
        preprocessing=Preprocessing(
            (protocol["size"], protocol["size"]), protocol.get("resize"), protocol.get("interpolation", "bicubic")
        ),
        mean=tuple(statistics["mean"]),
        std=tuple(statistics["std"]),
        paper=table["cite"][row.pop("cite")],
        mirrors=tuple(f"{table['mirrors'][base]}/{file}" for base, file in bases),
        **row,
    )
