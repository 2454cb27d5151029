"""The index: one file per cell and table beside the thousands of small ones, for fast reading.

It holds nothing of its own: deleting the folder ``index`` costs one slow reading. A cell of 50,000
images has 1,563 files per table; reading them one by one takes seconds, the index milliseconds.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from aresbench.core.errors import StoreError
from aresbench.store import schema
from aresbench.store.files import write_atomic

WORTHWHILE = 64
"""Files outside the index from which on it is written anew."""

_FILES = b"aresbench.files"


def load(path: Path, kind: str, names: Collection[str]) -> tuple[pa.Table, set[str]]:
    """The rows in the index and the files they come from; empty if it is missing, damaged or outdated.

    Args:
        path: the index file.
        kind: the table.
        names: the files that are there; an index that knows others is of no use.
    """
    nothing = schema.SCHEMAS[kind].empty_table(), set[str]()
    try:
        data = path.read_bytes()
        covered = set(json.loads(pq.read_schema(pa.BufferReader(data)).metadata[_FILES]))
        table = schema.from_bytes(kind, data)
    except (OSError, ValueError, KeyError, TypeError):  # pyarrow's own errors are ValueErrors and OSErrors
        return nothing
    return (table, covered) if covered <= set(names) else nothing


def save(path: Path, table: pa.Table, names: Collection[str]) -> None:
    """Write the index; a store that may only be read, or a full disk, simply goes without."""
    marked = table.replace_schema_metadata({_FILES: json.dumps(sorted(names)).encode()})
    with contextlib.suppress(StoreError):
        write_atomic(path, schema.to_bytes(marked))
