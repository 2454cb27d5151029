"""May these data be used commercially? The gate behind ``--commercial``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aresbench.core.errors import DataError

if TYPE_CHECKING:
    from aresbench.data.base import Dataset

# What ``Dataset.terms`` may say, and why the gate stays shut; an empty reason opens it.
REASONS = {
    "free": "",
    "attribution": "",
    "non-commercial": "its terms forbid commercial use",
    "unclear": "nothing says that commercial use is allowed",
}


def commercial(terms: str) -> bool:
    """Whether terms of this class allow commercial use (``attribution`` asks to name the authors)."""
    return not REASONS.get(terms, REASONS["unclear"])


def refuse_unless_commercial(dataset: Dataset) -> None:
    """Stop where data may not be used commercially, or where nothing says that they may.

    This reads the dataset's card; it is no legal advice, and the licences of models are not looked at.

    Raises:
        DataError: naming the dataset, its licence and the reason.
    """
    if commercial(dataset.terms):
        return
    raise DataError(
        f"{dataset.name} is refused by the gate for commercial use: {REASONS.get(dataset.terms, REASONS['unclear'])} "
        f"({dataset.title}: {dataset.licence})",
        "choose another dataset (`aresbench list datasets --commercial`); for data of your own, with rights of your "
        'own, use folder:/path, or set terms = "free" in your class',
    )
