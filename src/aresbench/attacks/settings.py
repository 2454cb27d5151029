"""Checks an attack, or a part of one, makes of its own settings when it is constructed."""

from __future__ import annotations

import math
from collections.abc import Iterable

from aresbench.core.errors import SpecError


def check_whole(owner: object, name: str, *, least: int) -> None:
    """The setting is a whole number of at least ``least``.

    Raises:
        SpecError: it is not.
    """
    value = getattr(owner, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        _refuse(owner, name, f"must be a whole number of at least {least}")


def check_number(owner: object, name: str, *, low: float = 0.0, high: float = math.inf) -> None:
    """The setting is a number above ``low`` and at most ``high``.

    Raises:
        SpecError: it is not.
    """
    value = getattr(owner, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high or value == math.inf:
        upper = "" if high == math.inf else f" and at most {high:g}"
        _refuse(owner, name, f"must be a number above {low:g}{upper}")


def check_flag(owner: object, name: str) -> None:
    """The setting is true or false.

    Raises:
        SpecError: it is not.
    """
    if not isinstance(getattr(owner, name), bool):
        _refuse(owner, name, "must be true or false")


def check_choice(owner: object, name: str, choices: Iterable[str]) -> None:
    """The setting is one of some words.

    Raises:
        SpecError: it is not.
    """
    words = list(choices)
    if getattr(owner, name) not in words:
        _refuse(owner, name, f"must be one of {', '.join(words)}")


def _refuse(owner: object, name: str, rule: str) -> None:
    raise SpecError(f"{name}={getattr(owner, name)!r} of {type(owner).__name__}", f"{name} {rule}")
