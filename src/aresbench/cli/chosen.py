"""Cells of a store chosen by model, as several verbs need them."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aresbench.core.errors import UnknownName, did_you_mean

if TYPE_CHECKING:
    from aresbench.store import Cell, Store

STORE = "runs"


def add_store(parser: Any) -> None:
    """Declare ``--store``, the same for every verb."""
    parser.add_argument("--store", default=STORE, metavar="DIR", help=f"folder of the results (default: {STORE})")


def open_store(folder: str) -> Store:
    """The store in a folder; imported here, because a list or a help text does not need pyarrow."""
    from aresbench.store import Store

    return Store(folder)


def cells_of(store: Store, models: Sequence[str]) -> list[Cell]:
    """The cells whose model has one of these names, or matches a pattern such as ``timm:*``; no name: all.

    Raises:
        StoreError: the store is empty.
        UnknownName: a name matches no model of the store.
    """
    cells = store.require_cells()
    known = sorted({model_of(cell) for cell in cells})
    wanted: set[str] = set(known if not models else ())
    for pattern in models:
        hits = [name for name in known if name in (pattern, _short(pattern)) or fnmatch.fnmatchcase(name, pattern)]
        if not hits:
            hint = did_you_mean(pattern, known) or f"it holds {', '.join(known)}"
            raise UnknownName(f"the store {store.path} has no results of {pattern!r}", hint)
        wanted.update(hits)
    return [cell for cell in cells if model_of(cell) in wanted]


def _short(spec: str) -> str:
    """A file's spec as results call it: without the folder, which is another one on another machine."""
    body, mark, options = spec.partition("?")
    return body.rpartition("/")[2] + mark + options


def model_of(cell: Cell) -> str:
    """The name under which a cell's model was run."""
    return str(cell.description["identity"]["model"]["name"])
