"""CIFAR-10.1: a second test set for CIFAR-10, from its published arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, did_you_mean
from aresbench.core.flag import Flag
from aresbench.data.arrays import open_labels, open_pictures
from aresbench.data.base import Dataset, Listing
from aresbench.data.cifar import CLASSES
from aresbench.data.corrupted import root_of

_COUNTS = {"v4": 2_021, "v6": 2_000}


@dataclass(frozen=True, eq=False, repr=False)
class CIFAR101(Dataset):
    """2,000 new photographs collected as CIFAR-10's test set was, a natural shift of it (Recht et al., 2018).

    Read from ``cifar10.1_v6_data.npy`` and ``cifar10.1_v6_labels.npy``. Version 6 has 200 images of each class and is
    the authors' recommendation; version 4, of the paper's first print, has 2,021. Ids are ``v6/00017``.

    Args:
        version: ``"v6"`` or ``"v4"``.
        root: the folder of the files or the one above it; by default ``$ARESBENCH_DATA/cifar10.1``.
    """

    title: ClassVar[str] = "CIFAR-10.1"
    licence: ClassVar[str] = (
        "MIT (the repository); the photographs come from 80 Million Tiny Images, which was withdrawn"
    )
    terms: ClassVar[str] = "unclear"
    citation: ClassVar[str] = (
        "B. Recht, R. Roelofs, L. Schmidt and V. Shankar, Do CIFAR-10 Classifiers Generalize to CIFAR-10?, 2018, "
        "arXiv:1806.00451; A. Torralba, R. Fergus and W. T. Freeman, 80 Million Tiny Images, IEEE TPAMI 2008"
    )
    obtain: ClassVar[str] = (
        "download the .npy files of https://github.com/modestyachts/CIFAR-10.1/tree/master/datasets; "
        "then root=… or ARESBENCH_DATA"
    )
    image_size: ClassVar[str] = "32×32 RGB"
    standard_order: ClassVar[bool] = True
    parent: ClassVar[str] = "cifar10"

    version: str = "v6"
    root: str | Path | None = None

    def read(self) -> Listing:
        if self.version not in _COUNTS:
            raise DataError(
                f"CIFAR-10.1 has no version {self.version!r}",
                did_you_mean(str(self.version), _COUNTS) or "use 'v6' or 'v4'",
            )
        root = root_of(self.root, self.title, ("cifar10.1", "CIFAR-10.1"), self.obtain)
        stem = f"cifar10.1_{self.version}"
        folder = root / "datasets" if (root / "datasets" / f"{stem}_data.npy").is_file() else root
        count = _COUNTS[self.version]
        x = open_pictures(folder / f"{stem}_data.npy", self.title, count, 32, self.obtain)
        return Listing(
            name="cifar10.1" if self.version == "v6" else f"cifar10.1-{self.version}",
            classes=Classes(CLASSES),
            ids=tuple(f"{self.version}/{i:05d}" for i in range(count)),
            labels=open_labels(folder / f"{stem}_labels.npy", count, self.obtain),
            images=x,
        )

    def check(self, n: int | None = None) -> list[Flag]:
        counts = np.bincount(self._listing.labels, minlength=len(CLASSES))
        if self.version != "v6" or (counts == 200).all():
            return []
        return [
            Flag(
                "class-counts",
                "error",
                "data",
                f"the classes have {counts.min()} to {counts.max()} images; version 6 has 200 of each",
                self.obtain,
                {"counts": counts.tolist()},
            )
        ]
