"""Pictures decoded and resized once, kept as 8-bit pixels on disk: the second model reads them at memory's speed.

One folder for each (dataset, preprocessing, way of reading), made of a file of pixels with one place for every
picture of the dataset (sparse: a place takes room when it is written) and a table with one entry a place. An entry
names the picture, the size and time of its source file, and a checksum over them and the pixels, which every reading
checks. So nothing needs a lock: a process killed while it writes, two that write the same place, a crash of the
machine or a source file that changed all show as an entry that does not fit, and the picture is decoded anew.

``$ARESBENCH_CACHE`` names the folder (``off``: no cache); by default the user's cache folder. ``aresbench cache
status`` shows what lies there, ``aresbench cache clear`` removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import shutil
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, TypeAlias, TypeGuard

import numpy as np
import PIL
from PIL import features

from aresbench.core.errors import DataError
from aresbench.core.preprocessing import Preprocessing
from aresbench.data.base import Dataset, load_pictures

if TYPE_CHECKING:
    from torch import Tensor

READING_REVISION = 1  # raised when a picture file becomes other pixels: to_rgb, resize_and_crop, Dataset.picture
RESERVE = 2_000_000_000  # bytes that the cache leaves free on its disk: results are written there too
VARIABLE = "ARESBENCH_CACHE"

_KEY, _PIXELS, _ENTRIES = "key.json", "pictures.u8", "entries.bin"
_ENTRY = np.dtype([("id", "<u8"), ("size", "<i8"), ("mtime", "<i8"), ("checksum", "<u8")])

Loaded: TypeAlias = "tuple[Tensor, list[int], list[tuple[str, str]]]"


class _Head(NamedTuple):
    """What an entry must say for its pixels to be those of a file: which picture, and the file's size and time."""

    id: int
    size: int
    mtime: int

    def checksum(self, pixels: np.ndarray) -> int:
        return zlib.crc32(pixels.data, zlib.crc32(repr(tuple(self)).encode()))


def cache_folder(kind: str = "pictures") -> Path | None:
    """Where decoded pictures (or things of another kind) are kept: ``$ARESBENCH_CACHE/pictures``; None: switched off.

    Where the variable names no folder, they lie in the user's cache.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return None if named == "off" else Path(named).expanduser() / kind
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aresbench" / kind


class _Volume:
    """The pictures of one dataset under one preprocessing.

    Args:
        folder: where they lie.
        shape: (3, H, W) of each.
        record: what tells them from others, for a reader of the folder.

    Raises:
        OSError: the folder does not exist and cannot be made.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int], record: dict[str, Any]) -> None:
        self.shape, self.bytes = shape, int(np.prod(shape))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / _KEY).exists():
                draft = folder / f".{_KEY}.{os.getpid()}"
                draft.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
                draft.replace(folder / _KEY)
            for name in (_PIXELS, _ENTRIES):
                (folder / name).touch()
            self._files = [_open(folder / _PIXELS, "r+b"), _open(folder / _ENTRIES, "r+b")]
            self.refused: OSError | None = None
        except OSError as error:
            try:  # others may have filled a folder that this user can only read
                self._files = [_open(folder / _PIXELS, "rb"), _open(folder / _ENTRIES, "rb")]
            except OSError:
                raise error from None
            self.refused = error
        self._writing = threading.Lock()
        self._maps = self._map()

    def _map(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [places, bytes] and entries [places] as far as both files reach now."""
        pixels, entries = (os.fstat(file.fileno()).st_size for file in self._files)
        places = min(pixels // self.bytes, entries // _ENTRY.itemsize)
        if places == 0:  # an empty file cannot be mapped
            return np.empty((0, self.bytes), np.uint8), np.empty(0, _ENTRY)
        return (
            np.memmap(self._files[0], np.uint8, "r", shape=(places, self.bytes)).view(np.ndarray),
            np.memmap(self._files[1], _ENTRY, "r", shape=(places,)).view(np.ndarray),
        )

    def filled(self) -> np.ndarray:
        """bool [places]: where something was written."""
        self._maps = self._map()
        found: np.ndarray = self._maps[1]["checksum"] != 0
        return found

    def read(self, place: int, head: _Head, out: np.ndarray) -> bool:
        """Copy the picture at a place into ``out``; False where it is not there, or is not what ``head`` says."""
        pixels, entries = self._maps
        if place >= len(entries):
            pixels, entries = self._maps = self._map()
            if place >= len(entries):
                return False
        entry = entries[place].item()
        if entry[:3] != tuple(head):
            return False
        out.reshape(-1)[:] = pixels[place]
        return bool(entry[3] == head.checksum(out))  # of the copy: another process may be writing the original

    def write(self, place: int, head: _Head, picture: np.ndarray) -> None:
        """Put a picture at its place, then its entry.

        Raises:
            OSError: the disk is full, or the file cannot be written.
        """
        entry = np.array((*head, head.checksum(picture)), _ENTRY)
        with self._writing:
            for file, data in zip(self._files, (picture.tobytes(), entry.tobytes()), strict=True):
                file.seek(place * len(data))
                if file.write(data) != len(data):
                    raise OSError("only a part was written")


def _open(path: Path, mode: Literal["rb", "r+b"]) -> BinaryIO:
    return open(path, mode, buffering=0)


class PictureCache:
    """Reads pictures as 8-bit images of a model's size, from disk where they were decoded before.

    Safe to use from several processes and threads. Where the cache cannot be used (switched off, a folder that cannot
    be written, a full disk) pictures are decoded each time, and ``notes`` says why.

    Args:
        folder: where decoded pictures are kept; default: ``cache_folder()``.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else cache_folder()
        self.notes: list[str] = []
        self._volumes: dict[str, _Volume | None] = {}
        self._ahead: ThreadPoolExecutor | None = None
        self._next: tuple[object, Future[Loaded]] | None = None

    def load(
        self,
        dataset: Dataset,
        places: Sequence[int],
        preprocessing: Preprocessing | None,
        on_bad: Literal["raise", "skip"] = "raise",
    ) -> Loaded:
        """Some images of a dataset, in the order asked for; as ``load_images``, but in 8 bits.

        Pictures without preprocessing, and those that lie in an array, are not kept: there is nothing to save.

        Args:
            dataset: the dataset or a view of it.
            places: places in ``dataset``.
            preprocessing: resize and crop; None takes the pictures as they are, all of one size.
            on_bad: ``"raise"`` stops at the first image that cannot be read; ``"skip"`` goes on without it.

        Returns:
            uint8 [m, 3, H, W]; the m places that were read; (id, reason) of each one that was not.

        Raises:
            DataError: an unreadable image under ``on_bad="raise"``; pictures of different sizes.
        """
        ready, self._next = self._next, None
        if ready is not None and ready[0] == _request(dataset, places, preprocessing, on_bad):
            return ready[1].result()
        return self._load(dataset, places, preprocessing, on_bad)

    def read_ahead(
        self,
        dataset: Dataset,
        places: Sequence[int],
        preprocessing: Preprocessing | None,
        on_bad: Literal["raise", "skip"] = "raise",
    ) -> None:
        """Begin in the background what the next ``load`` will ask for, with the same arguments."""
        if self._ahead is None:
            self._ahead = ThreadPoolExecutor(1, "pictures")
        future = self._ahead.submit(self._load, dataset, places, preprocessing, on_bad)
        self._next = (_request(dataset, places, preprocessing, on_bad), future)

    def needed(self, dataset: Dataset, preprocessing: Preprocessing | None) -> int:
        """Bytes that reading all of ``dataset`` once will add to the cache; nothing is made for the answer."""
        if self.folder is None or not _is_kept(preprocessing, dataset):
            return 0
        key, _ = _key(dataset, preprocessing)
        each = 3 * preprocessing.size[0] * preprocessing.size[1]
        if key not in self._volumes and not (self.folder / key / _KEY).exists():
            return len(dataset) * each
        volume = self._volume(dataset, preprocessing)
        if volume is None or volume.refused is not None:
            return 0
        filled = volume.filled()
        there = np.count_nonzero(filled[dataset.positions[dataset.positions < len(filled)]])
        return (len(dataset) - int(there)) * each

    def _load(
        self,
        dataset: Dataset,
        places: Sequence[int],
        preprocessing: Preprocessing | None,
        on_bad: Literal["raise", "skip"],
    ) -> Loaded:
        volume = self._volume(dataset, preprocessing)
        if volume is None or len(places) == 0:
            return load_pictures(dataset, places, preprocessing, on_bad)
        import torch

        x = torch.empty((len(places), *volume.shape), dtype=torch.uint8)
        out = x.numpy()
        heads = [_head(dataset, k) for k in places]
        missing = []
        for row, (k, head) in enumerate(zip(places, heads, strict=True)):
            if head is None or not volume.read(int(dataset.positions[k]), head, out[row]):
                missing.append(row)
        if not missing:
            return x, list(places), []
        fresh, kept, bad = load_pictures(dataset, [places[row] for row in missing], preprocessing, on_bad)
        decoded = set(kept)
        read = [row for row in missing if places[row] in decoded]
        out[read] = fresh.numpy()
        self._keep(volume, dataset, [(places[row], heads[row], out[row]) for row in read])
        if not bad:
            return x, list(places), bad
        lost = set(missing) - set(read)
        good = [row for row in range(len(places)) if row not in lost]
        return x[good], [places[row] for row in good], bad

    def _keep(
        self, volume: _Volume, dataset: Dataset, pictures: Sequence[tuple[int, _Head | None, np.ndarray]]
    ) -> None:
        """Write pictures just decoded; what hinders it is noted, and ends the writing."""
        if volume.refused is not None or self.folder is None:
            return
        try:
            if shutil.disk_usage(self.folder).free < RESERVE + volume.bytes * len(pictures):
                raise OSError(f"the disk is full but for {RESERVE / 1e9:.0f} GB, which are left free")
            for k, head, picture in pictures:
                if head is not None and head == _head(dataset, k):  # the file has not changed while it was decoded
                    volume.write(int(dataset.positions[k]), head, picture)
        except OSError as error:
            volume.refused = error
            self._note(error)

    def _volume(self, dataset: Dataset, preprocessing: Preprocessing | None) -> _Volume | None:
        if self.folder is None or not _is_kept(preprocessing, dataset):
            return None
        key, record = _key(dataset, preprocessing)
        if key not in self._volumes:
            try:
                volume = _Volume(self.folder / key, (3, *preprocessing.size), record)
                if volume.refused is not None:
                    self._note(volume.refused)
                self._volumes[key] = volume
            except OSError as error:
                self._volumes[key] = None
                self._note(error)
        return self._volumes[key]

    def _note(self, error: OSError) -> None:
        note = (
            f"decoded pictures are not kept in {self.folder} ({error.strerror or error}), so each is decoded again for "
            f"every model; free some room there, or name another folder in {VARIABLE}"
        )
        if note not in self.notes:
            self.notes.append(note)


def _is_kept(preprocessing: Preprocessing | None, dataset: Dataset) -> TypeGuard[Preprocessing]:
    """Files at a size of their own are kept; what lies in an array, or has no common size, is not."""
    return preprocessing is not None and len(dataset) > 0 and dataset.source(0) is not None


def _key(dataset: Dataset, preprocessing: Preprocessing) -> tuple[str, dict[str, Any]]:
    """The name of a volume's folder, and the record that it stands for."""
    record = {"dataset": dataset.name, "preprocessing": preprocessing.describe(), "reading": _reading(dataset)}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16], record


def _request(dataset: Dataset, places: Sequence[int], preprocessing: Preprocessing | None, on_bad: str) -> object:
    return dataset.name, tuple(dataset.positions[list(places)]), preprocessing, on_bad


def _head(dataset: Dataset, k: int) -> _Head | None:
    source = dataset.source(k)
    try:
        facts = os.stat(source) if source is not None else None
    except OSError:  # decoding it will say so
        return None
    if facts is None:
        return None
    digest = hashlib.blake2b(dataset.ids[k].encode(), digest_size=8).digest()
    return _Head(int.from_bytes(digest, "little"), facts.st_size, facts.st_mtime_ns)


def _reading(dataset: Dataset) -> dict[str, Any]:
    """Everything but the file and the preprocessing that decides about the pixels."""
    how: dict[str, Any] = {
        "revision": READING_REVISION,
        "pillow": PIL.__version__,
        "jpeg": features.version("libjpeg_turbo") or features.version("jpg"),
    }
    method = type(dataset).picture
    if method is not Dataset.picture:  # a dataset that reads its pictures in its own way, which may be rewritten
        how["picture"] = hashlib.sha256(inspect.getsource(method).encode()).hexdigest()[:16]
    return how


@dataclass(frozen=True)
class Kept:
    """What the cache holds of one dataset under one preprocessing.

    Args:
        folder: where it lies.
        dataset: the dataset's name.
        preprocessing: the record of resize and crop.
        pictures: how many are kept.
        bytes: room taken on the disk.
    """

    folder: Path
    dataset: str
    preprocessing: dict[str, Any]
    pictures: int
    bytes: int


def kept_pictures(folder: Path) -> list[Kept]:
    """What lies in a cache folder, by dataset.

    Raises:
        DataError: the folder cannot be read.
    """
    found = []
    try:
        for key in sorted(folder.glob(f"*/{_KEY}")):
            record = json.loads(key.read_text("utf-8"))
            entries = key.with_name(_ENTRIES)
            table = np.fromfile(entries, _ENTRY) if entries.exists() else np.empty(0, _ENTRY)
            room = sum(_room(file) for file in key.parent.iterdir())
            count = int(np.count_nonzero(table["checksum"]))
            found.append(Kept(key.parent, record["dataset"], record["preprocessing"], count, room))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"the picture cache {folder} cannot be read: {error}", "remove that folder") from error
    return sorted(found, key=lambda kept: (kept.dataset, kept.folder.name))


def _room(file: Path) -> int:
    facts = file.stat()
    return facts.st_blocks * 512 if hasattr(facts, "st_blocks") else facts.st_size


def clear_pictures(folder: Path, dataset: str | None = None) -> list[Kept]:
    """Remove what the cache holds (of one dataset); processes that read from it now decode again.

    Only files that the cache wrote are removed, so that nothing else is lost where the folder holds more.

    Returns:
        what was removed.

    Raises:
        DataError: a file cannot be removed.
    """
    chosen = [kept for kept in kept_pictures(folder) if dataset in (None, kept.dataset)]
    try:
        for kept in chosen:
            for name in (_ENTRIES, _PIXELS, _KEY):
                (kept.folder / name).unlink(missing_ok=True)
            for draft in kept.folder.glob(f".{_KEY}.*"):
                draft.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a run that has just begun may have made its own files
                kept.folder.rmdir()
    except OSError as error:
        raise DataError(f"the picture cache {folder} cannot be cleared: {error}") from error
    return chosen
