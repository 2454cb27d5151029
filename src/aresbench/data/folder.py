"""Any photographs sorted into one folder per class."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, did_you_mean
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing, published_order
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid
from aresbench.data.local import given_folder, is_picture
from aresbench.data.spans import Files

_READ_FOR_NAME = 32
_SPLITS = {"train", "training", "val", "valid", "validation", "test"}


@dataclass(frozen=True, eq=False, repr=False)
class Folder(Dataset):
    """Your own pictures, one folder per class; classes meet a model's by name, never by folder order.

    A picture's class is the first folder below ``root``; ids are relative paths. Folders named by wnids get ImageNet's
    class names. A file ``classes.txt`` (lines ``folder name``, a tab between them where folders have spaces) or
    ``classes.json`` (folder → name) in ``root`` gives readable names, or wnids. Hidden files are ignored; files that
    are no pictures are ignored and counted in ``notes``.

    Args:
        root: the folder that holds the class folders.
    """

    title: ClassVar[str] = "A folder of pictures"
    licence: ClassVar[str] = "yours"
    terms: ClassVar[str] = "free"
    citation: ClassVar[str] = ""
    obtain: ClassVar[str] = "put pictures under /path/<class>/ and write folder:/path"
    image_size: ClassVar[str] = "any, resized and cropped by a model's preprocessing"

    root: str | Path

    def read(self) -> Listing:
        root = given_folder(self.root)
        folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not folders:
            loose = any(is_picture(p.name) for p in root.iterdir())
            what = "pictures but no class folders" if loose else "no class folders"
            raise DataError(f"{root} holds {what}", "put the pictures under one folder per class: /path/<class>/1.jpg")
        classes = _classes(root, folders)
        ids: list[str] = []
        labels: list[int] = []
        ignored = sum(1 for p in root.iterdir() if p.is_file() and not p.name.startswith(("classes.", ".")))
        for label, folder in enumerate(folders):
            pictures, others = _walk(root / folder)
            if not pictures:
                raise DataError(
                    f"the class folder {root / folder} holds no picture", "remove it, or put the pictures there"
                )
            ids += [p.relative_to(root).as_posix() for p in pictures]
            labels += [label] * len(pictures)
            ignored += others
        files = [root / image_id for image_id in ids]
        return Listing(
            name=f"folder-{_digest(ids, files)}",
            classes=classes,
            ids=tuple(ids),
            labels=np.array(labels, dtype=np.int64),
            images=Files(root, ids),
            notes=(f"{ignored} files that are no pictures were ignored",) if ignored else (),
        )

    def check(self, n: int | None = None) -> list[Flag]:
        root = given_folder(self.root)
        return _traps(sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")), root)


def _traps(folders: list[Path], root: Path) -> list[Flag]:
    """Folders that are no classes, and published sets that have a reader of their own."""
    names = [p.name for p in folders]
    if set(names) <= _SPLITS:
        return [
            Flag(
                "folders-are-splits",
                "error",
                "data",
                f"the classes here are called {', '.join(names)}: these look like parts of a dataset, not classes",
                f"name one of them: folder:{root / names[-1]}",
                {"folders": names},
            )
        ]
    if names == ["1", "2", "3", "4", "5"] and any(p.is_dir() for p in folders[0].iterdir()):
        return [
            Flag(
                "folders-are-severities",
                "error",
                "data",
                "the classes here are called 1 to 5 and hold folders: these look like severities of a corruption",
                f"imagenet-c(corruption={root.name}, severity=3):{root.parent} reads ImageNet-C; "
                f"for other pictures name one severity: folder:{root / '3'}",
            )
        ]
    if all(name.isdigit() for name in names) and names != sorted(names, key=int) and _given_names(root) is None:
        return [
            Flag(
                "folders-are-numbers",
                "warning",
                "data",
                f"the {len(names)} class folders are numbers without names: sorted as text they stand in another order "
                "(0, 1, 10, 100 …) than counted, and no model calls its classes so",
                "write the names into classes.txt, lines `folder name`; ImageNetV2 is read by imagenet-v2:/path",
                {"folders": len(names)},
            )
        ]
    first = next((p.name for p in folders[0].iterdir() if p.name.startswith("ILSVRC2012_val_")), None)
    if first is not None:
        return [
            Flag(
                "is-imagenet",
                "info",
                "data",
                f"these are pictures of ImageNet's validation set, or of a corrupted copy ({first})",
                "imagenet:/path and imagenet-c(corruption=…, severity=…):/path check that they are complete, and give "
                "them ids that pair with those of other sets",
            )
        ]
    return []


def _walk(folder: Path) -> tuple[list[Path], int]:
    """Pictures below a folder in the order of their paths, and how many other files there are."""
    pictures: list[Path] = []
    others = 0
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:  # a link back to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        visible = [f for f in files if not f.startswith(".")]
        chosen = [f for f in visible if is_picture(f)]
        pictures += [Path(where, f) for f in sorted(chosen)]
        others += len(visible) - len(chosen)
    return pictures, others


def _digest(ids: list[str], files: list[Path]) -> str:
    """What tells two folders apart: relative paths, file sizes, and the bytes of the first files in published order.

    Paths alone would not do: the severities of a corrupted dataset hold files of the same names.
    """
    digest = hashlib.sha256()
    for image_id, file in sorted(zip(ids, files, strict=True)):
        size = file.stat().st_size if file.exists() else -1  # a broken link is reported when it is read
        digest.update(f"{image_id}\0{size}\n".encode())
    for k in published_order(ids)[:_READ_FOR_NAME]:
        digest.update(files[k].read_bytes() if files[k].exists() else b"")
    return digest.hexdigest()[:8]


def _classes(root: Path, folders: list[str]) -> Classes:
    given = _given_names(root)
    names = folders
    if given is not None:
        path, mapping = given
        for folder in folders:
            if folder not in mapping:
                raise DataError(
                    f"{path} gives no name to the folder {folder!r}", did_you_mean(folder, mapping) or "add a line"
                )
        names = [mapping[folder] for folder in folders]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise DataError(f"{path} gives the name {twice[0]!r} to two folders", "each class needs a name of its own")
    index = index_of_wnid()
    if all(name in index for name in names):
        table = imagenet_classes()
        return Classes(tuple(table.names[index[name]] for name in names), tuple(names))
    ids = tuple(folders) if all(folder in index for folder in folders) else ()
    return Classes(tuple(names), ids)


def _given_names(root: Path) -> tuple[Path, dict[str, str]] | None:
    """The user's own map folder → name, where there is one."""
    paths = [p for p in (root / "classes.txt", root / "classes.json") if p.is_file()]
    if not paths:
        return None
    if len(paths) > 1:
        raise DataError(f"{root} has both classes.txt and classes.json", "keep one of them")
    path = paths[0]
    try:
        text = path.read_text("utf-8")
        mapping = json.loads(text) if path.suffix == ".json" else _read_lines(path, text)
    except ValueError as error:  # wrong encoding, or JSON that does not parse
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping.values()):
        raise DataError(f"{path} is no map from folder to name", 'write {"n01440764": "tench", …}')
    return path, mapping


def _read_lines(path: Path, text: str) -> dict[str, str]:
    mapping: dict[str, str] = {}
    for n, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        words = line.strip().split("\t" if "\t" in line else None, 1)
        if len(words) != 2:
            raise DataError(f"{path}, line {n}: expected `folder name`, found {line.strip()!r}")
        if words[0] in mapping:
            raise DataError(f"{path}, line {n}: the folder {words[0]!r} comes twice")
        mapping[words[0].strip()] = words[1].strip()
    return mapping
