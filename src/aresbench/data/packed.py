"""Pictures packed into large files: where an index of them is kept, and what such a dataset is called."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aresbench.core.errors import DataError
from aresbench.data.base import published_order
from aresbench.data.cache import cache_folder
from aresbench.data.spans import Spans

INDEXES, UNPACKED = (
    "indexes",
    "unpacked",
)  # folders in the cache: what lies where in archives; pictures of parquet files
_READ_FOR_NAME = 32
_ENDINGS = {INDEXES: ".npz", UNPACKED: ".arrow"}


@dataclass(frozen=True)
class Derived:
    """What the cache holds of one kind.

    Args:
        kind: ``indexes`` or ``unpacked``.
        files: how many.
        bytes: room taken on the disk.
    """

    kind: str
    files: int
    bytes: int


def name_of(kind: str, ids: Sequence[str], labels: np.ndarray, classes: Sequence[str], pictures: Spans) -> str:
    """A name that follows the contents, not how they are cut into files or where these lie.

    It stands for ids, labels, class names, sizes, and the bytes of the first pictures in published order.

    Raises:
        OSError: a file is not there, or ends too early.
    """
    order = published_order(ids)
    digest = hashlib.sha256("\n".join(classes).encode())
    for k in order:
        digest.update(f"{ids[k]}\0{labels[k]}\0{pictures.sizes[k]}\n".encode())
    for k in order[:_READ_FOR_NAME]:
        digest.update(pictures[int(k)].read())
    return f"{kind}-{digest.hexdigest()[:8]}"


def kept_file(kind: str, file: Path, what: object) -> Path | None:
    """Where something derived from a file is kept until the file changes; None: the cache is switched off.

    Args:
        kind: ``indexes`` or ``unpacked``.
        file: the file it is derived from.
        what: whose text says what is derived from it.

    Raises:
        OSError: the file is not there.
    """
    folder = cache_folder(kind)
    facts = file.stat()
    key = hashlib.sha256(f"{file.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}\0{what}".encode())
    return None if folder is None else folder / f"{file.stem[:40]}-{key.hexdigest()[:16]}{_ENDINGS[kind]}"


def derived() -> list[Derived]:
    """What the cache holds of packed pictures, by kind."""
    sizes = {kind: [file.stat().st_size for file in _kept(kind)] for kind in _ENDINGS}
    return [Derived(kind, len(found), sum(found)) for kind, found in sizes.items() if found]


def clear_derived() -> list[Derived]:
    """Remove all of it; the next reading makes it anew.

    Returns:
        what was removed.

    Raises:
        DataError: a file cannot be removed.
    """
    gone = derived()
    for kind in _ENDINGS:
        for file in _kept(kind):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise DataError(f"the cache cannot be cleared: {error}") from error
    return gone


def _kept(kind: str) -> list[Path]:
    """The files of a kind, drafts and locks of processes that were killed among them."""
    folder = cache_folder(kind)
    ending = _ENDINGS[kind]
    return [] if folder is None else sorted({*folder.glob(f"*{ending}"), *folder.glob(f".*{ending}.*")})


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file so that it is whole or absent, whoever else writes it at the same time.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
