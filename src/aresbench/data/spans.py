"""Many pictures told in little memory: files below one folder, and stretches of bytes within larger files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

_MOST_OPEN = 256  # files kept open; more are opened for each reading, since a process may often have 1,024 at a time
_open: dict[tuple[int, int], int] = {}


@dataclass(frozen=True)
class Span:
    """A picture file that lies within a larger file: a member of a tar archive, a cell of a table.

    Args:
        file: the larger file.
        offset: where the picture begins.
        size: bytes.
    """

    file: Path
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.file}, bytes {self.offset:,} to {self.offset + self.size:,}"

    def read(self) -> bytes:
        """The picture's bytes. Threads and processes may read the same file at once.

        Raises:
            OSError: the file is not there, or ends before the picture does.
        """
        # A position of one's own is given with every reading, so that a file opened before a fork can be shared. None
        # is ever closed: another thread might be about to read it.
        facts = os.stat(self.file)
        key = facts.st_dev, facts.st_ino  # another file may have taken this one's name
        handle = _open.get(key)
        if handle is not None:
            return self._read(handle)
        handle = os.open(self.file, os.O_RDONLY)
        if len(_open) < _MOST_OPEN and _open.setdefault(key, handle) == handle:
            return self._read(handle)
        try:
            return self._read(handle)
        finally:
            os.close(handle)

    def _read(self, handle: int) -> bytes:
        parts = []
        at, end = self.offset, self.offset + self.size
        while at < end:
            part = os.pread(handle, end - at, at)
            if not part:
                raise OSError(f"the file ends at byte {at:,}: it is incomplete, or was changed while it was read")
            parts.append(part)
            at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Texts(Sequence[str]):
    """Many short texts in one block of memory, which worker processes share with the process that made them.

    A list of a million texts is a million objects, each of which is written to (counted) when it is looked at, and
    so copied into every worker.

    Args:
        texts: any.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        parts = [text.encode("utf-8", "surrogateescape") for text in texts]
        self.data = b"".join(parts)
        self.ends = np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)))

    @classmethod
    def of(cls, data: bytes, ends: np.ndarray) -> Texts:
        """From what ``data`` and ``ends`` of another were."""
        made = cls(())
        made.data, made.ends = data, ends
        return made

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[k] for k in range(*at.indices(len(self)))]
        begin = int(self.ends[at - 1]) if at % len(self) else 0
        return self.data[begin : int(self.ends[at])].decode("utf-8", "surrogateescape")


class Files(Sequence[Path]):
    """The files below a folder, made into paths when they are asked for.

    Args:
        folder: where they lie.
        names: relative paths.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder, self.names = folder, Texts(names)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, at: int) -> Path: ...
    @overload
    def __getitem__(self, at: slice) -> list[Path]: ...
    def __getitem__(self, at: int | slice) -> Path | list[Path]:
        if isinstance(at, slice):
            return [self[k] for k in range(*at.indices(len(self)))]
        return self.folder / self.names[at]


class Spans(Sequence[Span]):
    """Stretches of a few files.

    Args:
        files: the files.
        which: int [n], the file of each.
        offsets, sizes: int64 [n].
    """

    def __init__(self, files: Sequence[Path], which: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> None:
        self.files, self.which, self.offsets, self.sizes = tuple(files), which, offsets, sizes

    def __len__(self) -> int:
        return len(self.which)

    @overload
    def __getitem__(self, at: int) -> Span: ...
    @overload
    def __getitem__(self, at: slice) -> list[Span]: ...
    def __getitem__(self, at: int | slice) -> Span | list[Span]:
        if isinstance(at, slice):
            return [self[k] for k in range(*at.indices(len(self)))]
        return Span(self.files[self.which[at]], int(self.offsets[at]), int(self.sizes[at]))
