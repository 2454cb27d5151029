"""Breaking budgets as arrays: 0 for a clean error, infinity for an image that resisted every rung."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from aresbench.core.budget import parse_fraction
from aresbench.metrics.score import Floats

Size = Fraction | float | str
"""A budget's size: exact, its float, or its text (``"4/255"``)."""


def as_float(size: Size) -> float:
    """The one float of an exact size: equal sizes give equal floats, so that rungs compare safely.

    Raises:
        SpecError: a text that is no size.
    """
    return float(parse_fraction(size) if isinstance(size, str) else size)


def breaking_values(texts: Iterable[str | None]) -> Floats:
    """Stored breaking budgets as floats: ``None`` (resisted every rung) becomes infinity.

    Args:
        texts: ``"0"`` for a clean error, the exact text of a rung, or ``None``.
    """
    known: dict[str | None, float] = {None: np.inf}
    out = []
    for text in texts:
        key = text if isinstance(text, str) else None  # pandas may hand NaN for None
        if key not in known:
            known[key] = as_float(str(key))
        out.append(known[key])
    return np.array(out, dtype=np.float64)


def as_breaking(values: ArrayLike) -> Floats:
    """[N] float64 of breaking budgets given as floats or Fractions, checked.

    Raises:
        ValueError: negative or NaN.
    """
    array = np.array([float(v) for v in np.asarray(values, dtype=object).ravel()], dtype=np.float64)
    if np.isnan(array).any() or (array < 0).any():
        raise ValueError(
            "a breaking budget is 0 (clean error), positive, or infinite (resisted); got a NaN or negative"
        )
    return array


def worst_case(breaking: Sequence[ArrayLike]) -> Floats:
    """Each image's smallest breaking budget over several attacks (or runs): the worst case is a minimum.

    Args:
        breaking: one [N] array per attack, over the same images in the same order.
    """
    if not breaking:
        raise ValueError("the worst case over no attack is not known")
    arrays = [as_breaking(values) for values in breaking]
    if len({len(array) for array in arrays}) > 1:
        raise ValueError("every attack must be given on the same images")
    return np.min(np.stack(arrays), axis=0)
