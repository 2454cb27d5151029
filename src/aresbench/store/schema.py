"""The columns of the archive's tables, and which rows are the same row."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aresbench.core.budget import parse_fraction
from aresbench.core.errors import StoreError, did_you_mean
from aresbench.store.files import canonical

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
"""Raised when a reader of the former number could misread the files."""


def _field(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_TEXT, _I32, _I64, _F64 = pa.string(), pa.int32(), pa.int64(), pa.float64()

SCHEMAS: dict[str, pa.Schema] = {
    "images": pa.schema(
        [
            _field("id", _TEXT),
            _field("position", _I64),
            _field("shard", _I32),
            _field("label", _I32),
            _field("prediction", _I32),
            _field("top5", pa.list_(_I32)),
            _field("margin", _F64),
            _field("confidence", _F64),
            _field("correct", pa.bool_()),
            # the model's choice among all of its outputs, before any class map; missing where there is no map
            pa.field("full_prediction", _I32),
            pa.field("breaking_budget", _TEXT),
            pa.field("breaking_distance", _F64),
            pa.field("broken_by", _TEXT),
            pa.field("adv_prediction", _I32),
        ]
    ),
    "attempts": pa.schema(
        [
            _field("id", _TEXT),
            _field("position", _I64),
            _field("shard", _I32),
            _field("attack", _TEXT),
            _field("norm", _TEXT),
            _field("eps", _TEXT),
            _field("start", _TEXT),
            _field("pinned", pa.bool_()),
            _field("verdict", _TEXT),
            pa.field("distance", _F64),
            pa.field("first_step", _I32),
            pa.field("first_query", _I32),
            _field("forwards", _I32),
            _field("backwards", _I32),
            _field("zero_gradients", _I32),
            _field("nan_gradients", _I32),
            _field("rejected", _I32),
            pa.field("adv_prediction", _I32),
            # of a break: is its image still a break within the budget once rounded to 8 bits? (For an unbounded
            # search: within the smallest rung that the break itself counts for.) Missing: nobody asked.
            pa.field("survives_rounding", pa.bool_()),
            _field("seed", _I64),
        ]
    ),
    "examples": pa.schema(
        [
            _field("id", _TEXT),
            _field("label", _I32),
            _field("prediction", _I32),
            pa.field("adv_prediction", _I32),
            pa.field("eps", _TEXT),
            pa.field("attack", _TEXT),
            _field("clean_png", pa.binary()),
            pa.field("changed_png", pa.binary()),
        ]
    ),
    # adversarial images to the bit, where somebody asked to keep them: see store/exact.py
    "breaks": pa.schema(
        [
            _field("id", _TEXT),
            _field("position", _I64),
            _field("shard", _I32),
            _field("attack", _TEXT),
            _field("eps", _TEXT),
            _field("height", _I32),
            _field("width", _I32),
            _field("levels", pa.binary()),
            _field("rest", pa.binary()),
            # hash of the image that was attacked, before the attack
            _field("origin", _TEXT),
        ]
    ),
}

KEYS: dict[str, list[str]] = {
    "images": ["id"],
    "attempts": ["id", "attack", "eps", "start"],
    "examples": ["id", "eps", "attack"],
    "breaks": ["id", "eps", "attack"],
}
"""Rows with equal keys are the same row."""

SHARDED = ("images", "attempts")

_VERDICTS = ("broken", "unconfirmed", "resisted", "no-start")
_STARTS = ("cold", "warm")


def to_table(kind: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Check rows and turn them into a table.

    Raises:
        StoreError: a column is unknown, missing or of the wrong type.
    """
    schema = SCHEMAS[kind]
    names = set(schema.names)
    for row in rows:
        if row.keys() - names:
            word = min(row.keys() - names)
            raise StoreError(f"{kind} rows have no column {word!r}", did_you_mean(word, names))
    try:
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"{kind} rows do not fit their columns: {error}") from None
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            raise StoreError(f"{kind} rows need a value in column {field.name!r}")
    if kind == "attempts":
        _check_words(table, "verdict", _VERDICTS)
        _check_words(table, "start", _STARTS)
    return table


def _check_words(table: pa.Table, column: str, words: Sequence[str]) -> None:
    for value in table[column].unique().to_pylist():
        if value not in words:
            raise StoreError(f"{value!r} is no {column}", f"write one of {', '.join(words)}")


def to_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file; equal tables give equal bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def from_bytes(kind: str, data: bytes) -> pa.Table:
    """Read a Parquet file written by ``to_bytes``; a column that may be empty and is not there yet is empty.

    Raises:
        ValueError: damaged, or columns of another format.
    """
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        for field in SCHEMAS[kind]:
            if field.nullable and field.name not in table.schema.names:
                table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        return table.select(SCHEMAS[kind].names).cast(SCHEMAS[kind])
    except (pa.ArrowException, KeyError, OSError) as error:
        raise ValueError(str(error)) from None


def union(kind: str, tables: Sequence[pa.Table]) -> pa.Table:
    """All rows once, in the published order: the same whatever order the tables come in.

    Rows of one key in one cell should agree. Where they do not (two machines may differ on a few
    images of tiny margin), the row with the stronger evidence against the model stays whole: broken
    before resisted, the smaller budget, then the smaller distance; a clean error before a right
    answer. That is the worst case, the element-wise minimum by which attacks are combined too, so
    that more evidence can only lower a curve. What is equal even then is settled by the row's text.
    """
    table = pa.concat_tables([SCHEMAS[kind].empty_table(), *tables])
    table = table.take(pc.sort_indices(table, sort_keys=[(name, "ascending") for name in KEYS[kind]]))
    table = table.combine_chunks()
    same = _same_as_next(table, KEYS[kind])
    if same.any():
        table = table.take(pa.array(_strongest(kind, table, same), pa.int64()))
    order = [(name, "ascending") for name in ("position", "id") if name in table.schema.names]
    ranked = table
    if "eps" in table.schema.names:
        sizes = sorted(pc.unique(table["eps"]).to_pylist(), key=eps_order)
        ranked = table.append_column("eps rank", pc.index_in(table["eps"], value_set=pa.array(sizes, _TEXT)))
        order += [(name, "ascending") for name in ("eps rank", "attack", "start") if name in ranked.schema.names]
    return table.take(pc.sort_indices(ranked, sort_keys=order))


def eps_order(text: str | None) -> Fraction:
    """Where a budget text stands among others: by size; none or unbounded comes first."""
    return parse_fraction(text) if text else Fraction(-1)


def _same_as_next(table: pa.Table, names: Sequence[str]) -> NDArray[np.bool_]:
    """[rows − 1] whether each row has the key of the one after it; missing counts as empty."""
    same = np.ones(max(table.num_rows - 1, 0), dtype=bool)
    for name in names:
        values = pc.fill_null(table[name], "")
        same &= pc.equal(values[:-1], values[1:]).to_numpy() if len(same) else same
    return same


def _strongest(kind: str, table: pa.Table, same: NDArray[np.bool_]) -> list[int]:
    """Of rows sorted by key, the index of the one that stays from each group of equal keys."""
    starts = np.flatnonzero(np.concatenate(([True], ~same)))
    ends = np.append(starts[1:], table.num_rows)
    return [
        int(a)
        if b - a == 1
        else min(zip(table.slice(a, b - a).to_pylist(), range(a, b), strict=True), key=lambda t: _strength(kind, t[0]))[
            1
        ]
        for a, b in zip(starts, ends, strict=True)
    ]


def _strength(kind: str, row: dict[str, Any]) -> tuple[Any, ...]:
    """Sorts the strongest evidence first."""
    text = repr(sorted(row.items()))
    if kind == "images":
        budget = row["breaking_budget"]
        return (
            budget is None,
            parse_fraction(budget) if budget is not None else Fraction(0),
            row["correct"],
            _distance(row["breaking_distance"]),
            text,
        )
    if kind == "attempts":
        return (_VERDICTS.index(row["verdict"]), _distance(row["distance"]), row["survives_rounding"] is not True, text)
    return (text,)


def _distance(value: float | None) -> float:
    return float("inf") if value is None or value != value else value


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A table for users: missing text is ``None``, a missing number NaN, a missing integer or verdict ``<NA>``."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for field in table.schema:
        values = table[field.name]
        if pa.types.is_integer(field.type) and field.nullable:
            columns[field.name] = (pd.Int32Dtype() if field.type == _I32 else pd.Int64Dtype()).__from_arrow__(values)
        elif pa.types.is_boolean(field.type) and field.nullable:
            columns[field.name] = pd.BooleanDtype().__from_arrow__(values)
        elif pa.types.is_list(field.type):
            columns[field.name] = pd.Series(values.to_pylist(), dtype=object)
        elif pa.types.is_string(field.type) or pa.types.is_binary(field.type):
            columns[field.name] = pd.Series(values.to_pylist(), dtype=object if field.nullable else None)
        else:
            columns[field.name] = values.to_numpy()
    return pd.DataFrame(columns, columns=table.schema.names)


def line(kind: str, row: Mapping[str, Any]) -> bytes:
    """One row as one line of a journal."""
    return (json.dumps([kind, row], separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def read_line(text: bytes) -> tuple[str, dict[str, Any]]:
    """Read what ``line`` wrote.

    Raises:
        ValueError: torn or damaged.
    """
    kind, row = json.loads(text)
    if kind not in SHARDED or not isinstance(row, dict):
        raise ValueError(kind)
    return kind, row


def check_json(value: Any, what: str) -> Any:
    """The value as JSON gives it back (tuples become lists), checked to be plain data."""
    if not isinstance(value, dict):
        raise StoreError(f"{what} must be a dict, got {type(value).__name__}")
    return json.loads(canonical(value))
