"""Journals: rows of one process, appended line by line until their shards are sealed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aresbench.core.errors import StoreError
from aresbench.store.files import explain, sync_folder, write_all
from aresbench.store.schema import line, read_line

SYNC_EVERY = 5.0
"""Seconds of finished work that a power cut may cost; a killed process loses none of it."""

Row = tuple[str, dict[str, Any]]


class Journal:
    """The journal one process writes for one cell.

    Every append reaches the operating system before it returns, so a kill loses nothing; the disk is
    asked to keep it at most every ``SYNC_EVERY`` seconds. While the journal is open it is locked, so
    that another process can tell an unfinished journal from an abandoned one.
    """

    def __init__(self, folder: Path) -> None:
        self.process = os.getpid()
        while True:
            self.path = folder / f"journal-{uuid.uuid4().hex}.jsonl"
            with explain(self.path):
                self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
                sync_folder(folder)
            with contextlib.suppress(OSError):  # a file system without locks: nobody will take it for abandoned
                fcntl.flock(self._handle, fcntl.LOCK_EX)
            if os.fstat(self._handle).st_nlink:
                break
            os.close(self._handle)  # swept away as abandoned between its making and its locking
        self._close = weakref.finalize(self, os.close, self._handle)
        self._size = 0
        self._synced = time.monotonic()

    def append(self, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Write rows; what cannot be written whole is taken back.

        Raises:
            StoreError: the disk is full, or somebody removed the journal.
        """
        data = b"".join(line(kind, row) for kind, row in rows)
        if not os.fstat(self._handle).st_nlink:
            raise StoreError(
                f"{self.path} was removed while it was being written",
                "run the same command again: it finishes what is missing",
            )
        with explain(self.path):
            try:
                write_all(self._handle, data)
            except OSError:
                os.ftruncate(self._handle, self._size)
                raise
        self._size += len(data)
        if time.monotonic() - self._synced >= SYNC_EVERY:
            self.flush()

    def flush(self) -> None:
        """Have everything written so far survive a power cut."""
        with explain(self.path):
            os.fsync(self._handle)
        self._synced = time.monotonic()

    def rows(self) -> list[Row]:
        """Everything appended so far."""
        return read_rows(self.path)[0]

    def close(self) -> None:
        """Let go of the file and its lock; it stays readable."""
        self._close()

    def remove(self) -> None:
        """Delete the file: its rows are kept elsewhere."""
        with explain(self.path), contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.close()


def read_rows(path: Path) -> tuple[list[Row], int]:
    """The whole lines of a journal, and how many lines are torn or damaged.

    A damaged line is as good as never written: the same command measures its image again.

    Raises:
        FileNotFoundError: the journal is gone, which means that its rows have been sealed.
        StoreError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError:
        with explain(path):
            raise
    rows: list[Row] = []
    damaged = 0
    for text in data.split(b"\n")[:-1]:
        try:
            rows.append(read_line(text))
        except ValueError:
            damaged += 1
    return rows, damaged + (not data.endswith(b"\n") and bool(data))


class Abandoned:
    """A journal whose process has ended, held so that nobody else seals it at the same time."""

    def __init__(self, path: Path, handle: int, rows: list[Row]) -> None:
        self.path = path
        self.rows = rows
        self._handle = handle

    @classmethod
    def take(cls, path: Path) -> Abandoned | None:
        """The journal, or ``None`` if its process still writes it or it is gone."""
        try:
            handle = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        except OSError:
            with explain(path):
                raise
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink:
                return cls(path, handle, read_rows(path)[0])
        except OSError:
            pass  # locked by its living process, or a file system without locks
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        return None

    def remove(self) -> None:
        """Delete the file: its rows are kept elsewhere."""
        with explain(self.path):
            self.path.unlink()
        self.release()

    def release(self) -> None:
        """Leave the file as it is."""
        os.close(self._handle)
