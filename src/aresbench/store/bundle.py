"""A result bundle: chosen cells in one file that can be mailed, published and checked by others.

A plain zip, nothing in it compressed twice. Members are the cells' files under the names they have in the archive, and
``manifest.json`` with the SHA-256 of every other member, the versions of the packages at hand and the command. Equal
results, packed by the same command with the same packages, are equal files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import tempfile
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from aresbench.core.errors import StoreError
from aresbench.store import schema
from aresbench.store.cell import SEALED, Cell, read_sealed
from aresbench.store.files import TEMPORARY, canonical, cell_key, explain, write_all

FORMAT = 1
"""Raised when a reader of the former number could misread a bundle."""

_KIND = "aresbench bundle"
_MANIFEST = "manifest.json"
_MEMBER = re.compile(rf"cells/([0-9a-f]{{16}})/(cell\.json|result\.json|{SEALED.pattern})")
_PACKAGES = ("aresbench", "numpy", "pandas", "pillow", "pyarrow", "timm", "torch", "torchvision")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # when anything was packed is no part of it


def write_bundle(path: str | os.PathLike[str], cells: Sequence[Cell], *, command: str = "", breaks: bool = True) -> int:
    """Pack cells into one file, which is whole under its name or absent, and return its size in bytes.

    Args:
        path: the file; one that is there is replaced.
        cells: what to pack; rows still in journals are sealed on the way.
        command: recorded in the manifest.
        breaks: also the adversarial images that the cells keep.

    Raises:
        StoreError: a file of the archive is damaged, or the disk refuses.
    """
    target = Path(path).expanduser()
    temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    sums: dict[str, Any] = {}
    with explain(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
                for cell in sorted(cells, key=lambda c: c.key):
                    for name, data in _files(cell, breaks):
                        member = f"cells/{cell.key}/{name}"
                        sums[member] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
                        file.writestr(zipfile.ZipInfo(member, _LONG_AGO), data)
                manifest = {
                    "kind": _KIND,
                    "format": FORMAT,
                    "command": command,
                    "environment": _environment(),
                    "members": sums,
                }
                file.writestr(zipfile.ZipInfo(_MANIFEST, _LONG_AGO), canonical(manifest))
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    return target.stat().st_size


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Is this a file, and so to be read as a bundle, rather than the folder of an archive?"""
    return Path(path).expanduser().is_file()


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a bundle; its members are not read.

    Raises:
        StoreError: the file is no bundle, or one of another format.
    """
    with _opened(Path(path).expanduser()) as file:
        return _manifest(file, Path(path).expanduser())


@contextlib.contextmanager
def unpacked(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A bundle as the folder of an archive for the length of a ``with`` block, every member checked.

    Raises:
        StoreError: no bundle, one of another format, or a member that is damaged, missing, foreign or under
            another cell's name: it is named.
    """
    source = Path(path).expanduser()
    with tempfile.TemporaryDirectory(prefix="aresbench-") as place, _opened(source) as file:
        folder = Path(place)
        members = _manifest(file, source)["members"]
        names = [info.filename for info in file.infolist() if info.filename != _MANIFEST]
        _check_names(source, names, members)
        with explain(folder):
            _put(folder / "archive.json", canonical({"format": schema.FORMAT}).encode())
            for info in file.infolist():
                if info.filename != _MANIFEST:
                    _put(folder / info.filename, _member(file, info, members[info.filename], source))
        for name in names:
            if name.endswith("/cell.json"):
                _check_key(source, name, (folder / name).read_bytes())
        yield folder


def _files(cell: Cell, breaks: bool) -> Iterator[tuple[str, bytes]]:
    """Name and content of a cell's files, sorted by name; journalled rows as the files they would become."""
    with tempfile.TemporaryDirectory(prefix="aresbench-") as place:
        sealed_now = Path(place)
        (sealed_now / "cell.json").write_bytes(canonical(cell.description).encode())
        rows = cell.journalled()  # before the files are listed: a row is then seen twice, never missed
        Cell(sealed_now).write_rows(rows)
        found = {path.name: path for folder in (sealed_now, cell.folder) for path in folder.iterdir()}
        found["cell.json"] = sealed_now / "cell.json"
        if rows or cell.result() is None:  # numbers of other rows than these
            found.pop("result.json", None)
        for name in sorted(found):
            if name in ("cell.json", "result.json"):
                yield name, found[name].read_bytes()
            elif SEALED.fullmatch(name) and (breaks or not name.startswith("breaks-")):
                yield name, read_sealed(found[name])


def _environment() -> dict[str, str]:
    """Versions of what is installed here; the cells' own provenance says with what they were measured."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if path.is_dir():
        raise StoreError(f"{path} is a folder, not a bundle", "pack it: aresbench store export --store DIR -o FILE.zip")
    with explain(path):
        try:
            file = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            raise StoreError(f"{path} is no bundle, or was cut short", _AGAIN) from None
    with file:
        yield file


_AGAIN = "copy it again from where it came, or pack it again: aresbench store export -o FILE.zip"


def _manifest(file: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(file.read(_MANIFEST))
    except (KeyError, ValueError, zipfile.BadZipFile, NotImplementedError):
        raise StoreError(f"{path} is no bundle: it has no {_MANIFEST} that can be read", _AGAIN) from None
    if not isinstance(manifest, dict) or manifest.get("kind") != _KIND:
        raise StoreError(f"{path} is no bundle: {_MANIFEST} is another program's", _AGAIN)
    if manifest.get("format") != FORMAT:
        raise StoreError(
            f"the bundle {path} has format {manifest.get('format')}, this version reads format {FORMAT}",
            "use the version of aresbench that wrote it",
        )
    if not isinstance(manifest.get("members"), dict):
        raise StoreError(f"{path} is damaged: {_MANIFEST} lists no members", _AGAIN)
    return manifest


def _check_names(path: Path, names: Sequence[str], members: Mapping[str, Any]) -> None:
    for name in names:
        if name not in members or not _MEMBER.fullmatch(name):
            raise StoreError(f"{path} holds {name!r}, which is no part of a bundle", _AGAIN)
        if names.count(name) > 1:
            raise StoreError(f"{path} is damaged: it holds {name} twice", _AGAIN)
    cells = {name.split("/")[1] for name in names}
    for name in [*members, *(f"cells/{key}/cell.json" for key in sorted(cells))]:
        if name not in names:
            raise StoreError(f"{path} is damaged: {name} is missing", _AGAIN)


def _member(file: zipfile.ZipFile, info: zipfile.ZipInfo, known: Any, path: Path) -> bytes:
    """A member's content, if it is what the manifest says; nothing is unpacked that claims to be larger."""
    size = known.get("bytes") if isinstance(known, dict) else None
    if info.compress_type == zipfile.ZIP_STORED and info.file_size == size:
        with contextlib.suppress(zipfile.BadZipFile, EOFError, ValueError):
            data = file.read(info)
            if hashlib.sha256(data).hexdigest() == known.get("sha256"):
                return data
    raise StoreError(f"{path} is damaged: {info.filename} is not what the manifest says", _AGAIN)


def _check_key(path: Path, name: str, data: bytes) -> None:
    try:
        key = cell_key(json.loads(data)["identity"])
    except (ValueError, KeyError, TypeError):
        key = ""
    if key != name.split("/")[1]:
        raise StoreError(f"{path}: {name} describes another cell than the one it stands for", _AGAIN)


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(handle, data)
    finally:
        os.close(handle)
