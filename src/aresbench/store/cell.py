"""One cell of the archive: one model on one task, as rows per image."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from aresbench.core.errors import StoreError
from aresbench.store import index, schema
from aresbench.store.files import canonical, content_hash, explain, read_json, sweep, write_atomic
from aresbench.store.journal import Abandoned, Journal, Row, read_rows

if TYPE_CHECKING:
    import pandas as pd

_LEVELS = ("error", "warning", "info")
_FLAG_FIELDS = ("name", "level", "about", "message", "remedy", "evidence")

SEALED = re.compile(r"(images|attempts|examples|breaks|flags|provenance)-(?:\d{5,}-)?([0-9a-f]{12})\.(parquet|json)")
"""Files that are never changed once written; the last part of the name is the hash of the content."""


class Cell:
    """One model on one task. Made by ``Store.cell`` and ``Store.cells``.

    Reading is safe while other processes write, and every reader sees each row once. Several
    processes may append to one cell; each has a journal of its own.

    Args:
        folder: the cell's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = folder.name
        self.description: dict[str, Any] = read_json(folder / "cell.json")
        self._journal: Journal | None = None

    def __repr__(self) -> str:
        identity = self.description["identity"]
        return f"Cell({self.key}: {identity['model']['name']} on {identity['dataset']}, {identity['threat']})"

    # -- reading ---------------------------------------------------------------------------------

    def images(self) -> pd.DataFrame:
        """One row per image, in the dataset's published order.

        ``breaking_budget`` is ``None`` where the image resisted every rung and ``"0"`` for a clean
        error. Where files disagree about an image, the row with the smaller breaking budget stays.
        """
        return schema.to_frame(self._table("images"))

    def attempts(self) -> pd.DataFrame:
        """One row per image, attack, budget and start; ``first_step`` is ``<NA>`` where none was recorded."""
        return schema.to_frame(self._table("attempts"))

    def examples(self) -> pd.DataFrame:
        """A handful of pictures, clean and changed, as PNG bytes."""
        return schema.to_frame(self._table("examples"))

    def breaks(self, shards: Collection[int] | None = None) -> pd.DataFrame:
        """Adversarial images to the bit (``store.exact`` reads them), of these shards; of most cells none are kept."""
        return schema.to_frame(schema.union("breaks", [self._read(path) for path in self._of_shards(shards)]))

    def with_breaks(self) -> set[tuple[str, str, str]]:
        """(id, attack, eps) of every adversarial image that is kept."""
        rows = (self._read(path).select(["id", "attack", "eps"]).to_pylist() for path in self._of_shards(None))
        return {(row["id"], row["attack"], row["eps"]) for part in rows for row in part}

    def flags(self) -> list[dict[str, Any]]:
        """Reasons to doubt this cell's numbers: errors first, each once.

        A finding whose evidence says on how many ``rows`` it rests replaces the same one on fewer.
        """
        every = {canonical(flag): flag for flags in self._records("flags") for flag in flags}
        most: dict[str, int] = defaultdict(int)
        for flag in every.values():
            most[flag["name"]] = max(most[flag["name"]], flag["evidence"].get("rows", 0))
        every = {k: f for k, f in every.items() if f["evidence"].get("rows", most[f["name"]]) == most[f["name"]]}
        return [every[text] for text in sorted(every, key=lambda t: (_LEVELS.index(every[t]["level"]), t))]

    def provenance(self) -> list[dict[str, Any]]:
        """With what the rows were computed (versions, device, command …): one record per session."""
        return self._records("provenance")

    def state(self) -> str:
        """A short text that changes whenever rows or flags are added. Costs one look at the folder."""
        with explain(self.folder):
            names = []
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if SEALED.fullmatch(entry.name) and not entry.name.startswith(("provenance-", "breaks-")):
                        names.append(entry.name)
                    elif _is_journal(entry.name):
                        with contextlib.suppress(FileNotFoundError):
                            names.append(f"{entry.name}:{entry.stat().st_size}")
        return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]

    def result(self) -> dict[str, Any] | None:
        """What ``write_result`` stored, or ``None`` if there is nothing or the rows have changed since."""
        if not (self.folder / "result.json").is_file():
            return None
        stored = read_json(self.folder / "result.json")
        return stored["result"] if stored["state"] == self.state() else None

    # -- writing ---------------------------------------------------------------------------------

    def append(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Journal finished rows; when this returns, killing the process no longer loses them.

        Args:
            kind: ``images`` or ``attempts``.
            rows: dicts with the columns of that table; numpy numbers are welcome.

        Raises:
            StoreError: a row does not fit its columns, or the disk refuses.
        """
        if kind not in schema.SHARDED:
            raise StoreError(f"{kind!r} rows cannot be appended", f"kinds are {', '.join(schema.SHARDED)}")
        if rows:
            plain = schema.to_table(kind, rows).to_pylist()
            self._own_journal().append((kind, row) for row in plain)

    def flush(self) -> None:
        """Have all appended rows survive a power cut too (else at most 5 seconds of work may go)."""
        if self._journal is not None:
            self._journal.flush()

    def journalled(self) -> list[Row]:
        """The (kind, row) pairs of every journal, this process's and others'."""
        while True:
            try:
                return [row for path in self._paths(_is_journal) for row in read_rows(path)[0]]
            except FileNotFoundError:
                continue  # sealed meanwhile; what was kept of it is in a journal we have not seen: look again

    def seal(self, shards: Collection[int] | None = None) -> None:
        """Turn journalled rows into Parquet files, one per table and shard, and drop their journals.

        Journals of processes that have ended are sealed along; those of living ones are left alone.

        Args:
            shards: only these; the rows of others stay journalled. Default: all.

        Raises:
            StoreError: the disk refuses; the journals then stay as they are.
        """
        abandoned = self._take_abandoned()
        own = self._current_journal()
        try:
            rows = [row for journal in abandoned for row in journal.rows] + (own.rows() if own else [])
            sealed = [row for row in rows if shards is None or row[1]["shard"] in shards]
            kept = [row for row in rows if shards is not None and row[1]["shard"] not in shards]
            self.write_rows(sealed)
            if kept:
                self._journal = Journal(self.folder)
                self._journal.append(kept)
                self._journal.flush()
            elif own:
                self._journal = None
        except BaseException:
            for journal in abandoned:
                journal.release()
            raise
        for journal in abandoned:
            journal.remove()
        if own:
            own.remove()
        sweep(self.folder)

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Write (kind, row) pairs straight into Parquet files, one per table and shard."""
        groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
        for kind, row in rows:
            groups[kind, row["shard"]].append(row)
        for (kind, shard), group in sorted(groups.items()):
            data = schema.to_bytes(schema.union(kind, [schema.to_table(kind, group)]))
            self._write_sealed(f"{kind}-{shard:05d}", "parquet", data)

    def add_breaks(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store adversarial images, packed by ``store.exact``."""
        self.write_rows([("breaks", dict(row)) for row in rows])

    def add_examples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store a handful of pictures (PNG bytes)."""
        if rows:
            table = schema.union("examples", [schema.to_table("examples", rows)])
            self._write_sealed("examples", "parquet", schema.to_bytes(table))

    def add_flags(self, flags: Sequence[Mapping[str, Any]]) -> None:
        """Store reasons to doubt: dicts of name, level, about, message, remedy, evidence."""
        for flag in flags:
            if sorted(flag) != sorted(_FLAG_FIELDS) or flag["level"] not in _LEVELS:
                raise StoreError(
                    f"this is no flag: {dict(flag)!r}",
                    f"give {', '.join(_FLAG_FIELDS)}; the level is one of {', '.join(_LEVELS)}",
                )
        if flags:
            text = canonical([dict(flag) for flag in flags])
            self._write_sealed("flags", "json", text.encode())

    def add_provenance(self, record: Mapping[str, Any]) -> None:
        """Store with what rows were computed: versions, device, command, times."""
        self._write_sealed("provenance", "json", canonical(dict(record)).encode())

    def write_result(self, result: Mapping[str, Any], state: str | None = None) -> None:
        """Store scores derived from the rows; ``result`` gives them back until the rows change.

        Args:
            result: plain data.
            state: ``state()`` as it was before the rows were read, where other processes may be
                adding rows meanwhile. Default: now.
        """
        text = canonical({"state": state or self.state(), "result": dict(result)})
        write_atomic(self.folder / "result.json", text.encode())

    def close(self) -> None:
        """Let go of the journal without sealing it; the next ``seal`` by anyone takes it in."""
        journal, self._journal = self._current_journal(), None
        if journal is not None:
            journal.flush()
            journal.close()

    # -- inside ----------------------------------------------------------------------------------

    def _current_journal(self) -> Journal | None:
        """This process's journal; one inherited over a fork belongs to the parent."""
        if self._journal is not None and self._journal.process != os.getpid():
            self._journal.close()
            self._journal = None
        return self._journal

    def _own_journal(self) -> Journal:
        self._journal = self._current_journal() or Journal(self.folder)
        return self._journal

    def _take_abandoned(self) -> list[Abandoned]:
        own = self._current_journal()
        taken = (Abandoned.take(p) for p in self._paths(_is_journal) if own is None or p != own.path)
        return [journal for journal in taken if journal is not None]

    def _write_sealed(self, stem: str, ending: str, data: bytes) -> None:
        path = self.folder / f"{stem}-{content_hash(data)}.{ending}"
        if not path.exists():
            write_atomic(path, data)

    def _table(self, kind: str) -> pa.Table:
        # Journals first: rows sealed between the two looks are then seen twice, never missed.
        rows = [row for k, row in self.journalled() if k == kind]
        journalled = [schema.to_table(kind, rows)] if rows else []
        paths = {path.name: path for path in self._sealed(kind)}
        place = self.folder.parent.parent / "index" / f"{self.key}-{kind}.parquet"
        indexed, covered = index.load(place, kind, paths.keys())
        tables = [indexed]
        tables += [self._read(paths[name]) for name in paths.keys() - covered]
        table = schema.union(kind, tables)
        if len(tables) > index.WORTHWHILE:
            index.save(place, table, paths.keys())
        return schema.union(kind, [table, *journalled]) if journalled else table

    def _read(self, path: Path) -> pa.Table:
        """The rows of a sealed file."""
        try:
            return schema.from_bytes(path.name.partition("-")[0], read_sealed(path))
        except ValueError as error:
            raise damaged(path, str(error)) from None

    def _of_shards(self, shards: Collection[int] | None) -> list[Path]:
        """The files of adversarial images; of thousands they are too large to read at once."""
        return [p for p in self._sealed("breaks") if shards is None or int(p.name.split("-")[1]) in shards]

    def _records(self, kind: str) -> list[Any]:
        return [read_json(path) for path in self._sealed(kind)]

    def _sealed(self, kind: str) -> list[Path]:
        return [p for p in self._paths(SEALED.fullmatch) if p.name.startswith(f"{kind}-")]

    def _paths(self, wanted: Any) -> list[Path]:
        with explain(self.folder):
            return [self.folder / name for name in sorted(os.listdir(self.folder)) if wanted(name)]


def _is_journal(name: str) -> bool:
    return name.startswith("journal-") and name.endswith(".jsonl")


def read_sealed(path: Path) -> bytes:
    """The content of a file that is named by it.

    Raises:
        StoreError: it cannot be read, or the content is not what the name says.
    """
    with explain(path):
        data = path.read_bytes()
    match = SEALED.fullmatch(path.name)
    if match is None or content_hash(data) != match.group(2):
        raise damaged(path, "its content is not what its name says")
    return data


def damaged(path: Path, reason: str) -> StoreError:
    """The error for a file that a disk or a copy has spoilt."""
    return StoreError(
        f"{path} is damaged: {reason}",
        "copy it again from where it came, or delete it: the same command computes its rows again",
    )
