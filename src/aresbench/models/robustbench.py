"""RobustBench's entries, read without torch: what each model is, and whether its weights are published.

``robustbench.tsv`` holds one line an entry, tabulated from RobustBench's boards (MIT licence, March 2025):

    name          dataset/threat/NAME, as after ``robustbench:``
    family … data how the leaderboard's own table of published figures has them
    paper, link   title and venue; where to read it
    clean         published accuracy on clean images in percent
    licence       of the weights
    prepare       of ImageNet's: interpolation, shorter side and crop in pixels; or ``squash`` or ``crop`` and a size
    files         how many checkpoint files there are; 0: the weights are torchvision's; empty: none are published
    verified      yes: what our loading gives was compared with what the package's own loading gives
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from aresbench.core.errors import UnknownName, did_you_mean
from aresbench.core.preprocessing import Preprocessing

TABLE = Path(__file__).with_name("robustbench.tsv")
TITLE = "RobustBench leaderboard"
_PROBABILITIES = (
    "Chen2020Adversarial",
    "Diffenderfer2021Winning_LRR_CARD_Deck",
    "Diffenderfer2021Winning_Binary_CARD_Deck",
)


@dataclass(frozen=True)
class Entry:
    """One entry of a board; the module says what its words mean."""

    name: str
    family: str
    architecture: str
    paradigm: str
    data: str
    paper: str
    link: str
    clean: float
    licence: str
    prepare: str
    files: int | None
    verified: bool

    @property
    def dataset(self) -> str:
        """Whose classes its outputs are: ``cifar10``, ``cifar100`` or ``imagenet``."""
        return self.name.partition("/")[0]

    @property
    def model(self) -> str:
        """The name without dataset and threat."""
        return self.name.rpartition("/")[2]

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes its input."""
        how, *pixels = self.prepare.split() or ("as it is", "32")
        size = (int(pixels[-1]),) * 2
        if how in ("as it is", "crop"):  # nothing is resized: the crop is for the user, see the notes
            return Preprocessing(size)
        if how == "squash":
            return Preprocessing(size, None, "bilinear", squash=True)
        return Preprocessing(size, int(pixels[0]), how)

    @property
    def summary(self) -> str:
        """One line: what it is, trained how and on what."""
        return f"{self.architecture}, {self.paradigm} on {self.data}."

    @property
    def notes(self) -> list[str]:
        """What a reader of its numbers must know."""
        notes = []
        if self.model in _PROBABILITIES:
            notes.append("an ensemble: its outputs are averaged probabilities, not logits")
        if self.prepare.startswith("crop"):
            size = self.preprocessing.size[0]
            notes.append(f"RobustBench cuts {size} pixels from the middle of the picture as it is: give such pictures")
        if not self.verified:
            notes.append("its architecture was never compared with what robustbench itself loads")
        return notes

    def facts(self) -> dict[str, Any]:
        """Its card, ready for JSON."""
        return {
            "family": self.family,
            "architecture": self.architecture,
            "paradigm": self.paradigm,
            "data": self.data,
            "weights": f"{self.model}.pt" if self.files else "torchvision:resnet50?weights=IMAGENET1K_V1",
            "preprocessing": self.preprocessing.describe(),
            "licence": self.licence,
            "paper": f"{self.paper}. {self.link}",
            "verified": self.verified,
            "notes": self.notes,
            "published": {"robustbench": {"clean": self.clean, "title": TITLE}},
        }


@cache
def _table() -> dict[str, Entry]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {row["name"]: _entry(row) for row in csv.DictReader(file, delimiter="\t")}


def _entry(row: dict[str, Any]) -> Entry:
    typed = {
        "clean": float(row["clean"]),
        "files": int(row["files"]) if row["files"] else None,
        "verified": row["verified"] == "yes",
    }
    return Entry(**{**row, **typed})


@cache
def entries() -> dict[str, Entry]:
    """Name → model, of all whose weights are published, in the table's order."""
    return {name: one for name, one in _table().items() if one.files is not None}


def entry(name: str) -> Entry:
    """The model of this name.

    Raises:
        UnknownName: there is none, or its weights are not published; the nearest right names are told.
    """
    if name in entries():
        return entries()[name]
    if name in _table():
        raise UnknownName(
            f"RobustBench has figures of {name}, and not its weights",
            "`aresbench list models 'robustbench:*'` shows the models that can be loaded",
        )
    spelled = {known.lower(): known for known in entries()}
    near = spelled.get(name.lower())
    raise UnknownName(
        f"RobustBench has no model called {name!r}",
        (f"did you mean {near!r}?" if near else did_you_mean(name, entries()))
        or "write robustbench:DATASET/THREAT/NAME; `aresbench list models 'robustbench:*'` shows them all",
    )
