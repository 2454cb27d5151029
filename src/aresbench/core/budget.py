"""Perturbation budgets as exact fractions: ``linf:4/255`` and ladders of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from aresbench.core.errors import SpecError, did_you_mean

NORMS = ("linf", "l2", "l1", "l0")

_NUMBER = re.compile(r"^\d+(\.\d+)?([eE][+-]?\d+)?$")


def parse_fraction(text: str) -> Fraction:
    """Read ``4/255``, ``1/2/255`` (= (1/2)/255), ``0.5`` or ``3`` exactly.

    Raises:
        SpecError: the text is not a non-negative number or a chain of divisions.
    """
    parts = text.strip().split("/")
    try:
        if not all(_NUMBER.match(p.strip()) for p in parts):
            raise ValueError
        value = Fraction(parts[0].strip())
        for part in parts[1:]:
            value /= Fraction(part.strip())
    except (ValueError, ZeroDivisionError):
        raise SpecError(f"{text!r} is not a budget size", "write a number such as 4/255, 0.5 or 1/2/255") from None
    return value


def format_fraction(value: Fraction) -> str:
    """The text under which a size is stored: a decimal where it ends, else 255ths, else a plain fraction.

    ``parse_fraction(format_fraction(v)) == v`` for every v.
    """
    if (text := _decimal(value)) is not None:
        return text
    if (text := _decimal(value * 255)) is not None:
        return f"{text}/255"
    return f"{value.numerator}/{value.denominator}"


def _decimal(value: Fraction) -> str | None:
    """The exact decimal text of a value, or ``None`` where it does not end within 12 places."""
    text = f"{float(value):.12f}".rstrip("0").rstrip(".")
    return text if Fraction(text) == value else None


@dataclass(frozen=True, order=True)
class Budget:
    """One perturbation budget: a norm and an exact size in [0,1]-image units."""

    norm: str
    eps: Fraction

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if self.eps < 0:
            raise SpecError(f"eps must not be negative, got {self.eps}")

    def __str__(self) -> str:
        return f"{self.norm}:{format_fraction(self.eps)}"


@dataclass(frozen=True)
class Ladder:
    """Rungs of one norm in rising order; ``pinned`` ones are attacked cold and in full.

    Args:
        norm: one of ``linf``, ``l2``, ``l1``, ``l0``.
        rungs: exact sizes, strictly rising.
        pinned: the subset of rungs that is reported as a number.
    """

    norm: str
    rungs: tuple[Fraction, ...]
    pinned: frozenset[Fraction] = frozenset()

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if not self.rungs:
            raise SpecError("a ladder needs at least one rung", "write e.g. linf:[1,2,4]/255")
        if any(b <= a for a, b in zip(self.rungs, self.rungs[1:], strict=False)) or self.rungs[0] < 0:
            raise SpecError(f"the rungs of a ladder must rise, got {self.rungs_text()}", "sort them, without repeats")
        if self.norm == "linf" and self.rungs[-1] > 1:
            asked = format_fraction(self.rungs[-1])
            raise SpecError(
                f"an L∞ budget of {asked} is larger than the whole range of a pixel (images lie in [0,1])",
                f"write {asked}/255 for {asked} grey levels",
            )
        if not self.pinned <= set(self.rungs):
            raise SpecError("every pinned budget must be a rung of the ladder")

    def rungs_text(self) -> str:
        return ", ".join(format_fraction(r) + ("*" if r in self.pinned else "") for r in self.rungs)

    def __str__(self) -> str:
        """Canonical text; ``*`` marks pinned rungs; a lone pinned rung is written without brackets."""
        if len(self.rungs) == 1 and self.pinned:
            return f"{self.norm}:{format_fraction(self.rungs[0])}"
        return f"{self.norm}:[{self.rungs_text()}]"


def check_norm(norm: str) -> None:
    if norm not in NORMS:
        raise SpecError(f"unknown norm {norm!r}", did_you_mean(norm, NORMS) or f"norms are {', '.join(NORMS)}")


def parse_budget(text: str) -> Ladder:
    """Read ``linf:4/255`` (one pinned budget) or ``linf:[1/16,1/4,1*,4]/255`` (a ladder).

    A star pins a rung: it is attacked cold and in full, so that it may be quoted as a number.
    A single budget is always pinned.

    Raises:
        SpecError: unknown norm, not a number, or rungs that do not rise.
    """
    norm, colon, rest = text.partition(":")
    if not colon:
        raise SpecError(f"{text!r} is not a budget", "write norm:size, e.g. linf:4/255 or l2:[0.25,0.5,1]")
    return ladder_of(norm.strip(), rest.strip())


def ladder_of(norm: str, sizes: str) -> Ladder:
    """The ladder of ``norm`` whose sizes are written ``4/255``, ``[1,2,4*]/255`` or ``[0.5,1]``."""
    check_norm(norm)
    match = re.fullmatch(r"\[([^\[\]]*)\]\s*(?:/\s*([\d./]+))?", sizes)
    if match is None:
        if "[" in sizes or "]" in sizes:
            raise SpecError(f"{sizes!r} is not a list of sizes", "write e.g. [1/2,1,2]/255")
        value = parse_fraction(sizes)
        return Ladder(norm, (value,), frozenset([value]))
    scale = parse_fraction("1/" + match.group(2)) if match.group(2) else Fraction(1)
    rungs, pinned = [], set()
    for item in match.group(1).split(","):
        item = item.strip()
        value = parse_fraction(item.rstrip("*")) * scale
        rungs.append(value)
        if item.endswith("*"):
            pinned.add(value)
    return Ladder(norm, tuple(rungs), frozenset(pinned))
