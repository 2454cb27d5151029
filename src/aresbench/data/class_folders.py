"""Trees with one folder per class, as ImageNet's relatives are published, and what can be wrong with any of them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from aresbench.core.errors import DataError, did_you_mean
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset
from aresbench.data.local import given_folder, is_picture, shared_folder

LOOK_AT = 64  # pictures whose size is read; a set of mixed sizes shows itself in a handful


@dataclass(frozen=True)
class Found:
    """Pictures in class folders: ids, labels and files, one each."""

    ids: tuple[str, ...]
    labels: np.ndarray
    files: list[Path]

    def __len__(self) -> int:
        return len(self.ids)


def some(names: Iterable[str]) -> str:
    """The first three names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def dataset_folder(title: str, name: str, root: str | Path | None, inner: Collection[str], obtain: str) -> Path:
    """The folder that holds a dataset's class folders: ``root``, by default ``$ARESBENCH_DATA/name``, or within it.

    Args:
        title: what errors call the dataset.
        name: its folder in ``$ARESBENCH_DATA``.
        root: the folder that the user named.
        inner: folders to go down into where they exist, nearest first, as the published archives unpack to them.
        obtain: the remedy where there is no such folder.

    Raises:
        DataError: there is no such folder.
    """
    if root is not None:
        folder = given_folder(root)
    else:
        shared = shared_folder(name)
        if shared is None or not shared.is_dir():
            where = f"there is no folder {shared}" if shared else "neither root nor ARESBENCH_DATA is set"
            raise DataError(f"{title} is not on this machine: {where}", obtain)
        folder = shared
    return next((folder / path for path in inner if (folder / path).is_dir()), folder)


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def read_class_folders(
    title: str, folder: Path, label_of: Mapping[str, int], *, partial: bool, others: Collection[str] = ()
) -> Found:
    """The pictures of a tree whose folders are named by class; ids are relative paths.

    Args:
        title: what errors call the dataset.
        folder: holds the class folders.
        label_of: folder name → label; each must be there.
        partial: folders may be missing or empty.
        others: further folder names that may be there and are left alone.

    Raises:
        DataError: an unknown folder, a missing or an empty one, or no picture at all.
    """
    there = subfolders(folder)
    unknown = [p.name for p in there if p.name not in label_of and p.name not in others]
    if unknown:
        raise DataError(
            f"{folder} holds {len(unknown)} folders that are no class of {title}: {some(unknown)}",
            did_you_mean(unknown[0], label_of)
            or f"root must be the folder with {title}'s class folders; for other photographs use folder:/path",
        )
    there = [p for p in there if p.name in label_of]
    names = {p.name for p in there}
    missing = [name for name in label_of if name not in names]
    if missing and not partial:
        raise DataError(
            f"{folder} has {len(there)} of {title}'s {len(label_of)} class folders; missing: {some(missing)}",
            "complete it, or say partial=True to go on without them under a name of its own",
        )
    files: list[Path] = []
    labels: list[int] = []
    for sub in there:
        pictures = sorted(p for p in sub.iterdir() if is_picture(p.name))
        if not pictures and not partial:
            raise DataError(f"the class folder {sub} holds no picture", "complete it, or say partial=True")
        files += pictures
        labels += [label_of[sub.name]] * len(pictures)
    if not files:
        raise DataError(f"{folder} holds no picture of {title}")
    ids = tuple(f"{p.parent.name}/{p.name}" for p in files)
    return Found(ids, np.array(labels, dtype=np.int64), files)


def whole_or_part(title: str, name: str, ids: Collection[str], counts: Mapping[int, str], partial: bool) -> str:
    """The name of a dataset with these images: its own where it is whole, else one for just this part.

    Args:
        title: what errors call the dataset.
        name: of the whole.
        ids: the images at hand.
        counts: how many images the whole has → what to add to its name, where several editions are about.
        partial: other numbers of images are welcome.

    Raises:
        DataError: another number of images, and not ``partial``.
    """
    if len(ids) in counts:
        return name + counts[len(ids)]
    if not partial:
        published = " or ".join(f"{count:,}" for count in counts)
        raise DataError(
            f"there are {len(ids):,} images here; {title} has {published}",
            "restore the missing ones, remove what does not belong to it, "
            "or say partial=True to go on with these under a name of their own",
        )
    return f"{name}-part-{digest_of(ids)}"


def digest_of(ids: Collection[str]) -> str:
    """Eight hex digits that stand for a set of ids."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:8]


def sizes(data: Dataset, n: int | None = None) -> list[tuple[int, int]]:
    """(width, height) of the first pictures' files, in published order; unreadable ones are left out."""
    found = []
    for i in range(min(len(data), LOOK_AT if n is None else min(n, LOOK_AT))):
        source = data.source(i)
        try:
            if source is not None:
                with Image.open(source) as picture:
                    found.append(picture.size)
        except (OSError, ValueError, Image.DecompressionBombError):  # reported where every file is examined
            continue
    return found


def not_whole(data: Dataset, *published: int) -> list[Flag]:
    """Another number of files than the published set has."""
    here = len(data._listing.ids)
    if here in published:
        return []
    counts = " or ".join(f"{count:,}" for count in published)
    return [
        Flag(
            "not-the-whole-set",
            "info",
            "data",
            f"there are {here:,} images here; the published set has {counts}",
            "nothing to do if this is a part on purpose: its results carry a name of their own",
            {"images": here, "published": list(published)},
        )
    ]


def resized_copies(data: Dataset, n: int | None = None) -> list[Flag]:
    """Photographs of mixed sizes that all share one, or all one shorter side: somebody has resized them."""
    found = sizes(data, n)
    shorter = {min(size) for size in found}
    if len(found) < 8 or len(shorter) > 1:
        return []
    same = len(set(found)) == 1
    what = f"are {found[0][0]}×{found[0][1]}" if same else f"have a shorter side of {min(found[0])} pixels"
    return [
        Flag(
            "resized-copies",
            "warning",
            "data",
            f"all of {len(found)} pictures looked at {what}; {data.name} is published in mixed sizes",
            "accuracy moves by a point or more when pictures are resized twice; use the original files",
            {"looked_at": len(found), "size": list(found[0])},
        )
    ]
