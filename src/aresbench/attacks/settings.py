"""Checks an attack makes of its own settings when it is constructed."""

from __future__ import annotations

import math
from collections.abc import Iterable

from aresbench.attacks.base import Attack
from aresbench.core.errors import SpecError


def check_whole(attack: Attack, name: str, *, least: int) -> None:
    """The setting is a whole number of at least ``least``.

    Raises:
        SpecError: it is not.
    """
    value = getattr(attack, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        _refuse(attack, name, f"must be a whole number of at least {least}")


def check_number(attack: Attack, name: str, *, low: float = 0.0, high: float = math.inf) -> None:
    """The setting is a number above ``low`` and at most ``high``.

    Raises:
        SpecError: it is not.
    """
    value = getattr(attack, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high or value == math.inf:
        upper = "" if high == math.inf else f" and at most {high:g}"
        _refuse(attack, name, f"must be a number above {low:g}{upper}")


def check_flag(attack: Attack, name: str) -> None:
    """The setting is true or false.

    Raises:
        SpecError: it is not.
    """
    if not isinstance(getattr(attack, name), bool):
        _refuse(attack, name, "must be true or false")


def check_choice(attack: Attack, name: str, choices: Iterable[str]) -> None:
    """The setting is one of some words.

    Raises:
        SpecError: it is not.
    """
    words = list(choices)
    if getattr(attack, name) not in words:
        _refuse(attack, name, f"must be one of {', '.join(words)}")


def _refuse(attack: Attack, name: str, rule: str) -> None:
    raise SpecError(f"{name}={getattr(attack, name)!r} of {type(attack).__name__}", f"{name} {rule}")
