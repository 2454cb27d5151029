"""CIFAR-100 with its 100 fine labels, from its published batch files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, did_you_mean
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing
from aresbench.data.checksums import unlike_published
from aresbench.data.cifar import batch_folder, read_batch

CLASSES = (
    *("apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy"),
    *("bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee"),
    *("clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant"),
    *("flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower"),
    *("leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom"),
    *("oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate"),
    *("poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark"),
    *("shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower"),
    *("sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor", "train", "trout", "tulip"),
    *("turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm"),
)
_SPLITS = {"test": 10_000, "train": 50_000}
_PUBLISHED = {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc", "train": "16019d7e3df5f24257cddd939b257f8d"}  # MD5


@dataclass(frozen=True, eq=False, repr=False)
class CIFAR100(Dataset):
    """60,000 small colour photographs of 100 classes, 10,000 of them for testing (Krizhevsky, 2009).

    Labels are the 100 fine ones, in alphabetical order as published. Read from local files first: the folder
    ``cifar-100-python`` in ``root``, in ``$ARESBENCH_DATA/cifar100`` or in the user's cache; else downloaded through
    torchvision. Ids are ``test/00017``, the places in the published files.

    Args:
        root: folder that holds ``cifar-100-python``, or that folder itself.
        split: ``"test"`` or ``"train"``.
    """

    title: ClassVar[str] = "CIFAR-100"
    licence: ClassVar[str] = "no explicit licence; free for research with citation"
    terms: ClassVar[str] = "unclear"
    citation: ClassVar[str] = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
    obtain: ClassVar[str] = "local files in root or ARESBENCH_DATA/cifar100, else downloaded by torchvision (169 MB)"
    image_size: ClassVar[str] = "32×32 RGB"
    standard_order: ClassVar[bool] = True

    root: str | Path | None = None
    split: str = "test"

    def read(self) -> Listing:
        if self.split not in _SPLITS:
            raise DataError(
                f"CIFAR-100 has no split {self.split!r}",
                did_you_mean(self.split, _SPLITS) or "use 'test' or 'train'",
            )
        x, y = read_batch(self._folder() / self.split, "CIFAR-100", "fine_labels", _SPLITS[self.split])
        return Listing(
            name="cifar100" if self.split == "test" else "cifar100-train",
            classes=Classes(CLASSES),
            ids=tuple(f"{self.split}/{i:05d}" for i in range(len(x))),
            labels=np.asarray(y),
            images=x,
        )

    def check(self, n: int | None = None) -> list[Flag]:
        return unlike_published({self._folder() / self.split: _PUBLISHED[self.split]}, "CIFAR-100", self.obtain)

    def _folder(self) -> Path:
        return batch_folder("CIFAR-100", "cifar100", self.root, "cifar-100-python", "test", _fetch)


def _fetch(folder: Path) -> None:
    from torchvision.datasets import CIFAR100 as Published

    Published(str(folder), train=False, download=True)
