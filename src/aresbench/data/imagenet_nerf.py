"""ImageNet-V: objects rendered from viewpoints that mislead."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.errors import DataError, did_you_mean
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing
from aresbench.data.class_folders import dataset_folder, not_whole, some, subfolders, whole_or_part
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid
from aresbench.data.local import is_picture, relative_hint

# The renderings that the paper counts, and the lines of the list that circulates with them.
EDITIONS = {10_000: "", 10_093: "-10093"}
_NUMBERED = re.compile(r"\d+\.\d+\s*")  # the authors' working folders are called 1.10burger_2


@cache
def objects() -> dict[str, int]:
    """The 100 objects by the names of their folders → ImageNet class index (from the authors' evaluation)."""
    text = files("aresbench.data").joinpath("imagenet_v_objects.tsv").read_text("utf-8")
    index = index_of_wnid()
    return {name: index[wnid] for name, wnid in (line.split("\t") for line in text.splitlines())}


@dataclass(frozen=True, eq=False, repr=False)
class ImageNetV(Dataset):
    """10,000 renderings of 100 objects from viewpoints found to mislead classifiers (Dong et al., 2022).

    Not ImageNet-V2. Read from one folder per object (pictures at any depth), whose classes are those of the authors'
    evaluation, or from a list of ``path label`` lines. Ids are relative paths.

    Args:
        root: the folder of object folders, or that of the list's paths; by default ``$ARESBENCH_DATA/imagenet-v``.
        labels_file: the list; labels are class indices (0–999).
        partial: accept another number of images, under a name of its own.
    """

    title: ClassVar[str] = "ImageNet-V"
    licence: ClassVar[str] = "none given; objects from BlenderKit"
    citation: ClassVar[str] = (
        "Y. Dong et al., ViewFool: Evaluating the Robustness of Visual Recognition to Adversarial Viewpoints, "
        "NeurIPS 2022, arXiv:2210.03895"
    )
    obtain: ClassVar[str] = "ImageNet-V, linked from github.com/Heathcliff-saku/ViewFool_"
    image_size: ClassVar[str] = "RGB, 400×400, resized and cropped by a model's preprocessing"
    terms: ClassVar[str] = "unclear"
    standard_order: ClassVar[bool] = True
    known: ClassVar[dict[str, float]] = {"resnet50": 23.56, "resnet18": 15.15, "swin_base": 40.38, "mae_vith": 49.85}
    known_source: ClassVar[str] = "the authors' table: top-1 in %, bilinear 256, crop 224 for every model"

    root: str | Path | None = None
    labels_file: str | Path | None = None
    partial: bool = False

    def read(self) -> Listing:
        folder = dataset_folder(self.title, "imagenet-v", self.root, (), self.obtain)
        if self.labels_file is None:
            ids, labels = self._tree(folder)
        else:
            ids, labels = _listed(Path(self.labels_file).expanduser())
        if not ids:
            raise DataError(f"{folder} holds no picture of {self.title}", self.obtain)
        name = whole_or_part(self.title, "imagenet-v", ids, EDITIONS, self.partial)
        return Listing(name, imagenet_classes(), tuple(ids), np.array(labels), [folder / path for path in ids])

    def check(self, n: int | None = None) -> list[Flag]:
        return not_whole(self, *EDITIONS)

    def _tree(self, folder: Path) -> tuple[list[str], list[int]]:
        there = {p.name: _NUMBERED.sub("", p.name).strip() for p in subfolders(folder)}
        unknown = [name for name, plain in there.items() if plain not in objects()]
        if unknown:
            raise DataError(
                f"{folder} holds folders that are no object of {self.title}: {some(unknown)}",
                did_you_mean(unknown[0], objects()) or "root must hold its 100 object folders; for V2 use imagenet-v2",
            )
        missing = [name for name in objects() if name not in there.values()]
        if missing and not self.partial:
            raise DataError(
                f"{folder} has {len(there)} of {self.title}'s {len(objects())} objects; missing: {some(missing)}",
                "complete it, or say partial=True to go on without them under a name of its own",
            )
        ids: list[str] = []
        labels: list[int] = []
        for name, plain in there.items():
            pictures = sorted(p for p in (folder / name).rglob("*") if p.is_file() and is_picture(p.name))
            ids += [p.relative_to(folder).as_posix() for p in pictures]
            labels += [objects()[plain]] * len(pictures)
        return ids, labels


def _listed(path: Path) -> tuple[list[str], list[int]]:
    if not path.is_file():
        raise DataError(f"there is no list of labels {path}", relative_hint(path))
    ids: list[str] = []
    labels: list[int] = []
    for n, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not (label.isascii() and label.isdigit() and int(label) < 1000):
            raise DataError(f"{path}, line {n}: expected `path label` with a label from 0 to 999, found {line!r}")
        ids.append(name)
        labels.append(int(label))
    return ids, labels
