"""ImageNet's validation set, in class folders or flat with a list of labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.errors import DataError, did_you_mean
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing, published_order
from aresbench.data.class_folders import dataset_folder, digest_of, not_whole, resized_copies, some, subfolders
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid
from aresbench.data.local import is_picture, relative_hint

TOTAL, CLASSES, PER_CLASS = 50_000, 1_000, 50
_ID = re.compile(r"ILSVRC2012_val_(\d{8})")
_FOLDER_REMEDY = "for another set of photographs, or a part of ImageNet under other names, use folder:/path"


def canonical(number: int) -> str:
    """The id of a validation image by its number, 1 to 50,000."""
    return f"ILSVRC2012_val_{number:08d}"


def _id_of(name: str) -> str:
    match = _ID.match(name)
    if match is None or not 1 <= int(match[1]) <= TOTAL:
        raise DataError(
            f"{name!r} is not a file name of ImageNet's validation set (ILSVRC2012_val_00000001.JPEG … 00050000)",
            _FOLDER_REMEDY,
        )
    return match[0]


@dataclass(frozen=True, eq=False, repr=False)
class ImageNet(Dataset):
    """ImageNet's validation set: 50,000 photographs of 1,000 classes (Russakovsky et al., 2015).

    Two layouts are read: class folders ``val/<wnid>/*.JPEG``, and a flat folder with a list of ``path label`` lines,
    whose labels are wnids or indices in the order of sorted wnids. Ids are the file names without ending
    (``ILSVRC2012_val_00000293``), the same in both.

    Args:
        root: the ``val`` folder or its parent; by default ``$ARESBENCH_DATA/imagenet``.
        labels_file: the list of a flat folder; by default ``val.txt`` in the folder or beside it.
        partial: accept a part of the 50,000 images. The images keep their places in the published order, and the
            dataset a name of its own, so that its numbers are never taken for those of the whole.
    """

    title: ClassVar[str] = "ImageNet (ILSVRC 2012 validation)"
    licence: ClassVar[str] = "ImageNet terms of access: non-commercial research and education"
    citation: ClassVar[str] = (
        "O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015, arXiv:1409.0575"
    )
    obtain: ClassVar[str] = (
        "register at https://image-net.org and download ILSVRC2012_img_val.tar; then root=… or ARESBENCH_DATA"
    )
    image_size: ClassVar[str] = "RGB, about 500×375, resized and cropped by a model's preprocessing"
    terms: ClassVar[str] = "non-commercial"
    standard_order: ClassVar[bool] = True
    known: ClassVar[dict[str, float]] = {
        "resnet50.tv_in1k": 76.156,
        "resnet18.tv_in1k": 69.752,
        "resnet50.a1_in1k": 80.382,
        "convnext_base.fb_in1k": 83.838,
        "vit_base_patch16_224.augreg_in1k": 79.154,
    }
    known_source: ClassVar[str] = "timm's published results: top-1 in %, 224 pixels, each model's own crop"

    root: str | Path | None = None
    labels_file: str | Path | None = None
    partial: bool = False

    def read(self) -> Listing:
        folder = val_folder(self.root)
        found = find_images(folder, self.labels_file, index_of_wnid(), partial=self.partial)
        name, positions = "imagenet", None
        if len(found) < TOTAL:
            if not self.partial:
                missing = (image_id for image_id in all_ids() if image_id not in found)
                raise DataError(
                    f"{folder} has {len(found):,} of ImageNet's {TOTAL:,} images; missing: {some(missing)}",
                    "complete it, or say partial=True to go on without them under a name of its own",
                )
            name, positions = f"imagenet-part-{digest_of(found)}", places(found, all_ids())
        else:
            check_counts((label for label, _ in found.values()), range(CLASSES))
        return Listing(
            name=name,
            classes=imagenet_classes(),
            ids=tuple(found),
            labels=np.array([label for label, _ in found.values()], dtype=np.int64),
            images=[file for _, file in found.values()],
            positions=positions,
        )

    def check(self, n: int | None = None) -> list[Flag]:
        return not_whole(self, TOTAL) + resized_copies(self, n)


def val_folder(root: str | Path | None) -> Path:
    """The ``val`` folder in ``root``, by default in ``$ARESBENCH_DATA/imagenet``.

    Raises:
        DataError: there is no such folder.
    """
    return dataset_folder("ImageNet", "imagenet", root, ("val",), ImageNet.obtain)


def all_ids() -> list[str]:
    """The ids of the 50,000 validation images, in the order of their numbers."""
    return [canonical(number) for number in range(1, TOTAL + 1)]


def number_of(image_id: str) -> int:
    """The number of a validation image, 1 to 50,000."""
    return int(image_id[-8:])


def places(ids: Iterable[str], whole: Sequence[str]) -> np.ndarray:
    """int64 [n]: the place of each of ``ids`` in the published order of ``whole``."""
    place = {whole[k]: rank for rank, k in enumerate(published_order(whole))}
    return np.array([place[image_id] for image_id in ids], dtype=np.int64)


def find_images(
    folder: Path, labels_file: str | Path | None, wanted: Mapping[str, int], *, partial: bool
) -> dict[str, tuple[int, Path]]:
    """The validation images of some classes, from class folders or from a flat folder with a list.

    Args:
        folder: the ``val`` folder.
        labels_file: the list of a flat folder; by default ``val.txt`` in the folder or beside it.
        wanted: wnid → class index of the classes to find; others are left alone.
        partial: class folders may be missing or empty, and listed labels too.

    Returns:
        id → (class index among ImageNet's, file).

    Raises:
        DataError: the files are not ImageNet's, or not all there.
    """
    folders = subfolders(folder)
    in_folders = folders and labels_file is None
    find = _tree(folder, folders, wanted, partial) if in_folders else _flat(folder, labels_file, wanted, partial)
    if not find:
        raise DataError(f"{folder} holds no picture of ImageNet's validation set", ImageNet.obtain)
    return find


def _tree(folder: Path, folders: list[Path], wanted: Mapping[str, int], partial: bool) -> dict[str, tuple[int, Path]]:
    """id → (label, file) of a tree of wnid folders."""
    index = index_of_wnid()
    names = {p.name for p in folders}
    unknown = [p.name for p in folders if p.name not in index]
    if unknown:
        raise DataError(
            f"{folder} holds folders that are no class of ImageNet-1k: {some(unknown)}",
            did_you_mean(unknown[0], index) or f"root must be the val folder or its parent; {_FOLDER_REMEDY}",
        )
    missing = [wnid for wnid in wanted if wnid not in names]
    if missing and not partial:
        there = len(wanted) - len(missing)
        raise DataError(
            f"{folder} has {there} of ImageNet's {len(wanted)} class folders; missing: {some(missing)}",
            f"complete it, or say partial=True; {_FOLDER_REMEDY}",
        )
    found: dict[str, tuple[int, Path]] = {}
    for sub in folders:
        if sub.name not in wanted:
            continue
        files = [p for p in sub.iterdir() if is_picture(p.name)]
        if not files and not partial:
            raise DataError(f"the class folder {sub} holds no picture", "complete it, or say partial=True")
        for file in files:
            _add(found, _id_of(file.name), wanted[sub.name], file)
    return found


def _flat(
    folder: Path, labels_file: str | Path | None, wanted: Mapping[str, int], partial: bool
) -> dict[str, tuple[int, Path]]:
    """id → (label, file) of a flat folder with a list."""
    files = {_id_of(p.name): p for p in sorted(folder.iterdir()) if is_picture(p.name)}
    if not files:
        raise DataError(f"{folder} holds no pictures", ImageNet.obtain)
    listed = read_labels(_list(folder, labels_file))
    unlabelled = [image_id for image_id in files if image_id not in listed]
    if unlabelled and not partial:
        raise DataError(
            f"the list of labels lacks {some(unlabelled)}",
            "complete the list, or say partial=True to leave them out",
        )
    labels = set(wanted.values())
    return {
        image_id: (label, files[image_id])
        for image_id, label in listed.items()
        if image_id in files and label in labels
    }


def _list(folder: Path, labels_file: str | Path | None) -> Path:
    if labels_file is not None:
        path = Path(labels_file).expanduser()
        if not path.is_file():
            raise DataError(f"there is no list of labels {path}", relative_hint(path))
        return path
    for path in (folder / "val.txt", folder.parent / "val.txt"):
        if path.is_file():
            return path
    raise DataError(
        f"{folder} is flat: its pictures lie in no class folders, and no list says their labels",
        "give labels_file=…, a file of lines `ILSVRC2012_val_00000001.JPEG n01751748` (or an index from 0 to 999)",
    )


def _add(found: dict[str, tuple[int, Path]], image_id: str, label: int, file: Path) -> None:
    if image_id in found:
        raise DataError(f"{image_id} is there twice: {found[image_id][1]} and {file}", "remove one of them")
    found[image_id] = (label, file)


def check_counts(labels: Iterable[int], wanted: Iterable[int]) -> None:
    """Refuse a whole set whose classes do not have 50 images each.

    Raises:
        DataError: the first such class is named.
    """
    counts = np.bincount(np.fromiter(labels, dtype=np.int64), minlength=CLASSES)
    wrong = [k for k in wanted if counts[k] != PER_CLASS]
    if wrong:
        wnid = imagenet_classes().ids[wrong[0]]
        raise DataError(
            f"{len(wrong)} classes do not have ImageNet's {PER_CLASS} validation images, "
            f"the first is {wnid} with {counts[wrong[0]]}",
            "files lie in wrong folders, or the list of labels is not ImageNet's",
        )


def read_labels(path: Path) -> dict[str, int]:
    """Read a list of labels: id → class index.

    Lines are ``path label`` with a wnid or an index in the order of sorted wnids (0–999). A list of bare labels says
    neither which image a line means nor, for numbers, in which of ImageNet's two orders the classes stand; it is read
    only when it has one wnid for each of the 50,000 images in file-name order.

    Raises:
        DataError: a line cannot be read, an image comes twice, or the list is ambiguous.
    """
    index = index_of_wnid()
    lines = [(n, line.split()) for n, line in enumerate(path.read_text("utf-8").splitlines(), 1) if line.strip()]
    if lines and all(len(words) == 1 for _, words in lines):
        if len(lines) != TOTAL or any(words[0] not in index for _, words in lines):
            raise DataError(
                f"{path} has one label per line and no file names: which image is meant is ambiguous, and so are "
                "numbers (ILSVRC's own ids 1–1000 are not the order of sorted wnids)",
                "write lines `ILSVRC2012_val_00000001.JPEG n01751748`",
            )
        lines = [(n, [canonical(k), words[0]]) for k, (n, words) in enumerate(lines, 1)]
    labels: dict[str, int] = {}
    for n, words in lines:
        if len(words) != 2:
            raise DataError(f"{path}, line {n}: expected `path label`, found {' '.join(words)!r}")
        image_id = _id_of(Path(words[0]).name)
        if image_id in labels:
            raise DataError(f"{path}, line {n}: {image_id} comes twice")
        labels[image_id] = _label(words[1], index, f"{path}, line {n}")
    return labels


def _label(text: str, index: dict[str, int], where: str) -> int:
    if text in index:
        return index[text]
    if text.isascii() and text.isdigit() and int(text) < CLASSES:
        return int(text)
    raise DataError(
        f"{where}: {text!r} is neither a wnid of ImageNet-1k nor an index from 0 to {CLASSES - 1}",
        did_you_mean(text, index) or "indices follow the sorted wnids; ILSVRC's own ids (1–1000) are another order",
    )
