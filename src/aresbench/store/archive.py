"""The archive: a folder of cells that many processes may fill and that merges by copying."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from aresbench.core.errors import StoreError
from aresbench.store import schema
from aresbench.store.bundle import is_bundle, unpacked
from aresbench.store.cell import SEALED, Cell, damaged, read_sealed
from aresbench.store.files import canonical, cell_key, explain, read_json, write_atomic
from aresbench.store.journal import read_rows


@dataclass(frozen=True)
class Status:
    """What an archive holds.

    Args:
        path: its folder.
        cells: number of cells.
        rows: rows by table, as stored (an image stored twice counts twice).
        files: number of files.
        bytes: their size.
        journals: unfinished journals; the next run of the same command takes them in.
        torn: journal lines that a kill or a full disk cut off.
    """

    path: Path
    cells: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    files: int = 0
    bytes: int = 0
    journals: int = 0
    torn: int = 0


class Store:
    """The archive in a folder. Opening it touches nothing; the first cell creates it.

    Args:
        path: the folder.

    Raises:
        StoreError: the folder holds something else, or a store of another version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        with explain(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise StoreError(f"{self.path} is a file, not a store", "choose a folder with --store DIR")
            empty = not self.path.exists() or all(name.startswith(".") for name in os.listdir(self.path))
        if not empty:
            self._check_format()

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    def _check_format(self) -> None:
        marker = self.path / "archive.json"
        if not marker.is_file():
            raise StoreError(f"{self.path} is not a store (it has no archive.json)", "choose a new or empty folder")
        content = read_json(marker)
        found = content.get("format") if isinstance(content, dict) else None
        if found != schema.FORMAT:
            raise StoreError(
                f"the store {self.path} has format {found}, this version reads and writes format {schema.FORMAT}",
                "use the version of aresbench that wrote it, or start a new store with --store DIR",
            )

    def cells(self) -> list[Cell]:
        """Every cell, sorted by key; none if the store does not exist yet."""
        folder = self.path / "cells"
        if not folder.is_dir():
            return []
        with explain(folder):
            names = sorted(os.listdir(folder))
        return [Cell(folder / name) for name in names if (folder / name / "cell.json").is_file()]

    def require_cells(self) -> list[Cell]:
        """Every cell, for readers to whom an empty store is of no use.

        Raises:
            StoreError: there is no store here, or it holds no cell.
        """
        found = self.cells()
        if not found:
            what = "is empty" if self.path.exists() else "does not exist"
            raise StoreError(
                f"the store {self.path} {what}", f"fill it with `aresbench run MODEL --suite NAME --store {self.path}`"
            )
        return found

    def cell(self, description: Mapping[str, Any]) -> Cell:
        """The cell with this identity, created if it is not there yet.

        Args:
            description: plain data; the key is the hash of ``description["identity"]``, all else
                is for readers and kept as first written.

        Raises:
            StoreError: not plain data, or the disk refuses.
        """
        plain, folder = self._place(description)
        if not (folder / "cell.json").is_file():
            if not (self.path / "archive.json").is_file():
                write_atomic(self.path / "archive.json", canonical({"format": schema.FORMAT}).encode())
            write_atomic(folder / "cell.json", canonical(plain).encode())
        return Cell(folder)

    def find(self, description: Mapping[str, Any]) -> Cell | None:
        """The cell with this identity if it is there; nothing is written."""
        _, folder = self._place(description)
        return Cell(folder) if (folder / "cell.json").is_file() else None

    def _place(self, description: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
        """A checked description, and the folder of its cell."""
        plain = schema.check_json(dict(description), "a cell's description")
        if not isinstance(plain.get("identity"), dict):
            raise StoreError("a cell's description needs an 'identity'", "give the dict that tells cells apart")
        return plain, self.path / "cells" / cell_key(plain["identity"])

    def merge(self, other: str | os.PathLike[str]) -> dict[str, int]:
        """Take in every row of another store or bundle; doing it twice changes nothing.

        Files are copied under their names, which say what is in them; journals are sealed on the way.

        Returns:
            how many ``cells`` and ``files`` were new here.

        Raises:
            StoreError: the other is no store or is empty, a file is damaged, or the disk refuses.
        """
        if is_bundle(other):
            with unpacked(other) as folder:
                return self.merge(folder)
        new = {"cells": 0, "files": 0}
        source = Store(other)
        for theirs in source.require_cells():
            folder = self.path / "cells" / theirs.key
            new["cells"] += not folder.exists()
            ours = self.cell(theirs.description)
            before = set(os.listdir(folder))
            ours.write_rows(theirs.journalled())  # before their files are listed: see Cell._table
            for name in sorted(os.listdir(theirs.folder)):
                if SEALED.fullmatch(name) and name not in before:
                    write_atomic(folder / name, read_sealed(theirs.folder / name))
            new["files"] += len({n for n in os.listdir(folder) if SEALED.fullmatch(n)} - before)
        return new

    def status(self) -> Status:
        """Count cells, rows, files, bytes and unfinished journals."""
        rows = dict.fromkeys(schema.SCHEMAS, 0)
        files = size = journals = torn = 0
        cells = self.cells()
        for path in (path for cell in cells for path in sorted(cell.folder.iterdir())):
            match = SEALED.fullmatch(path.name)
            try:
                size += path.stat().st_size
                if path.name.startswith("journal-"):
                    lines, bad = read_rows(path)
                    journals += 1
                    torn += bad
                    for kind, _ in lines:
                        rows[kind] += 1
            except FileNotFoundError:
                continue  # sealed meanwhile
            files += 1
            if match and match.group(3) == "parquet":
                rows[match.group(1)] += _count(path)
        return Status(self.path, len(cells), rows, files, size, journals, torn)


def _count(path: Path) -> int:
    try:
        rows: int = pq.read_metadata(io.BytesIO(path.read_bytes())).num_rows
    except (ValueError, OSError) as error:
        raise damaged(path, str(error)) from None
    return rows
