"""ObjectNet, under three protocols."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, did_you_mean
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing
from aresbench.data.class_folders import dataset_folder, not_whole, read_class_folders, whole_or_part
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid

# Protocol → how many images it has when whole, and the rule by which a model chooses.
PROTOCOLS = {"official": (18_574, "full"), "sublist": (18_574, "subset"), "all-images": (50_273, "full")}
BORDER = 2
_LOOK_AT = 16


@dataclass(frozen=True)
class Kind:
    """One of ObjectNet's classes: its folder, its name, and the ImageNet classes (wnids) that count as it."""

    folder: str
    name: str
    wnids: tuple[str, ...]


@cache
def kinds() -> tuple[Kind, ...]:
    """ObjectNet's 313 classes in the order of its own label numbers, which is that of sorted *names*.

    The folders sort differently (``full_sized_towel`` is "Bath towel"), so that the place of a folder is not the
    number that ObjectNet's map from ImageNet speaks of: 138 of the 313 places differ.
    """
    text = files("aresbench.data").joinpath("objectnet_classes.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines()]
    return tuple(Kind(folder, name, tuple(wnids.split())) for folder, name, wnids in rows)


@dataclass(frozen=True, eq=False, repr=False)
class ObjectNet(Dataset):
    """Everyday objects photographed at home in odd poses, places and views; a test set only (Barbu et al., 2019).

    113 of its 313 classes are also ImageNet's, several of whose classes may count as one of them (a folding chair and
    a rocking chair are chairs). Three ways to measure are in use, and their numbers differ by points:

    * ``official``: images of the 113 classes; a model chooses among all its classes, and the choice is mapped: any of
      an object's classes is right, a class that is mapped to nothing is wrong.
    * ``sublist``: images of the 113 classes; a model chooses among them alone, each with the largest of its outputs.
    * ``all-images``: as official, over the images of all 313 classes: those of the 200 others are always wrong.

    Each picture loses two pixels at each side: they come with a red border.

    Args:
        root: ``objectnet-1.0``, its folder ``images`` or its parent; by default ``$ARESBENCH_DATA/objectnet``.
        protocol: ``"official"``, ``"sublist"`` or ``"all-images"``.
        partial: accept another number of images, or missing classes, under a name of its own.
    """

    title: ClassVar[str] = "ObjectNet"
    licence: ClassVar[str] = (
        "its own, derived from CC BY 4.0: also for commercial use; never to tune a model's parameters; single images "
        "are shown on the web only with their red border"
    )
    citation: ClassVar[str] = (
        "A. Barbu et al., ObjectNet: A large-scale bias-controlled dataset for pushing the limits of object "
        "recognition models, NeurIPS 2019"
    )
    obtain: ClassVar[str] = (
        "objectnet-1.0.zip from objectnet.dev/download.html (some 200 GB; the password stands on that page, "
        "with the licence)"
    )
    image_size: ClassVar[str] = "RGB PNG of several megapixels with a red border, cut off; then a model's preprocessing"
    terms: ClassVar[str] = "attribution"
    parent: ClassVar[str] = "imagenet"
    known: ClassVar[dict[str, float]] = {"resnet50.tv_in1k": 35.75}
    known_source: ClassVar[str] = "imagenet-testbed: top-1 in % under the protocol sublist, on 18,514 images"

    root: str | Path | None = None
    protocol: str = "official"
    partial: bool = False

    @property
    def class_rule(self) -> str:  # type: ignore[override]  # a fact of other datasets, a setting of this one
        return self._protocol[1]

    @property
    def standard(self) -> Classes:
        return imagenet_classes()

    @property
    def _protocol(self) -> tuple[int, str]:
        if self.protocol not in PROTOCOLS:
            raise DataError(
                f"{self.title} has no protocol {self.protocol!r}",
                did_you_mean(self.protocol, PROTOCOLS) or f"it has {', '.join(PROTOCOLS)}",
            )
        return PROTOCOLS[self.protocol]

    def read(self) -> Listing:
        count, _ = self._protocol
        inner = ("objectnet-1.0/images", "images")
        folder = dataset_folder(self.title, "objectnet", self.root, inner, self.obtain)
        chosen = [kind for kind in kinds() if kind.wnids or self.protocol == "all-images"]
        label_of = {kind.folder: k for k, kind in enumerate(chosen)}
        others = {kind.folder for kind in kinds()}
        found = read_class_folders(self.title, folder, label_of, partial=self.partial, others=others)
        name = whole_or_part(self.title, f"objectnet-{self.protocol}", found.ids, {count: ""}, self.partial)
        return Listing(name, classes_of(chosen), found.ids, found.labels, found.files)

    def picture(self, i: int) -> Image.Image:
        """Image ``i`` without its red border of two pixels.

        Raises:
            DataError: it cannot be read, or is nothing but border.
        """
        whole = super().picture(i)
        if min(whole.size) <= 2 * BORDER:
            raise DataError(f"image {self.ids[i]!r} of {self.name} is {whole.width}×{whole.height}: all border")
        return whole.crop((BORDER, BORDER, whole.width - BORDER, whole.height - BORDER))

    def check(self, n: int | None = None) -> list[Flag]:
        flags = not_whole(self, self._protocol[0])
        looked, red = 0, 0
        for i in range(min(len(self), _LOOK_AT if n is None else min(n, _LOOK_AT))):
            try:
                whole = super().picture(i)
            except DataError:  # reported where every file is examined
                continue
            looked += 1
            red += has_border(whole)
        if looked == 0 or red == looked:
            return flags
        return [
            *flags,
            Flag(
                "border-cut-off",
                "warning",
                "data",
                f"{looked - red} of {looked} pictures looked at have no red border: they were cropped or resized",
                "two pixels are cut off at each side in any case; use the published files, where they are the border",
                {"looked_at": looked, "without_border": looked - red},
            ),
        ]


def classes_of(chosen: list[Kind]) -> Classes:
    """The classes of an ObjectNet dataset, with the ImageNet classes that count as each."""
    index, whole = index_of_wnid(), imagenet_classes()
    members = tuple(Classes(tuple(whole.names[index[w]] for w in kind.wnids), kind.wnids) for kind in chosen)
    return Classes(tuple(kind.name for kind in chosen), members=members)


def has_border(picture: Image.Image) -> bool:
    """Whether the outermost pixels of a picture are all red."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.int64)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool(((edge[:, 0] > 200) & (edge[:, 1] < 60) & (edge[:, 2] < 60)).mean() > 0.95)
