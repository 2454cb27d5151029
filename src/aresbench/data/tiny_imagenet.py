"""Tiny-ImageNet and Tiny-ImageNet-C: 200 of ImageNet's classes at 64×64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, did_you_mean
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing
from aresbench.data.corrupted import ARCHIVES, COMMON, PublishedCorruption, check_dose, root_of, severity_folder
from aresbench.data.imagenet_c import files_of, incomplete
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid
from aresbench.data.jpeg_files import published_jpegs
from aresbench.data.local import is_picture

_TOTAL, _PER_CLASS = 10_000, 50

# Sorted, the order in which folders are read; ``wnids.txt`` of the archive has another order.
WNIDS = (
    *("n01443537", "n01629819", "n01641577", "n01644900", "n01698640", "n01742172", "n01768244", "n01770393"),
    *("n01774384", "n01774750", "n01784675", "n01855672", "n01882714", "n01910747", "n01917289", "n01944390"),
    *("n01945685", "n01950731", "n01983481", "n01984695", "n02002724", "n02056570", "n02058221", "n02074367"),
    *("n02085620", "n02094433", "n02099601", "n02099712", "n02106662", "n02113799", "n02123045", "n02123394"),
    *("n02124075", "n02125311", "n02129165", "n02132136", "n02165456", "n02190166", "n02206856", "n02226429"),
    *("n02231487", "n02233338", "n02236044", "n02268443", "n02279972", "n02281406", "n02321529", "n02364673"),
    *("n02395406", "n02403003", "n02410509", "n02415577", "n02423022", "n02437312", "n02480495", "n02481823"),
    *("n02486410", "n02504458", "n02509815", "n02666196", "n02669723", "n02699494", "n02730930", "n02769748"),
    *("n02788148", "n02791270", "n02793495", "n02795169", "n02802426", "n02808440", "n02814533", "n02814860"),
    *("n02815834", "n02823428", "n02837789", "n02841315", "n02843684", "n02883205", "n02892201", "n02906734"),
    *("n02909870", "n02917067", "n02927161", "n02948072", "n02950826", "n02963159", "n02977058", "n02988304"),
    *("n02999410", "n03014705", "n03026506", "n03042490", "n03085013", "n03089624", "n03100240", "n03126707"),
    *("n03160309", "n03179701", "n03201208", "n03250847", "n03255030", "n03355925", "n03388043", "n03393912"),
    *("n03400231", "n03404251", "n03424325", "n03444034", "n03447447", "n03544143", "n03584254", "n03599486"),
    *("n03617480", "n03637318", "n03649909", "n03662601", "n03670208", "n03706229", "n03733131", "n03763968"),
    *("n03770439", "n03796401", "n03804744", "n03814639", "n03837869", "n03838899", "n03854065", "n03891332"),
    *("n03902125", "n03930313", "n03937543", "n03970156", "n03976657", "n03977966", "n03980874", "n03983396"),
    *("n03992509", "n04008634", "n04023962", "n04067472", "n04070727", "n04074963", "n04099969", "n04118538"),
    *("n04133789", "n04146614", "n04149813", "n04179913", "n04251144", "n04254777", "n04259630", "n04265275"),
    *("n04275548", "n04285008", "n04311004", "n04328186", "n04356056", "n04366367", "n04371430", "n04376876"),
    *("n04398044", "n04399382", "n04417672", "n04456115", "n04465501", "n04486054", "n04487081", "n04501370"),
    *("n04507155", "n04532106", "n04532670", "n04540053", "n04560804", "n04562935", "n04596742", "n04597913"),
    *("n06596364", "n07579787", "n07583066", "n07614500", "n07615774", "n07695742", "n07711569", "n07715103"),
    *("n07720875", "n07734744", "n07747607", "n07749582", "n07753592", "n07768694", "n07871810", "n07873807"),
    *("n07875152", "n07920052", "n09193705", "n09246464", "n09256479", "n09332890", "n09428293", "n12267677"),
)


@cache
def tiny_imagenet_classes() -> Classes:
    """The 200 classes in the order of their wnids, with ImageNet's names."""
    names = imagenet_classes().names
    return Classes(tuple(names[index_of_wnid()[wnid]] for wnid in WNIDS), WNIDS)


@dataclass(frozen=True, eq=False, repr=False)
class TinyImageNet(Dataset):
    """Tiny-ImageNet's validation set: 10,000 photographs of 200 of ImageNet's classes at 64×64 (Le and Yang, 2015).

    Two layouts are read: as published, ``val/images/val_0.JPEG`` with ``val/val_annotations.txt``, and class folders
    ``val/<wnid>/`` (or ``val/<wnid>/images/``). Ids are the file names without ending.

    Two orders of the 200 classes are in use, that of sorted wnids and that of ``wnids.txt``. A model of 200 outputs
    must therefore name its classes: ``Classifier(module, classes=data.classes)`` where it was trained on sorted
    folders. A model of ImageNet's 1,000 classes is matched by wnid.

    Args:
        root: the folder ``tiny-imagenet-200`` or the one above it; by default ``$ARESBENCH_DATA/tiny-imagenet``.
    """

    title: ClassVar[str] = "Tiny-ImageNet"
    licence: ClassVar[str] = "none of its own; the photographs are ImageNet's: non-commercial research and education"
    terms: ClassVar[str] = "non-commercial"
    citation: ClassVar[str] = "Y. Le and X. Yang, Tiny ImageNet Visual Recognition Challenge, Stanford CS 231N, 2015"
    obtain: ClassVar[str] = (
        "download http://cs231n.stanford.edu/tiny-imagenet-200.zip and unpack it; then root=… or ARESBENCH_DATA"
    )
    image_size: ClassVar[str] = "64×64 RGB JPEG, taken as they are by a model of this size"
    ready_size: ClassVar[tuple[int, int] | None] = (64, 64)

    root: str | Path | None = None

    @property
    def standard(self) -> Classes:
        return imagenet_classes()

    def read(self) -> Listing:
        root = root_of(self.root, self.title, ("tiny-imagenet", "tiny-imagenet-200"), self.obtain)
        folder = next((p for p in (root / "tiny-imagenet-200/val", root / "val", root) if p.is_dir()), root)
        if (folder / "val_annotations.txt").is_file() and (folder / "images").is_dir():
            found = _annotated(folder, self.obtain)
        elif (folder / "images").is_dir() and not _class_folders(folder):
            raise DataError(
                f"{folder / 'images'} holds pictures without labels: there is no {folder / 'val_annotations.txt'}",
                f"restore the file: {self.obtain}",
            )
        else:
            found = _in_class_folders(folder, self.title, self.obtain)
            found = {image_id.rpartition("/")[2]: one for image_id, one in found.items()}
        _check_counts(folder, self.title, [label for label, _ in found.values()], self.obtain)
        return _listing("tiny-imagenet", found)

    def check(self, n: int | None = None) -> list[Flag]:
        return published_jpegs(files_of(self, n), self.title, (64, 64), None, self.obtain)


@dataclass(frozen=True, eq=False, repr=False)
class TinyImageNetC(PublishedCorruption):
    """One corruption of Tiny-ImageNet-C at one severity, from the published files (Hendrycks and Dietterich, 2019).

    10,000 JPEG files of 64×64 at ``<root>/<corruption>/<severity>/<wnid>/``. The authors drew them from ImageNet as
    Tiny-ImageNet was drawn, but anew: they are other photographs than ``tiny-imagenet``'s, so that accuracies compare
    as those of two samples and never image by image. As with ``tiny-imagenet``, a model of 200 outputs must name its
    classes.

    The folder ``frost`` of the first archive (Zenodo 2536630) holds 1,000 classes and is refused; the corrected copy
    is Zenodo 8206060.

    Args:
        corruption: one of the 19 names, e.g. ``fog``.
        severity: 1 to 5.
        root: the folder that holds the corruptions or the one above it; by default ``$ARESBENCH_DATA/tiny-imagenet-c``.
    """

    title: ClassVar[str] = "Tiny-ImageNet-C"
    licence: ClassVar[str] = "CC BY 4.0 (Zenodo); the photographs are ImageNet's: non-commercial research and education"
    terms: ClassVar[str] = "non-commercial"
    citation: ClassVar[str] = (
        "D. Hendrycks and T. Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and "
        "Perturbations, ICLR 2019, arXiv:1903.12261"
    )
    obtain: ClassVar[str] = (
        "download Tiny-ImageNet-C.tar from https://zenodo.org/records/8206060 (the corrected copy) and unpack it; "
        "then root=… or ARESBENCH_DATA"
    )
    image_size: ClassVar[str] = "64×64 RGB JPEG (quality 85, 4:2:0), taken as they are by a model of this size"
    ready_size: ClassVar[tuple[int, int] | None] = (64, 64)
    parent: ClassVar[str] = "tiny-imagenet"
    example: ClassVar[str] = "tiny-imagenet-c(corruption=fog, severity=3)"

    corruption: str
    severity: int
    root: str | Path | None = None

    @property
    def standard(self) -> Classes:
        return imagenet_classes()

    def read(self) -> Listing:
        check_dose(self.title, self.corruption, self.severity, COMMON)
        folder = severity_folder(self._folder(), self.title, self.corruption, self.severity, COMMON, self.obtain)
        found = _in_class_folders(folder, self.title, self.obtain)
        _check_counts(folder, self.title, [label for label, _ in found.values()], self.obtain)
        return _listing(f"tiny-imagenet-c/{self.corruption}/{self.severity}", found)

    def check(self, n: int | None = None) -> list[Flag]:
        needed = [name for archive, held in ARCHIVES.items() for name in held if archive != "extra"]
        return [
            *published_jpegs(files_of(self, n), self.title, (64, 64), 85, self.obtain),
            *incomplete(self._folder(), self.title, needed, COMMON),
        ]

    def _folder(self) -> Path:
        root = root_of(self.root, self.title, ("tiny-imagenet-c", "Tiny-ImageNet-C"), self.obtain)
        return root / "Tiny-ImageNet-C" if (root / "Tiny-ImageNet-C").is_dir() else root


def _class_folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name in index_of_wnid())


def _in_class_folders(folder: Path, title: str, restore: str) -> dict[str, tuple[int, Path]]:
    """``wnid/name`` → (label, file) of a tree of wnid folders, with or without a folder ``images`` in each."""
    label_of = {wnid: label for label, wnid in enumerate(WNIDS)}
    folders = _class_folders(folder)
    missing = [wnid for wnid in WNIDS if wnid not in {p.name for p in folders}]
    others = [p.name for p in folders if p.name not in label_of]
    if others:
        known = " (as in the frost of the first archive, Zenodo 2536630)" if folder.parent.name == "frost" else ""
        raise DataError(
            f"{folder} holds {len(folders)} class folders where {title} has {len(WNIDS)}{known}; {others[0]} is none "
            "of its classes",
            f"take the folder from the corrected copy: {restore}" if known else restore,
        )
    if missing:
        there = [p.name for p in folder.iterdir() if p.is_dir()]
        raise DataError(
            f"{folder} has {len(folders)} of {title}'s {len(WNIDS)} class folders; {missing[0]} is missing",
            f"{did_you_mean(missing[0], there)} {restore}".strip(),
        )
    found: dict[str, tuple[int, Path]] = {}
    for sub in folders:
        inside = sub / "images" if (sub / "images").is_dir() else sub
        for file in inside.iterdir():
            if is_picture(file.name):
                _add(found, f"{sub.name}/{file.stem}", label_of[sub.name], file)
    return found


def _annotated(folder: Path, restore: str) -> dict[str, tuple[int, Path]]:
    """id → (label, file) of the published layout, with its list of ``name wnid x y w h`` lines."""
    label_of = {wnid: label for label, wnid in enumerate(WNIDS)}
    path = folder / "val_annotations.txt"
    found: dict[str, tuple[int, Path]] = {}
    for n, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        words = line.split()
        if len(words) < 2 or words[1] not in label_of:
            raise DataError(f"{path}, line {n}: expected `val_0.JPEG n03444034 …`, found {line!r}", restore)
        _add(found, Path(words[0]).stem, label_of[words[1]], folder / "images" / words[0])
    lost = [image_id for image_id, (_, file) in found.items() if not file.is_file()]
    if lost:
        raise DataError(f"{len(lost)} pictures of {path} are not in {folder / 'images'}, e.g. {lost[0]}", restore)
    return found


def _add(found: dict[str, tuple[int, Path]], image_id: str, label: int, file: Path) -> None:
    if image_id in found:
        raise DataError(f"{image_id} is there twice: {found[image_id][1]} and {file}", "remove one of them")
    found[image_id] = (label, file)


def _check_counts(folder: Path, title: str, labels: Iterable[int], restore: str) -> None:
    counts = np.bincount(np.fromiter(labels, dtype=np.int64), minlength=len(WNIDS))
    wrong = np.flatnonzero(counts != _PER_CLASS)
    if len(wrong):
        raise DataError(
            f"{folder} has {counts.sum():,} of {title}'s {_TOTAL:,} images, {_PER_CLASS} of each class; "
            f"{WNIDS[wrong[0]]} has {counts[wrong[0]]}",
            f"{restore}; for a part of them use folder:/path",
        )


def _listing(name: str, found: dict[str, tuple[int, Path]]) -> Listing:
    return Listing(
        name=name,
        classes=tiny_imagenet_classes(),
        ids=tuple(found),
        labels=np.array([label for label, _ in found.values()], dtype=np.int64),
        images=[file for _, file in found.values()],
    )
