"""Writing so that a file is whole or absent, and saying kindly why when the disk will not have it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aresbench.core.errors import StoreError

TEMPORARY = ".tmp-"
"""Prefix of half-written files; readers never look at them."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextlib.contextmanager
def explain(path: Path) -> Iterator[None]:
    """Turn an operating-system error about ``path`` into a ``StoreError`` with its remedy."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(
                f"the disk is full: {path} could not be written ({_free(path)} free)",
                "make room and run the same command again; all finished work is kept",
            ) from error
        if error.errno in _REFUSED:
            raise StoreError(
                f"{path} may not be written ({error.strerror})",
                "choose a folder of your own with --store DIR (a training: --out DIR), or have its permissions changed",
            ) from error
        raise StoreError(
            f"{path}: {error.strerror or error}", "choose another folder with --store DIR (a training: --out DIR)"
        ) from error


def _free(path: Path) -> str:
    there = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
    size = float(shutil.disk_usage(there).free)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def write_all(handle: int, data: bytes) -> None:
    """Write every byte; the system may take fewer at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file that is either whole under its name or absent, whatever happens meanwhile.

    Raises:
        StoreError: the disk is full or the folder may not be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    with explain(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                write_all(handle, data)
                os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut (where the file system can)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
            os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path, older_than: float = 3600.0) -> None:
    """Remove half-written files that a killed process left; younger ones may still be in the making."""
    for path in folder.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > older_than:
                path.unlink()


def content_hash(data: bytes) -> str:
    """12 hex digits that name a file by what is in it."""
    return hashlib.sha256(data).hexdigest()[:12]


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces.

    Raises:
        StoreError: something in it is not plain data, or is NaN or infinite.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"this record cannot be stored: {error}", "use text, finite numbers, lists, dicts and None only"
        ) from None


def cell_key(identity: Mapping[str, Any]) -> str:
    """16 hex digits that name a cell by its identity."""
    return hashlib.sha256(canonical(dict(identity)).encode()).hexdigest()[:16]


def read_json(path: Path) -> Any:
    """Read a JSON file of the archive.

    Raises:
        StoreError: it is missing or damaged.
    """
    with explain(path):
        text = path.read_bytes()
    try:
        return json.loads(text)
    except ValueError:
        raise StoreError(f"{path} is damaged (not JSON)", "restore it from a copy, or delete its folder") from None
