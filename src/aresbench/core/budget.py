"""Perturbation budgets as exact fractions: ``linf:4/255`` and ladders of them."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Any

from aresbench.core.errors import SpecError, did_you_mean
from aresbench.core.spec import parse_call

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
class Search(Sequence[Fraction]):
    """Every size that one search per image can return, in rising order; none of them is written down.

    An image is attacked at the coarse sizes until one breaks it; the stretch between that one and the one
    below it is then halved again and again (the "distortion benchmark" of ARES: Dong et al., 2020; Liu et
    al., 2024).

    Args:
        start: the first size.
        doublings: the coarse sizes are start · 2^k for k = 0 … doublings.
        multiples: or, where it is not 0, start · k for k = 1 … multiples.
        bisections: how often the stretch is halved.
    """

    start: Fraction
    doublings: int = 0
    multiples: int = 0
    bisections: int = 10

    def __post_init__(self) -> None:
        if self.start <= 0:
            raise SpecError("a search must start above 0", "write e.g. search(2/255, doublings=5, bisections=10)")
        if self.doublings and self.multiples:
            raise SpecError("a search goes up by doublings or by multiples, not by both")
        for name, most in (("doublings", 16), ("multiples", 256), ("bisections", 20)):
            if not 0 <= getattr(self, name) <= most:
                raise SpecError(f"{name}={getattr(self, name)} of a search", f"choose 0 to {most}")

    @cached_property
    def coarse(self) -> tuple[Fraction, ...]:
        """The sizes tried first, rising."""
        if self.multiples:
            return tuple(self.start * k for k in range(1, self.multiples + 1))
        return tuple(self.start * 2**k for k in range(self.doublings + 1))

    @property
    def most(self) -> int:
        """The largest number of sizes at which an image may be attacked."""
        return len(self.coarse) + self.bisections

    @cached_property
    def marks(self) -> tuple[Fraction, ...]:
        """A few dozen of the sizes, at which a curve is drawn: quarters of each doubling, down to start/1024."""
        octaves = range(-min(10, max(0, self.bisections - 2)), self.doublings)
        quarters = {self.start * Fraction(2) ** k * Fraction(q, 4) for k in octaves for q in (4, 5, 6, 7)}
        return tuple(sorted(size for size in {*quarters, *self.coarse} if size in self))

    def __len__(self) -> int:
        return len(self.coarse) << self.bisections

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return tuple(self[k] for k in range(*place.indices(len(self))))
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        stretch, part = divmod(place % len(self), 1 << self.bisections)
        low = self.coarse[stretch - 1] if stretch else Fraction(0)
        return low + (self.coarse[stretch] - low) * Fraction(part + 1, 1 << self.bisections)

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """The place of a size, by arithmetic."""
        stretch = bisect_left(self.coarse, value)
        if value > 0 and stretch < len(self.coarse):
            low = self.coarse[stretch - 1] if stretch else Fraction(0)
            part = (value - low) / (self.coarse[stretch] - low) * (1 << self.bisections)
            if part.denominator == 1:
                return (stretch << self.bisections) + int(part) - 1
        raise ValueError(f"{value} is not reached by {self}")

    def __contains__(self, value: object) -> bool:
        try:
            return self.index(value) >= 0
        except ValueError:
            return False

    def __str__(self) -> str:
        up = f"multiples={self.multiples}" if self.multiples else f"doublings={self.doublings}"
        return f"search({format_fraction(self.start)}, {up}, bisections={self.bisections})"


@dataclass(frozen=True)
class Ladder:
    """Rungs of one norm in rising order; ``pinned`` ones are attacked cold and in full.

    Args:
        norm: one of ``linf``, ``l2``, ``l1``, ``l0``.
        rungs: exact sizes, strictly rising; or the search that can return them.
        pinned: the subset of rungs that is reported as a number.
    """

    norm: str
    rungs: tuple[Fraction, ...] | Search
    pinned: frozenset[Fraction] = frozenset()

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if not self.rungs:
            raise SpecError("a ladder needs at least one rung", "write e.g. linf:[1,2,4]/255")
        listed = self.marks  # what a search can return rises by construction
        if any(b <= a for a, b in pairwise(listed)) or listed[0] < 0:
            raise SpecError(f"the rungs of a ladder must rise, got {self.rungs_text()}", "sort them, without repeats")
        if self.norm == "linf" and self.rungs[-1] > 1:
            asked = format_fraction(self.rungs[-1])
            raise SpecError(
                f"an L∞ budget of {asked} is larger than the whole range of a pixel (images lie in [0,1])",
                f"write {asked}/255 for {asked} grey levels",
            )
        if not self.pinned <= set(listed):
            raise SpecError("every pinned budget must be a rung of the ladder")

    @property
    def search(self) -> Search | None:
        """The search whose sizes the rungs are, if they are such."""
        return self.rungs if isinstance(self.rungs, Search) else None

    @property
    def marks(self) -> tuple[Fraction, ...]:
        """The points of its curve: the rungs, or some dozens of a search's thousands."""
        return self.rungs.marks if isinstance(self.rungs, Search) else self.rungs

    @property
    def runs(self) -> int:
        """The number of budgets at which a plan must reckon to run the attacks on each image."""
        if isinstance(self.rungs, Search):
            return self.rungs.most
        return len(self.pinned) + (len(self.pinned) < len(self.rungs))

    def rungs_text(self) -> str:
        return ", ".join(format_fraction(r) + ("*" if r in self.pinned else "") for r in self.marks)

    def __str__(self) -> str:
        """Canonical text; ``*`` marks pinned rungs; a lone pinned rung is written without brackets."""
        if self.search is not None:
            return f"{self.norm}:{self.search}"
        if len(self.rungs) == 1 and self.pinned:
            return f"{self.norm}:{format_fraction(self.rungs[0])}"
        return f"{self.norm}:[{self.rungs_text()}]"


def check_norm(norm: str) -> None:
    if norm not in NORMS:
        raise SpecError(f"unknown norm {norm!r}", did_you_mean(norm, NORMS) or f"norms are {', '.join(NORMS)}")


def parse_budget(text: str) -> Ladder:
    """Read ``linf:4/255`` (one pinned budget) or ``linf:[1/16,1/4,1*,4]/255`` (a ladder).

    A star pins a rung: it is attacked cold and in full, so that it may be quoted as a number.
    A single budget is always pinned. ``linf:search(2/255, doublings=5, bisections=10)`` is a ``Search``.

    Raises:
        SpecError: unknown norm, not a number, or rungs that do not rise.
    """
    norm, colon, rest = text.partition(":")
    if not colon:
        raise SpecError(f"{text!r} is not a budget", "write norm:size, e.g. linf:4/255 or l2:[0.25,0.5,1]")
    return ladder_of(norm.strip(), rest.strip())


def ladder_of(norm: str, sizes: str) -> Ladder:
    """The ladder of ``norm`` whose sizes are written ``4/255``, ``[1,2,4*]/255``, ``[0.5,1]`` or ``search(…)``."""
    check_norm(norm)
    if sizes.startswith("search(") and sizes.endswith(")"):
        return Ladder(norm, _search(sizes))
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


def _search(text: str) -> Search:
    """Read ``search(2/255, doublings=5, bisections=10)``."""
    call = parse_call(text)
    if len(call.args) != 1:
        raise SpecError(
            f"{text!r} needs one size to start from", "write e.g. search(2/255, doublings=5, bisections=10)"
        )
    known = ("doublings", "multiples", "bisections")
    for key, value in call.kwargs.items():
        if key not in known:
            raise SpecError(
                f"a search has no setting {key!r}", did_you_mean(key, known) or f"it has {', '.join(known)}"
            )
        if not value.isdigit():
            raise SpecError(f"{key}={value} of a search", "write a whole number")
    return Search(parse_fraction(call.args[0]), **{key: int(value) for key, value in call.kwargs.items()})
