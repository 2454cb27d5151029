"""ImageNet-C and ImageNet-C̄ as published: pictures of 224×224 that are read without any resize."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing
from aresbench.data.corrupted import (
    ARCHIVES,
    COMMON,
    SEVERITIES,
    PublishedCorruption,
    check_dose,
    corruption_folders,
    root_of,
    severity_folder,
)
from aresbench.data.imagenet import ImageNet
from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.jpeg_files import published_jpegs

C_BAR = (
    *("blue_noise_sample", "brownish_noise", "caustic_refraction", "checkerboard_cutout", "cocentric_sine_waves"),
    *("inverse_sparkles", "perlin_noise", "plasma_noise", "single_frequency_greyscale", "sparkles"),
)


@dataclass(frozen=True, eq=False, repr=False)
class ImageNetC(PublishedCorruption):
    """One corruption of ImageNet-C at one severity, from the published files (Hendrycks and Dietterich, 2019).

    50,000 JPEG files of 224×224 at ``<root>/<corruption>/<severity>/<wnid>/``, or below the folder of their archive
    (``blur``, ``digital``, ``noise``, ``weather``, ``extra``). A model whose input is 224×224 takes them as they are:
    resizing them again changes errors by 0.7 to 4.4 points. The files were made once, from unknown draws, and saved
    as JPEG: ``corruption(fog, 3, mode=disk)`` on ``imagenet`` measures the same, but not the same pictures. Ids are
    ImageNet's, so that results pair with those of ``imagenet``.

    Args:
        corruption: one of the 19 names, e.g. ``fog``.
        severity: 1 to 5.
        root: the folder that holds the corruptions; by default ``$ARESBENCH_DATA/imagenet-c``.
        partial: accept a part of the 50,000 images, under a name of its own.
    """

    title: ClassVar[str] = "ImageNet-C"
    licence: ClassVar[str] = "CC BY 4.0 (Zenodo); the photographs are ImageNet's: non-commercial research and education"
    terms: ClassVar[str] = "non-commercial"
    citation: ClassVar[str] = (
        "D. Hendrycks and T. Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and "
        "Perturbations, ICLR 2019, arXiv:1903.12261"
    )
    obtain: ClassVar[str] = (
        "download blur.tar, digital.tar, noise.tar, weather.tar (and extra.tar) from "
        "https://zenodo.org/records/2235448 (75 GB), unpack them into one folder; then root=… or ARESBENCH_DATA"
    )
    image_size: ClassVar[str] = "224×224 RGB JPEG (quality 85, 4:2:0), taken as they are by a model of this size"
    known: ClassVar[dict[str, float]] = {"mCE of resnet50.tv_in1k": 76.7, "mean accuracy of resnet50.tv_in1k": 39.2}
    known_source: ClassVar[str] = "the paper's repository: all 15 corruptions and 5 severities, in %, AlexNet's mCE 100"
    standard_order: ClassVar[bool] = True
    ready_size: ClassVar[tuple[int, int] | None] = (224, 224)
    parent: ClassVar[str] = "imagenet"
    example: ClassVar[str] = "imagenet-c(corruption=fog, severity=3)"

    corruption: str
    severity: int
    root: str | Path | None = None
    partial: bool = False

    def read(self) -> Listing:
        check_dose(self.title, self.corruption, self.severity, COMMON)
        archive = next(name for name, held in ARCHIVES.items() if self.corruption in held)
        hint = f"it comes in {archive}.tar of https://zenodo.org/records/2235448"
        root = root_of(self.root, self.title, ("imagenet-c", "ImageNet-C"), self.obtain)
        folder = severity_folder(root, self.title, self.corruption, self.severity, COMMON, hint)
        return _listing(folder, f"imagenet-c/{self.corruption}/{self.severity}", self.partial)

    def check(self, n: int | None = None) -> list[Flag]:
        root = root_of(self.root, self.title, ("imagenet-c", "ImageNet-C"), self.obtain)
        needed = [name for archive, held in ARCHIVES.items() for name in held if archive != "extra"]
        restore = "take the files of https://zenodo.org/records/2235448 as they are, for this protocol"
        return [
            *published_jpegs(files_of(self, n), self.title, (224, 224), 85, restore),
            *incomplete(root, self.title, needed, COMMON),
        ]


@dataclass(frozen=True, eq=False, repr=False)
class ImageNetCBar(PublishedCorruption):
    """One corruption of ImageNet-C̄ at one severity: ten chosen to be unlike ImageNet-C's (Mintun et al., 2021).

    50,000 JPEG files of 224×224 at ``<root>/<corruption>/<severity>/<wnid>/``, read as ImageNet-C's: a model whose
    input is 224×224 takes them as they are. Ids are ImageNet's. The paper reports plain mean errors; files that the
    published generator makes in memory give other numbers.

    Args:
        corruption: one of the ten names, e.g. ``sparkles`` (``cocentric_sine_waves`` is spelled as published).
        severity: 1 to 5.
        root: the folder that holds the corruptions; by default ``$ARESBENCH_DATA/imagenet-c-bar``.
        partial: accept a part of the 50,000 images, under a name of its own.
    """

    title: ClassVar[str] = "ImageNet-C̄"
    licence: ClassVar[str] = (
        "MIT (the generator); the photographs are ImageNet's: non-commercial research and education"
    )
    terms: ClassVar[str] = "non-commercial"
    citation: ClassVar[str] = (
        "E. Mintun, A. Kirillov and S. Xie, On Interaction Between Augmentations and Corruptions in Natural Corruption "
        "Robustness, NeurIPS 2021, arXiv:2102.11273"
    )
    obtain: ClassVar[str] = (
        "download https://dl.fbaipublicfiles.com/inc_bar/imagenet_c_bar.tar.gz and unpack it; "
        "then root=… or ARESBENCH_DATA"
    )
    image_size: ClassVar[str] = "224×224 RGB JPEG (quality 85, 4:2:0), taken as they are by a model of this size"
    standard_order: ClassVar[bool] = True
    ready_size: ClassVar[tuple[int, int] | None] = (224, 224)
    parent: ClassVar[str] = "imagenet"
    example: ClassVar[str] = "imagenet-c-bar(corruption=sparkles, severity=3)"

    corruption: str
    severity: int
    root: str | Path | None = None
    partial: bool = False

    def read(self) -> Listing:
        check_dose(self.title, self.corruption, self.severity, C_BAR)
        root = root_of(self.root, self.title, ("imagenet-c-bar", "ImageNet-C-Bar"), self.obtain)
        folder = severity_folder(root, self.title, self.corruption, self.severity, C_BAR, self.obtain)
        return _listing(folder, f"imagenet-c-bar/{self.corruption}/{self.severity}", self.partial)

    def check(self, n: int | None = None) -> list[Flag]:
        root = root_of(self.root, self.title, ("imagenet-c-bar", "ImageNet-C-Bar"), self.obtain)
        return [
            *published_jpegs(files_of(self, n), self.title, (224, 224), 85, self.obtain),
            *incomplete(root, self.title, C_BAR, C_BAR),
        ]


def _listing(folder: Path, name: str, partial: bool) -> Listing:
    """ImageNet's images in a folder of the same layout, under another name."""
    listing = ImageNet(root=folder, partial=partial).read()
    # A whole set is 75 such listings at once: they share their ids, and make paths only when asked.
    ids = tuple(map(sys.intern, listing.ids))
    images = listing.images
    files = _Files(folder, ids, listing.labels)
    if files[0] == images[0] and all(path.name == f"{key}.JPEG" for path, key in zip(images, ids, strict=True)):
        images = files
    return replace(listing, name=name + listing.name.removeprefix("imagenet"), ids=ids, images=images)


class _Files(Sequence[Path]):
    """The files of ImageNet's images in class folders."""

    def __init__(self, folder: Path, ids: tuple[str, ...], labels: np.ndarray) -> None:
        self.folder, self.ids, self.labels = folder, ids, labels

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, k: Any) -> Any:  # one path; nobody asks for a slice
        return self.folder / imagenet_classes().ids[self.labels[k]] / f"{self.ids[k]}.JPEG"


def files_of(data: Dataset, n: int | None) -> list[Path]:
    """The files of the first n images, in published order."""
    count = len(data) if n is None else min(n, len(data))
    return [file for k in range(count) if (file := data.source(k)) is not None]


def incomplete(root: Path, title: str, needed: Collection[str], known: Collection[str]) -> list[Flag]:
    """A note where not all the folders are there that the set's summary numbers need."""
    found = corruption_folders(root, known)
    missing = [
        f"{name}/{severity}"
        for name in needed
        for severity in SEVERITIES
        if name not in found or not (found[name] / str(severity)).is_dir()
    ]
    if not missing:
        return []
    total = len(needed) * len(SEVERITIES)
    some = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
    return [
        Flag(
            "set-incomplete",
            "info",
            "data",
            f"{len(missing)} of the {total} folders of {title} are not there ({some})",
            "means over all corruptions need all of them; nothing to do for a single one",
            {"missing": missing},
        )
    ]
