"""Tar shards as WebDataset writes them: pictures and labels in a few hundred large files."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError
from aresbench.data.base import Dataset, Listing
from aresbench.data.class_folders import some
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid
from aresbench.data.local import is_picture, relative_hint
from aresbench.data.packed import INDEXES, kept_file, name_of, write_whole
from aresbench.data.spans import Spans, Texts

REVISION = 1  # raised when an index says other things
_AT_ONCE = 8
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_IMAGENET_KEY = re.compile(r"(n\d{8})_\d+")


@dataclass(frozen=True, eq=False, repr=False)
class Shards(Dataset):
    """Tar archives of pictures ``key.jpg`` with labels ``key.cls`` or ``key.json``, as WebDataset writes them.

    They are read at random, so that the order of images in training is as random as from a folder. For that the
    archives are looked through once (a minute or two for a million pictures on a fast disk); what was found is kept in
    the cache folder until a file changes. Ids are the keys
    (with the archive's name before them where keys come more than once). ``key.cls`` holds a number from 0,
    ``key.json`` one under ``label``. Keys of ImageNet's training images with their numbers give its classes, and the
    ids of ``imagenet-train``, and therefore its order.

    Args:
        root: a folder of .tar files, one of them, or several written ``/data/train-{000000..000146}.tar``.
        classes_file: names of the classes, one a line, or ``imagenet``; without it they are called "0", "1", …
    """

    title: ClassVar[str] = "Tar shards (WebDataset)"
    licence: ClassVar[str] = "yours"
    terms: ClassVar[str] = "free"
    citation: ClassVar[str] = ""
    obtain: ClassVar[str] = "tar pictures and labels, dog1.jpg with dog1.cls, and write shards:/path"
    image_size: ClassVar[str] = "any, resized and cropped by a model's preprocessing"

    root: str | Path
    classes_file: str | Path = ""

    def read(self) -> Listing:
        files = shard_files(str(self.root))
        notes: list[str] = []
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            indices = list(pool.map(lambda file: _index(file, notes), files))
        counts = [len(index.labels) for index in indices]
        if not sum(counts):
            raise DataError(f"{self.root} holds no picture", self.obtain)
        labels = np.concatenate([index.labels for index in indices])
        keys = [key for index in indices for key in index.keys]
        ids, classes = self._ids_and_classes(keys, labels, np.repeat([file.stem for file in files], counts))
        pictures = Spans(
            files,
            np.repeat(np.arange(len(files), dtype=np.int32), counts),
            np.concatenate([index.offsets for index in indices]),
            np.concatenate([index.sizes for index in indices]),
        )
        return Listing(
            name=name_of("shards", ids, labels, classes.names, pictures),
            classes=classes,
            ids=tuple(ids),
            labels=labels,
            images=pictures,
            notes=tuple(dict.fromkeys(notes)),
        )

    def _ids_and_classes(self, keys: list[str], labels: np.ndarray, shards: np.ndarray) -> tuple[list[str], Classes]:
        names = [key.rpartition("/")[2] for key in keys]
        index = index_of_wnid()
        found = [_IMAGENET_KEY.fullmatch(name) for name in names]
        if not self.classes_file and all(
            m and index.get(m[1]) == y for m, y in zip(found, labels.tolist(), strict=True)
        ):
            return [f"{name[:9]}/{name}" for name in names], imagenet_classes()
        if len(set(keys)) < len(keys):
            keys = [f"{shard}/{key}" for shard, key in zip(shards, keys, strict=True)]
        if str(self.classes_file) == "imagenet":
            return keys, imagenet_classes()
        if self.classes_file:
            return keys, Classes(_names(Path(self.classes_file).expanduser()))
        return keys, Classes(tuple(str(k) for k in range(int(labels.max()) + 1)))


@dataclass(frozen=True)
class Index:
    """The pictures of one archive: keys, labels, and where their bytes lie."""

    keys: Texts
    labels: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray


def shard_files(root: str) -> list[Path]:
    """The archives that a folder holds, or that a path with ranges names.

    Raises:
        DataError: there are none, or one of a range is missing.
    """
    if ".." in root and _RANGE.search(root):
        named = [Path(text).expanduser() for text in _written_out(root)]
        missing = [str(path) for path in named if not path.is_file()]
        if missing:
            raise DataError(
                f"{root} names {len(named)} files, and {len(missing)} of them are missing: {some(missing)}",
                relative_hint(named[0]) or "copy the missing ones, or write the range of those that are there",
            )
        return named
    path = Path(root).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"there is no file or folder {path}", relative_hint(path))
    found = sorted(p for p in path.iterdir() if p.suffix == ".tar" and not p.name.startswith("."))
    if not found:
        packed = [p.name for p in path.iterdir() if re.search(r"\.(tar\.\w+|tgz)$", p.name)]
        raise DataError(
            f"{path} holds no .tar file" + (f", but compressed ones: {some(sorted(packed))}" if packed else ""),
            "uncompress them: pictures inside a compressed archive cannot be read at random"
            if packed
            else Shards.obtain,
        )
    return found


def _written_out(text: str) -> Iterable[str]:
    """Every path that a text with ranges ``{000..146}`` stands for."""
    parts = _RANGE.split(text)
    fixed, ranges = parts[::3], zip(parts[1::3], parts[2::3], strict=True)
    choices = [[f"{k:0{len(low)}d}" for k in range(int(low), int(high) + 1)] for low, high in ranges]
    for chosen in itertools.product(*choices):
        yield fixed[0] + "".join(c + f for c, f in zip(chosen, fixed[1:], strict=True))


def _index(file: Path, notes: list[str]) -> Index:
    """What an archive holds, from the cache if it was looked through before."""
    kept = kept_file(INDEXES, file, REVISION)
    found = None if kept is None else _load(kept)
    if kept is None or found is not None:
        return found or read_index(file)
    index = read_index(file)

    def write(out: BinaryIO) -> None:
        np.savez(
            out,
            keys=np.frombuffer(index.keys.data, np.uint8),
            ends=index.keys.ends,
            labels=index.labels,
            offsets=index.offsets,
            sizes=index.sizes,
        )

    try:
        write_whole(kept, write)
    except OSError as error:
        notes.append(f"what lies where in the shards is looked up anew each time: {kept.parent}: {error.strerror}")
    return index


def _load(kept: Path) -> Index | None:
    try:
        with np.load(kept, allow_pickle=False) as file:
            keys = Texts.of(file["keys"].tobytes(), file["ends"])
            return Index(keys, file["labels"], file["offsets"], file["sizes"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # not there, or spoilt: made anew
        return None


def read_index(file: Path) -> Index:
    """Look through an archive.

    Raises:
        DataError: it is no tar archive or ends too early; a picture has no label, or a key two pictures.
    """
    pictures: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int] = {}
    last, end = "", 0
    try:
        with open(file, "rb") as raw, tarfile.open(fileobj=raw, mode="r:") as tar:
            for member in tar:
                last, end = member.name, member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                folder, _, name = last.rpartition("/")
                stem, dot, ending = name.partition(".")
                if not member.isreg() or not stem or not dot:
                    continue
                key = f"{folder}/{stem}".removeprefix("./") if folder else stem
                if is_picture(f"x.{ending.rpartition('.')[2]}"):
                    if key in pictures:
                        raise DataError(
                            f"{file} has two pictures under the key {key!r}: {pictures[key][0]} and {name}",
                            "give each picture a key of its own: a key is the file name up to its first dot",
                        )
                    pictures[key] = name, member.offset_data, member.size
                elif ending in ("cls", "json") and (ending == "cls" or key not in labels):
                    raw.seek(member.offset_data)
                    text = raw.read(member.size)
                    if len(text) < member.size:
                        raise EOFError("unexpected end of data")
                    label = _label(text, ending, f"{file}: {last}")
                    if label is not None:
                        labels[key] = label
            raw.seek(end)
            if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # a cut between members shows only here
                raise EOFError("the mark that ends an archive is missing")
    except (tarfile.TarError, OSError, EOFError) as error:
        after = f" after {last}" if last else ""
        raise DataError(f"{file} cannot be read{after}: {error}", "copy or make it again: it is incomplete") from error
    bare = [name for key, (name, _, _) in pictures.items() if key not in labels]
    if bare:
        raise DataError(
            f"{file}: {len(bare)} of {len(pictures)} pictures have no label: {some(bare)}",
            'put a number from 0 beside each, as key.cls, or as {"label": 3} in key.json',
        )
    _, offsets, sizes = zip(*pictures.values(), strict=True) if pictures else ((), (), ())
    return Index(
        Texts(pictures),
        np.array([labels[key] for key in pictures], np.int64),
        np.array(offsets, np.int64),
        np.array(sizes, np.int64),
    )


def _label(text: bytes, ending: str, where: str) -> int | None:
    """The number in a label file; None where a JSON file is about other things."""
    said: Any = text.decode("utf-8", "replace").strip()
    with contextlib.suppress(ValueError):
        said = json.loads(text) if ending == "json" else int(said)
    if ending == "json" and isinstance(said, dict):
        if "label" not in said:
            return None
        said = said["label"]
    if isinstance(said, int) and not isinstance(said, bool) and said >= 0:
        return said
    raise DataError(f"{where} says {str(said)[:40]!r} where a label is expected", "labels are numbers from 0")


def _names(path: Path) -> tuple[str, ...]:
    """Class names, one a line."""
    if not path.is_file():
        raise DataError(
            f"there is no file of class names {path}", relative_hint(path) or "or write classes_file=imagenet"
        )
    names = tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path} has the class {twice[0]!r} twice", "each class needs a name of its own")
    return names
