"""Errors that name the thing, the reason and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AresError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        problem: what is wrong, naming the thing.
        remedy: what to do about it (a command, the nearest right word); may be empty.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}\n  → {remedy}" if remedy else problem)


class SpecError(AresError, ValueError):
    """A text such as ``linf:4/255`` or ``pgd(steps=20)`` cannot be read."""


class UnknownName(AresError, LookupError):
    """A name is not in the registry."""


class ModelError(AresError, ValueError):
    """A model cannot be loaded or does not do what a classifier must."""


class DataError(AresError, ValueError):
    """A dataset is missing, broken, or its labels cannot be matched."""


class StoreError(AresError, OSError):
    """The archive cannot be read or written."""


class ProtocolMismatch(AresError, ValueError):
    """Two numbers were measured under different protocols."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The nearest right words as a sentence, or an empty string."""
    near = difflib.get_close_matches(word, list(choices), n=3, cutoff=0.55)
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
