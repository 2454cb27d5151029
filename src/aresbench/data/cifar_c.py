"""CIFAR-10-C and CIFAR-100-C from their published arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, did_you_mean
from aresbench.core.flag import Flag
from aresbench.data import cifar, cifar100
from aresbench.data.arrays import open_labels, open_pictures
from aresbench.data.base import Listing
from aresbench.data.checksums import unlike_published
from aresbench.data.corrupted import COMMON, SEVERITIES, PublishedCorruption, check_dose, root_of

_IMAGES = 10_000  # of one severity: the test set

# The labels of the first ten test images, which no other order begins with.
_FIRST_10 = (3, 8, 8, 0, 6, 6, 1, 6, 3, 1)
_FIRST_100 = (49, 33, 72, 51, 71, 92, 15, 14, 23, 0)

# MD5 of the published files.
_PUBLISHED_10 = {
    "brightness": "0a81ef75e0b523c3383219c330a85d48",
    "contrast": "3c8262171c51307f916c30a3308235a8",
    "defocus_blur": "7d1322666342a0702b1957e92f6254bc",
    "elastic_transform": "9421657c6cd452429cf6ce96cc412b5f",
    "fog": "7b397314b5670f825465fbcd1f6e9ccd",
    "frost": "31f6ab3bce1d9934abfb0cc13656f141",
    "gaussian_blur": "c33370155bc9b055fb4a89113d3c559d",
    "gaussian_noise": "ecaf8b9a2399ffeda7680934c33405fd",
    "glass_blur": "7361fb4019269e02dbf6925f083e8629",
    "impulse_noise": "2090e01c83519ec51427e65116af6b1a",
    "jpeg_compression": "2b9cc4c864e0193bb64db8d7728f8187",
    "motion_blur": "fffa5f852ff7ad299cfe8a7643f090f4",
    "pixelate": "0f14f7e2db14288304e1de10df16832f",
    "saturate": "1cfae0964219c5102abbb883e538cc56",
    "shot_noise": "3a7239bb118894f013d9bf1984be7f11",
    "snow": "bb238de8555123da9c282dea23bd6e55",
    "spatter": "8a5a3903a7f8f65b59501a6093b4311e",
    "speckle_noise": "ef00b87611792b00df09c0b0237a1e30",
    "zoom_blur": "6ea8e63f1c5cdee1517533840641641b",
    "labels": "c439b113295ed5254878798ffe28fd54",
}
_PUBLISHED_100 = {
    "brightness": "f22d7195aecd6abb541e27fca230c171",
    "contrast": "322bb385f1d05154ee197ca16535f71e",
    "defocus_blur": "d923e3d9c585a27f0956e2f2ad832564",
    "elastic_transform": "a0792bd6581f6810878be71acedfc65a",
    "fog": "4efc7ebd5e82b028bdbe13048e3ea564",
    "frost": "3a39c6823bdfaa0bf8b12fe7004b8117",
    "gaussian_blur": "5204ba0d557839772ef5a4196a052c3e",
    "gaussian_noise": "ecc4d366eac432bdf25c024086f5e97d",
    "glass_blur": "0bf384f38e5ccbf8dd479d9059b913e1",
    "impulse_noise": "3b3c210ddfa0b5cb918ff4537a429fef",
    "jpeg_compression": "c851b7f1324e1d2ffddeb76920576d11",
    "motion_blur": "732a7e2e54152ff97c742d4c388c5516",
    "pixelate": "96c00c60f144539e14cffb02ddbd0640",
    "saturate": "c0697e9fdd646916a61e9c312c77bf6b",
    "shot_noise": "b0a1fa6e1e465a747c1b204b1914048a",
    "snow": "0237be164583af146b7b144e73b43465",
    "spatter": "12ccf41d62564d36e1f6a6ada5022728",
    "speckle_noise": "e3f215b1a0f9fd9fd6f0d1cf94a7ce99",
    "zoom_blur": "0204613400c034a81c4830d5df81cb82",
    "labels": "bb4026e9ce52996b95f439544568cdb2",
}


@dataclass(frozen=True, eq=False, repr=False)
class CIFAR10C(PublishedCorruption):
    """One corruption of CIFAR-10-C at one severity, from the published array (Hendrycks and Dietterich, 2019).

    CIFAR-10's test images, corrupted with the parameters for 32 pixels and stored without JPEG: rows
    10,000 · (severity − 1) onwards of ``<corruption>.npy``. Only the rows in use are read. Ids are those of
    ``cifar10``, so that results pair. Papers report the plain mean error over corruptions and severities.

    Args:
        corruption: one of the 19 names, e.g. ``fog``.
        severity: 1 to 5.
        root: the folder that holds the arrays or the one above it; by default ``$ARESBENCH_DATA/cifar10-c``.
    """

    title: ClassVar[str] = "CIFAR-10-C"
    licence: ClassVar[str] = "CC BY 4.0 (Zenodo), made from CIFAR-10, which has no explicit licence"
    terms: ClassVar[str] = "attribution"
    citation: ClassVar[str] = (
        "D. Hendrycks and T. Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and "
        "Perturbations, ICLR 2019, arXiv:1903.12261"
    )
    obtain: ClassVar[str] = (
        "download CIFAR-10-C.tar from https://zenodo.org/records/2535967 (2.9 GB) and unpack it; "
        "then root=… or ARESBENCH_DATA"
    )
    image_size: ClassVar[str] = "32×32 RGB"
    standard_order: ClassVar[bool] = True
    parent: ClassVar[str] = "cifar10"
    example: ClassVar[str] = "cifar10-c(corruption=fog, severity=3)"

    corruption: str
    severity: int
    root: str | Path | None = None

    def read(self) -> Listing:
        check_dose(self.title, self.corruption, self.severity, COMMON)
        return _read(
            self._folder(),
            "cifar10-c",
            self.title,
            self.corruption,
            self.severity,
            cifar.CLASSES,
            _FIRST_10,
            self.obtain,
        )

    def check(self, n: int | None = None) -> list[Flag]:
        folder = self._folder()
        published = {folder / f"{name}.npy": _PUBLISHED_10[name] for name in (self.corruption, "labels")}
        return unlike_published(published, self.title, self.obtain)

    def _folder(self) -> Path:
        root = root_of(self.root, self.title, ("cifar10-c", "CIFAR-10-C"), self.obtain)
        return root / "CIFAR-10-C" if (root / "CIFAR-10-C").is_dir() else root


@dataclass(frozen=True, eq=False, repr=False)
class CIFAR100C(PublishedCorruption):
    """One corruption of CIFAR-100-C at one severity, from the published array (Hendrycks and Dietterich, 2019).

    CIFAR-100's test images, corrupted with the parameters for 32 pixels and stored without JPEG: rows
    10,000 · (severity − 1) onwards of ``<corruption>.npy``. Only the rows in use are read. Ids are those of
    ``cifar100``, so that results pair.

    Args:
        corruption: one of the 19 names, e.g. ``fog``.
        severity: 1 to 5.
        root: the folder that holds the arrays or the one above it; by default ``$ARESBENCH_DATA/cifar100-c``.
    """

    title: ClassVar[str] = "CIFAR-100-C"
    licence: ClassVar[str] = "CC BY 4.0 (Zenodo), made from CIFAR-100, which has no explicit licence"
    terms: ClassVar[str] = "attribution"
    citation: ClassVar[str] = (
        "D. Hendrycks and T. Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and "
        "Perturbations, ICLR 2019, arXiv:1903.12261"
    )
    obtain: ClassVar[str] = (
        "download CIFAR-100-C.tar from https://zenodo.org/records/3555552 (2.9 GB) and unpack it; "
        "then root=… or ARESBENCH_DATA"
    )
    image_size: ClassVar[str] = "32×32 RGB"
    standard_order: ClassVar[bool] = True
    parent: ClassVar[str] = "cifar100"
    example: ClassVar[str] = "cifar100-c(corruption=fog, severity=3)"

    corruption: str
    severity: int
    root: str | Path | None = None

    def read(self) -> Listing:
        check_dose(self.title, self.corruption, self.severity, COMMON)
        folder, classes = self._folder(), cifar100.CLASSES
        return _read(folder, "cifar100-c", self.title, self.corruption, self.severity, classes, _FIRST_100, self.obtain)

    def check(self, n: int | None = None) -> list[Flag]:
        folder = self._folder()
        published = {folder / f"{name}.npy": _PUBLISHED_100[name] for name in (self.corruption, "labels")}
        return unlike_published(published, self.title, self.obtain)

    def _folder(self) -> Path:
        root = root_of(self.root, self.title, ("cifar100-c", "CIFAR-100-C"), self.obtain)
        return root / "CIFAR-100-C" if (root / "CIFAR-100-C").is_dir() else root


def _read(
    folder: Path,
    name: str,
    title: str,
    corruption: str,
    severity: int,
    classes: tuple[str, ...],
    first: tuple[int, ...],
    restore: str,
) -> Listing:
    total = len(SEVERITIES) * _IMAGES
    file = folder / f"{corruption}.npy"
    if not file.is_file():
        there = sorted(p.stem for p in folder.glob("*.npy") if p.stem != "labels")
        have = f"it has {', '.join(there)}" if there else "it has no .npy files"
        raise DataError(f"{folder} has no file {file.name}; {have}", did_you_mean(corruption, there) or restore)
    meaning = f"{len(SEVERITIES)} severities of {_IMAGES:,} images, the mildest first"
    x = open_pictures(file, title, total, 32, restore, meaning)
    labels = open_labels(folder / "labels.npy", total, restore).reshape(len(SEVERITIES), _IMAGES)
    if (labels != labels[0]).any():
        raise DataError(
            f"{folder / 'labels.npy'} is not the same {_IMAGES:,} labels five times, once for each severity",
            f"{restore}; images and labels in another order do not belong to each other",
        )
    counts = np.bincount(labels[0].clip(0), minlength=len(classes))
    if tuple(labels[0][: len(first)].tolist()) != first or (counts != _IMAGES // len(classes)).any():
        raise DataError(
            f"{folder / 'labels.npy'} does not hold the test labels of CIFAR in their published order: it begins with "
            f"{labels[0][: len(first)].tolist()}, published is {list(first)}",
            f"{restore}; check that it is not sorted, not coarse, and not of another CIFAR",
        )
    return Listing(
        name=f"{name}/{corruption}/{severity}",
        classes=Classes(classes),
        ids=tuple(f"test/{i:05d}" for i in range(_IMAGES)),
        labels=labels[0],
        images=x[(severity - 1) * _IMAGES : severity * _IMAGES],
    )
