"""A flag: a reason to doubt a number, what it means and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

LEVELS = ("error", "warning", "info")


@dataclass(frozen=True)
class Flag:
    """One finding, stored beside the numbers it concerns.

    Args:
        name: short and stable, e.g. ``softmax-outputs``.
        level: ``error`` (the number is wrong), ``warning`` (it may be), ``info`` (good to know).
        about: ``model``, ``data`` or ``cell``.
        message: what was seen, with its figures.
        remedy: what to do.
        evidence: the figures as plain data.
    """

    name: str
    level: str
    about: str
    message: str
    remedy: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Plain data for the archive."""
        return asdict(self)
