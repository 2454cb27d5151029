"""ImageNet-V2, whose class folders are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.errors import DataError, did_you_mean
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing
from aresbench.data.class_folders import (
    Found,
    dataset_folder,
    not_whole,
    read_class_folders,
    resized_copies,
    subfolders,
    whole_or_part,
)
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid

# Variant → the names of its folder in and around the published archives.
VARIANTS = {
    "matched-frequency": ("imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency"),
    "threshold-0.7": ("imagenetv2-threshold0.7-format-val", "imagenetv2-threshold0.7", "imagenetv2-threshold-0.7"),
    "top-images": ("imagenetv2-top-images-format-val", "imagenetv2-top-images", "imagenetv2-topimages-format-val"),
}
_TOTAL, _PER_CLASS, _CLASSES = 10_000, 10, 1_000
_CERTAIN = 2  # known images that must agree before something is said to be wrong


@cache
def known_images(variant: str) -> Mapping[str, str]:
    """File name without ending → wnid, of 24 images of a variant (from the authors' own lists)."""
    text = files("aresbench.data").joinpath("imagenet_v2_images.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines()]
    return {name: wnid for of, name, wnid in rows if of == variant}


def string_sorted(label: int) -> int:
    """The label that a folder of this number gets when folder names are sorted as text: 0, 1, 10, 100, 101 …"""
    return sorted(range(_CLASSES), key=str).index(label)


@dataclass(frozen=True, eq=False, repr=False)
class ImageNetV2(Dataset):
    """10,000 new photographs of ImageNet's classes, collected as its own were (Recht et al., 2019).

    The class folders are named ``0`` to ``999``, the class indices. They are read as numbers: readers that sort them as
    text (0, 1, 10, 100, 101 …) get 988 of the 1,000 classes wrong. Folders that somebody has renamed to wnids are
    read too, and checked against images whose class is known. Ids are ``<class index>/<file name>`` in either case.

    Args:
        root: the variant's folder or its parent; by default ``$ARESBENCH_DATA/imagenet-v2``.
        variant: ``"matched-frequency"`` (the usual one), ``"threshold-0.7"`` or ``"top-images"``.
        partial: accept another number of images, under a name of its own.
    """

    title: ClassVar[str] = "ImageNet-V2"
    licence: ClassVar[str] = "code MIT; Flickr photographs, to be used as ImageNet itself: non-commercial research"
    citation: ClassVar[str] = (
        "B. Recht et al., Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019, arXiv:1902.10811"
    )
    obtain: ClassVar[str] = (
        "imagenetv2-matched-frequency.tar.gz (and the other two) from huggingface.co/datasets/vaishaal/ImageNetV2 "
        "(about 1.2 GB each)"
    )
    image_size: ClassVar[str] = "RGB, about 500×375, resized and cropped by a model's preprocessing"
    terms: ClassVar[str] = "non-commercial"
    standard_order: ClassVar[bool] = True
    parent: ClassVar[str] = "imagenet"
    known: ClassVar[dict[str, float]] = {
        "resnet50.tv_in1k": 63.19,
        "resnet18.tv_in1k": 57.35,
        "resnet50.a1_in1k": 68.47,
        "convnext_base.fb_in1k": 73.78,
        "vit_base_patch16_224.augreg_in1k": 66.34,
    }
    known_source: ClassVar[str] = "timm's published results: top-1 in % on matched-frequency, 224 pixels, own crop"

    root: str | Path | None = None
    variant: str = "matched-frequency"
    partial: bool = False

    def read(self) -> Listing:
        folder = self._folder()
        named = [p.name for p in subfolders(folder)]
        by_number = {name: int(name) for name in named if name.isascii() and name.isdigit()}
        all_numbers = named and len(by_number) == len(named)
        label_of = _numbers(folder, by_number) if all_numbers else index_of_wnid()
        found = read_class_folders(self.title, folder, label_of, partial=self.partial)
        ids = tuple(f"{label}/{file.name}" for label, file in zip(found.labels, found.files, strict=True))
        _refuse_wrong_classes(folder, found)
        self._refuse_another_variant(folder, found)
        name = whole_or_part(self.title, f"imagenet-v2-{self.variant}", ids, {_TOTAL: ""}, self.partial)
        if len(ids) == _TOTAL:
            _check_counts(folder, found.labels)
        return Listing(name, imagenet_classes(), ids, found.labels, found.files)

    def check(self, n: int | None = None) -> list[Flag]:
        flags = not_whole(self, _TOTAL) + resized_copies(self, n)
        wnids = self._listing.images[0].parent.name in index_of_wnid()  # type: ignore[union-attr]
        there = {i.split("/")[1].split(".")[0] for i in self._listing.ids} & known_images(self.variant).keys()
        if wnids and len(there) < _CERTAIN:
            flags.append(
                Flag(
                    "class-order-unknown",
                    "warning",
                    "data",
                    "the class folders were renamed from numbers to wnids, and no image is here whose class is known, "
                    "so nothing shows whether they were renamed in the order of numbers or of texts (0, 1, 10, 100 …)",
                    "unpack the published archive, whose folders are numbers",
                    {"known_images": len(there)},
                )
            )
        return flags

    def _folder(self) -> Path:
        if self.variant not in VARIANTS:
            raise DataError(
                f"{self.title} has no variant {self.variant!r}",
                did_you_mean(self.variant, VARIANTS) or f"it has {', '.join(VARIANTS)}",
            )
        own = VARIANTS[self.variant]
        inner = (*(f"{name}/{own[0]}" for name in own[1:]), *own)
        folder = dataset_folder(self.title, "imagenet-v2", self.root, inner, self.obtain)
        for variant, names in VARIANTS.items():
            if variant != self.variant and folder.name in names:
                raise DataError(
                    f"{folder} is the variant {variant} by its name, and {self.variant} was asked for",
                    f"write imagenet-v2(variant={variant}), or name the other folder",
                )
        if folder.name not in own and (others := [p.name for p in subfolders(folder) if p.name in _all_names()]):
            raise DataError(
                f"{folder} has no folder {own[0]}; it has {', '.join(others)}",
                "name the variant that is there, or complete it",
            )
        return folder

    def _refuse_another_variant(self, folder: Path, found: Found) -> None:
        there = {file.stem for file in found.files}
        hits = {variant: len(there & known_images(variant).keys()) for variant in VARIANTS}
        best = max(hits, key=lambda variant: hits[variant])
        if hits[self.variant] == 0 and hits[best] >= _CERTAIN:
            raise DataError(
                f"{folder} holds the images of {best}, not of {self.variant}",
                f"write imagenet-v2(variant={best}), or name the other folder",
            )


def _all_names() -> set[str]:
    return {name for names in VARIANTS.values() for name in names}


def _numbers(folder: Path, by_number: dict[str, int]) -> dict[str, int]:
    """Folder name → class index, where every folder is a number; the names of all 1,000 are filled in."""
    largest = max(by_number.values())
    if largest >= _CLASSES:
        raise DataError(
            f"{folder} has a class folder {largest}: {ImageNetV2.title}'s are 0 to 999",
            "unpack the published archive; folders that count from 1 are not its own",
        )
    if len(set(by_number.values())) < len(by_number):
        raise DataError(f"{folder} has a class folder twice, once with leading zeros", "remove one of them")
    there = set(by_number.values())
    return {**by_number, **{str(k): k for k in range(_CLASSES) if k not in there}}


def _refuse_wrong_classes(folder: Path, found: Found) -> None:
    """Hold images whose class is known against the folder they lie in."""
    index = index_of_wnid()
    truth = {name: index[wnid] for variant in VARIANTS for name, wnid in known_images(variant).items()}
    pairs = [
        (truth[file.stem], int(label), file)
        for label, file in zip(found.labels, found.files, strict=True)
        if file.stem in truth
    ]
    wrong = [(right, label, file) for right, label, file in pairs if right != label]
    if len(wrong) < _CERTAIN:
        return
    right, label, file = wrong[0]
    sorted_as_text = all(label == string_sorted(right) for right, label, _ in wrong)
    why = (
        "they were renamed in the order of texts (0, 1, 10, 100 …), not of numbers"
        if sorted_as_text
        else "the images do not lie in their own classes' folders"
    )
    raise DataError(
        f"the class folders of {folder} are wrong: {len(wrong)} of {len(pairs)} images whose class is known are not in "
        f"it; {file.name} is class {right}, and lies in the folder of class {label}; {why}",
        "unpack the published archive again and leave its folders 0 to 999 as they are",
    )


def _check_counts(folder: Path, labels: np.ndarray) -> None:
    counts = np.bincount(labels, minlength=_CLASSES)
    wrong = np.flatnonzero(counts != _PER_CLASS)
    if len(wrong):
        raise DataError(
            f"{len(wrong)} classes in {folder} do not have {_PER_CLASS} images, the first is {wrong[0]} "
            f"with {counts[wrong[0]]}",
            "files lie in wrong folders: unpack the published archive again",
        )
