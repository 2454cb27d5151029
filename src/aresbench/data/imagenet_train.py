"""ImageNet's training set, in class folders."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.errors import DataError, did_you_mean
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing
from aresbench.data.class_folders import dataset_folder, not_whole, resized_copies, some, subfolders, whole_or_part
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid
from aresbench.data.local import is_picture
from aresbench.data.spans import Files

TOTAL = 1_281_167
FEWEST, MOST = 732, 1_300  # images of a class
_AT_ONCE = 16  # folders listed at once: a disk in the network answers them together


@dataclass(frozen=True, eq=False, repr=False)
class ImageNetTrain(Dataset):
    """ImageNet's training set: 1,281,167 photographs of 1,000 classes (Russakovsky et al., 2015).

    Class folders ``train/<wnid>/n01440764_10026.JPEG``. Ids are folder and file name without ending
    (``n01440764/n01440764_10026``). Never a set to measure on: its images are what models have learned.

    Args:
        root: the ``train`` folder or its parent; by default ``$ARESBENCH_DATA/imagenet``.
        partial: accept a part of the classes or images, under a name of its own.
    """

    title: ClassVar[str] = "ImageNet (ILSVRC 2012 training)"
    licence: ClassVar[str] = "ImageNet terms of access: non-commercial research and education"
    citation: ClassVar[str] = (
        "O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015, arXiv:1409.0575"
    )
    obtain: ClassVar[str] = (
        "register at https://image-net.org, download ILSVRC2012_img_train.tar and unpack it and each class's archive "
        "in it into train/<wnid>/; then root=… or ARESBENCH_DATA"
    )
    image_size: ClassVar[str] = "RGB, about 500×375, cropped at random in training"
    terms: ClassVar[str] = "non-commercial"
    standard_order: ClassVar[bool] = True
    caution: ClassVar[str] = "models have learned these images: an accuracy on them says nothing"

    root: str | Path | None = None
    partial: bool = False

    def read(self) -> Listing:
        folder = dataset_folder("ImageNet's training set", "imagenet", self.root, ("train",), self.obtain)
        names, labels = find_images(folder, partial=self.partial)
        ids = tuple(name.rpartition(".")[0] for name in names)
        name = whole_or_part("ImageNet's training set", "imagenet-train", ids, {TOTAL: ""}, self.partial)
        return Listing(name=name, classes=imagenet_classes(), ids=ids, labels=labels, images=Files(folder, names))

    def check(self, n: int | None = None) -> list[Flag]:
        return not_whole(self, TOTAL) + resized_copies(self, n) + _class_sizes(self)


def find_images(folder: Path, *, partial: bool) -> tuple[list[str], np.ndarray]:
    """Relative paths and labels of the pictures in class folders, sorted.

    Args:
        folder: the ``train`` folder.
        partial: class folders may be missing or empty.

    Raises:
        DataError: an unknown, a missing or an empty class folder, or a picture of another name.
    """
    index = index_of_wnid()
    folders = subfolders(folder)
    unknown = [p.name for p in folders if p.name not in index]
    if unknown:
        raise DataError(
            f"{folder} holds folders that are no class of ImageNet-1k: {some(unknown)}",
            did_you_mean(unknown[0], index)
            or "root must be the train folder or its parent; for other photographs use folder:/path",
        )
    here = {p.name for p in folders}
    missing = [wnid for wnid in index if wnid not in here]
    if missing and not partial:
        raise DataError(
            f"{folder} has {len(here)} of ImageNet's {len(index)} class folders; missing: {some(missing)}",
            "complete it, or say partial=True to go on without them under a name of its own",
        )
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        listed = list(pool.map(_pictures, folders))
    for sub, pictures in zip(folders, listed, strict=True):
        if not pictures and not partial:
            raise DataError(f"the class folder {sub} holds no picture", "complete it, or say partial=True")
    names = [f"{sub.name}/{picture}" for sub, pictures in zip(folders, listed, strict=True) for picture in pictures]
    if not names:
        raise DataError(f"{folder} holds no picture of ImageNet's training set", ImageNetTrain.obtain)
    counts = [len(pictures) for pictures in listed]
    return names, np.repeat([index[sub.name] for sub in folders], counts).astype(np.int64)


def _pictures(folder: Path) -> list[str]:
    """The names of a class folder's pictures, sorted."""
    with os.scandir(folder) as entries:  # names alone: no file is looked at
        names = sorted(entry.name for entry in entries)
    pictures = [name for name in names if is_picture(name)]
    start = f"{folder.name}_"
    for name in pictures:
        if not (name.startswith(start) and name[len(start) :].partition(".")[0].isdigit()):
            raise DataError(
                f"{folder / name} is not named as ImageNet's training images are ({start}10026.JPEG …)",
                "remove it, or use folder:/path for another set of photographs",
            )
    return pictures


def _class_sizes(data: Dataset) -> list[Flag]:
    """Classes of a whole set that have more or fewer images than any has."""
    counts = Counter(data.labels.tolist())
    wrong = {k: n for k, n in counts.items() if not FEWEST <= n <= MOST}
    if not wrong or len(data) != TOTAL:
        return []
    first = min(wrong)
    return [
        Flag(
            "class-sizes",
            "error",
            "data",
            f"{len(wrong)} classes have fewer than {FEWEST} or more than {MOST:,} images, the first is "
            f"{data.classes.ids[first]} with {wrong[first]:,}: files lie in wrong folders",
            "unpack the archives of these classes again",
            {"classes": {data.classes.ids[k]: n for k, n in sorted(wrong.items())[:20]}},
        )
    ]
