"""ImageNet-A and -R, each 200 of ImageNet's classes, and ImageNet's own photographs of the same classes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, did_you_mean
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing
from aresbench.data.class_folders import (
    dataset_folder,
    digest_of,
    not_whole,
    read_class_folders,
    resized_copies,
    subfolders,
    whole_or_part,
)
from aresbench.data.imagenet import all_ids, check_counts, find_images, places, val_folder
from aresbench.data.imagenet_classes import imagenet_classes

RULES = ("subset", "full")


@cache
def subset_indices(letter: str) -> tuple[int, ...]:
    """The 200 class indices of ImageNet-A (``"A"``) or ImageNet-R (``"R"``), ascending: the mask on 1,000 logits."""
    text = files("aresbench.data").joinpath("imagenet_subsets.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines()]
    return tuple(int(index) for index, _, letters in rows if letter in letters)


@cache
def subset_classes(letter: str) -> Classes:
    """The 200 classes of ImageNet-A or -R, in the order of their wnids, as their class folders are sorted."""
    whole = imagenet_classes()
    chosen = subset_indices(letter)
    return Classes(tuple(whole.names[k] for k in chosen), tuple(whole.ids[k] for k in chosen))


class _Subset(Dataset):
    """Data of 200 of ImageNet's classes; the setting ``rule`` says among how many a model chooses."""

    _name: ClassVar[str]
    _letter: ClassVar[str]
    _count: ClassVar[int]
    rule: str

    @property
    def class_rule(self) -> str:  # type: ignore[override]  # a fact of other datasets, a setting of these
        if self.rule not in RULES:
            raise DataError(
                f"{self.title} has no rule {self.rule!r}",
                did_you_mean(self.rule, RULES) or "'subset' chooses among the 200 classes, 'full' among all 1,000",
            )
        return self.rule

    @property
    def standard(self) -> Classes:
        return imagenet_classes()

    @abstractmethod
    def _images(self, name: str) -> Listing:
        """The listing under this name of the whole."""

    def read(self) -> Listing:
        name = self._name + ("" if self.class_rule == "subset" else "-1000-way")
        return self._images(name)

    def check(self, n: int | None = None) -> list[Flag]:
        return not_whole(self, self._count) + resized_copies(self, n)


class _Photographs(_Subset):
    """ImageNet-A or -R themselves."""

    root: str | Path | None
    partial: bool

    def _images(self, name: str) -> Listing:
        classes = subset_classes(self._letter)
        folder = dataset_folder(self.title, self._name, self.root, (self._name,), self.obtain)
        _refuse_another_set(self.title, folder, classes.ids)
        label_of = {wnid: k for k, wnid in enumerate(classes.ids)}
        found = read_class_folders(self.title, folder, label_of, partial=self.partial)
        name = whole_or_part(self.title, name, found.ids, {self._count: ""}, self.partial)
        return Listing(name, classes, found.ids, found.labels, found.files)


def _refuse_another_set(title: str, folder: Path, own: Collection[str]) -> None:
    """Name the dataset that these class folders look like, where it is another one."""
    there = {p.name for p in subfolders(folder)}
    for other, wnids in (
        ("ImageNet-A", subset_classes("A").ids),
        ("ImageNet-R", subset_classes("R").ids),
        ("ImageNet or ImageNet-Sketch", imagenet_classes().ids),
    ):
        if there == set(wnids) != set(own):
            raise DataError(
                f"{folder} has the {len(there):,} class folders of {other}, not the {len(own)} of {title}",
                f"name the folder of {title}; ImageNet's own photographs of its classes are {title.lower()}-clean",
            )


class _Clean(_Subset):
    """ImageNet's validation photographs of the same classes."""

    root: str | Path | None
    labels_file: str | Path | None
    partial: bool

    def _images(self, name: str) -> Listing:
        classes = subset_classes(self._letter)
        indices = subset_indices(self._letter)
        folder = val_folder(self.root)
        wanted = dict(zip(classes.ids, indices, strict=True))
        found = find_images(folder, self.labels_file, wanted, partial=self.partial)
        positions = None
        if len(found) != self._count:
            if not self.partial:
                raise DataError(
                    f"{folder} has {len(found):,} of the {self._count:,} photographs of these classes",
                    "complete it, or say partial=True to go on without them under a name of its own",
                )
            # Which photographs are missing is not known, but where these stand among all 50,000 is.
            name, positions = f"{name}-part-{digest_of(found)}", places(found, all_ids())
        else:
            check_counts((label for label, _ in found.values()), indices)
        own = {index: k for k, index in enumerate(indices)}
        return Listing(
            name=name,
            classes=classes,
            ids=tuple(found),
            labels=np.array([own[label] for label, _ in found.values()], dtype=np.int64),
            images=[file for _, file in found.values()],
            positions=positions,
        )


@dataclass(frozen=True, eq=False, repr=False)
class ImageNetA(_Photographs):
    """7,500 natural photographs of 200 classes that a ResNet-50 gets wrong (Hendrycks et al., 2021).

    Chosen adversarially: torchvision's first ResNet-50 is right on none of them by construction. Officially a model
    chooses among the 200 classes alone; ``rule=full`` lets it choose among all 1,000, which is harder.

    Args:
        root: the folder of class folders or its parent; by default ``$ARESBENCH_DATA/imagenet-a``.
        rule: ``"subset"`` (official) or ``"full"``.
        partial: accept another number of images, under a name of its own.
    """

    title: ClassVar[str] = "ImageNet-A"
    licence: ClassVar[str] = "code MIT; photographs from iNaturalist, Flickr and others, rights with their authors"
    citation: ClassVar[str] = "D. Hendrycks et al., Natural Adversarial Examples, CVPR 2021, arXiv:1907.07174"
    obtain: ClassVar[str] = "imagenet-a.tar, linked from github.com/hendrycks/natural-adv-examples (about 690 MB)"
    image_size: ClassVar[str] = "RGB, many sizes, resized and cropped by a model's preprocessing"
    terms: ClassVar[str] = "unclear"
    parent: ClassVar[str] = "imagenet-a-clean"
    known: ClassVar[dict[str, float]] = {
        "resnet50.tv_in1k": 0.0,
        "resnet18.tv_in1k": 1.120,
        "resnet50.a1_in1k": 9.973,
        "convnext_base.fb_in1k": 36.693,
        "vit_base_patch16_224.augreg_in1k": 14.907,
    }
    known_source: ClassVar[str] = (
        "timm's published results: top-1 in % among 200 classes, 224 pixels, own crop; "
        "resnet50.tv_in1k by construction of the data"
    )
    _name: ClassVar[str] = "imagenet-a"
    _letter: ClassVar[str] = "A"
    _count: ClassVar[int] = 7_500

    root: str | Path | None = None
    rule: str = "subset"
    partial: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class ImageNetR(_Photographs):
    """30,000 paintings, toys, tattoos and other renditions of 200 classes (Hendrycks et al., 2021).

    Compare with ``imagenet-r-clean``, the photographs of the same classes, not with all of ImageNet.

    Args:
        root: the folder of class folders or its parent; by default ``$ARESBENCH_DATA/imagenet-r``.
        rule: ``"subset"`` (official: a model chooses among the 200 classes) or ``"full"`` (among all 1,000).
        partial: accept another number of images, under a name of its own.
    """

    title: ClassVar[str] = "ImageNet-R"
    licence: ClassVar[str] = "code MIT; works of art and photographs from the web, rights with their authors"
    citation: ClassVar[str] = "D. Hendrycks et al., The Many Faces of Robustness, ICCV 2021, arXiv:2006.16241"
    obtain: ClassVar[str] = "imagenet-r.tar, linked from github.com/hendrycks/imagenet-r (about 2 GB)"
    image_size: ClassVar[str] = "RGB, many sizes, resized and cropped by a model's preprocessing"
    terms: ClassVar[str] = "unclear"
    parent: ClassVar[str] = "imagenet-r-clean"
    known: ClassVar[dict[str, float]] = {
        "resnet50.tv_in1k": 36.157,
        "resnet18.tv_in1k": 33.023,
        "resnet50.a1_in1k": 40.417,
        "convnext_base.fb_in1k": 51.250,
        "vit_base_patch16_224.augreg_in1k": 38.140,
    }
    known_source: ClassVar[str] = "timm's published results: top-1 in % among 200 classes, 224 pixels, own crop"
    _name: ClassVar[str] = "imagenet-r"
    _letter: ClassVar[str] = "R"
    _count: ClassVar[int] = 30_000

    root: str | Path | None = None
    rule: str = "subset"
    partial: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class ImageNetAClean(_Clean):
    """ImageNet's 10,000 validation photographs of the 200 classes of ImageNet-A, under the same mask.

    What ImageNet-A's accuracy is compared with. The 200 class folders of ImageNet are enough.

    Args:
        root: ImageNet's ``val`` folder or its parent; by default ``$ARESBENCH_DATA/imagenet``.
        rule: ``"subset"`` or ``"full"``, as for ``imagenet-a``.
        labels_file: the list of a flat folder, as for ``imagenet``.
        partial: accept a part of the photographs, under a name of its own.
    """

    title: ClassVar[str] = "ImageNet, the classes of ImageNet-A"
    licence: ClassVar[str] = "ImageNet terms of access: non-commercial research and education"
    citation: ClassVar[str] = (
        "O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015, arXiv:1409.0575"
    )
    obtain: ClassVar[str] = "as for imagenet; nothing else is needed"
    image_size: ClassVar[str] = "RGB, about 500×375, resized and cropped by a model's preprocessing"
    terms: ClassVar[str] = "non-commercial"
    known: ClassVar[dict[str, float]] = {
        "resnet50.tv_in1k": 91.890,
        "resnet18.tv_in1k": 87.380,
        "resnet50.a1_in1k": 94.410,
        "convnext_base.fb_in1k": 96.440,
        "vit_base_patch16_224.augreg_in1k": 93.630,
    }
    known_source: ClassVar[str] = "timm's published results: top-1 in % among 200 classes, 224 pixels, own crop"
    _name: ClassVar[str] = "imagenet-a-clean"
    _letter: ClassVar[str] = "A"
    _count: ClassVar[int] = 10_000

    root: str | Path | None = None
    rule: str = "subset"
    labels_file: str | Path | None = None
    partial: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class ImageNetRClean(_Clean):
    """ImageNet's 10,000 validation photographs of the 200 classes of ImageNet-R, under the same mask.

    What ImageNet-R's accuracy is compared with. The 200 class folders of ImageNet are enough.

    Args:
        root: ImageNet's ``val`` folder or its parent; by default ``$ARESBENCH_DATA/imagenet``.
        rule: ``"subset"`` or ``"full"``, as for ``imagenet-r``.
        labels_file: the list of a flat folder, as for ``imagenet``.
        partial: accept a part of the photographs, under a name of its own.
    """

    title: ClassVar[str] = "ImageNet, the classes of ImageNet-R"
    licence: ClassVar[str] = "ImageNet terms of access: non-commercial research and education"
    citation: ClassVar[str] = (
        "O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015, arXiv:1409.0575"
    )
    obtain: ClassVar[str] = "as for imagenet; nothing else is needed"
    image_size: ClassVar[str] = "RGB, about 500×375, resized and cropped by a model's preprocessing"
    terms: ClassVar[str] = "non-commercial"
    known: ClassVar[dict[str, float]] = {
        "resnet50.tv_in1k": 92.150,
        "resnet18.tv_in1k": 88.200,
        "resnet50.a1_in1k": 93.960,
        "convnext_base.fb_in1k": 95.940,
        "vit_base_patch16_224.augreg_in1k": 93.340,
    }
    known_source: ClassVar[str] = "timm's published results: top-1 in % among 200 classes, 224 pixels, own crop"
    _name: ClassVar[str] = "imagenet-r-clean"
    _letter: ClassVar[str] = "R"
    _count: ClassVar[int] = 10_000

    root: str | Path | None = None
    rule: str = "subset"
    labels_file: str | Path | None = None
    partial: bool = False
