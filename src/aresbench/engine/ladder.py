"""Which budget to attack next for one image: pins cold and in full, then bounds, then just below the known break.

The plan for an image is a pure function of what has been tried on it. A run that was killed
therefore goes on exactly where it stopped, from the journalled attempts alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction

from aresbench.core.budget import Search, format_fraction, parse_fraction
from aresbench.core.threat import Adversary


@dataclass(frozen=True)
class Attempt:
    """One attempt on one image, as the archive keeps it.

    Args:
        attack: the attack's spec text.
        eps: the rung's exact text; ``""`` for an unbounded minimal-norm search.
        broken: whether the break was confirmed.
        distance: of the confirmed break, ``inf`` where none.
        prediction: what the model saw there, ``None`` where nothing broke.
    """

    attack: str
    eps: str
    broken: bool
    distance: float
    prediction: int | None = None


@dataclass(frozen=True)
class Move:
    """The next attempt to make: an attack at a rung, or (``rung`` is ``None``) an unbounded search.

    Args:
        attack: its spec text.
        rung: the budget, or ``None``.
        pinned: does the suite report this budget as a number?
        enough: the distance at which an unbounded search may end.
    """

    attack: str
    rung: Fraction | None
    pinned: bool
    enough: float = 0.0

    @property
    def eps(self) -> str:
        """The rung's exact text, ``""`` for an unbounded search."""
        return "" if self.rung is None else format_fraction(self.rung)

    @property
    def size(self) -> float:
        """The budget's size, ``inf`` for an unbounded search."""
        return float("inf") if self.rung is None else float(self.rung)


def within(distance: float, rung: Fraction) -> bool:
    """Does a break at this measured distance count for this nominal rung? (The judge's own tolerance.)"""
    return distance <= float(rung) * (1 + 1e-6) + 1e-7


def breaking_rung(rungs: Sequence[Fraction], attempts: Iterable[Attempt]) -> int:
    """Place of the smallest rung at which some attempt broke the image; ``len(rungs)`` if none did.

    A bounded attempt counts for its own rung, and every break for all rungs at or above its distance.
    """
    lowest = len(rungs)
    for attempt in attempts:
        if not attempt.broken:
            continue
        if attempt.eps:
            lowest = min(lowest, rungs.index(parse_fraction(attempt.eps)))
        lowest = bisect_left(range(lowest), True, key=lambda place: within(attempt.distance, rungs[place]))
    return lowest


def next_move(adversary: Adversary, attempts: Sequence[Attempt], minimal: Set[str] = frozenset()) -> Move | None:
    """What to try next on an image that the model gets right, or ``None`` when its case is closed.

    Pinned rungs come first, from the smallest up: each is attacked by every attack, cold, unless the
    image is already broken there. Between a resisted pin and the known break the ladder is then
    searched: the cheap bound once, then the rung just below the break until one is resisted by every
    attack. Without a bound the open stretch is halved instead. A ladder that is a search has its own order.

    Attacks that look for the nearest break are run once, and count for every rung; beside others they end inside
    the smallest rung.

    Args:
        adversary: what to attack with, and where.
        attempts: on this image so far, in any order.
        minimal: which of the attacks look for the nearest break.
    """
    if adversary.ladder.search is not None:
        return _search_move(adversary, adversary.ladder.search, attempts, minimal)
    rungs, pinned = adversary.ladder.rungs, adversary.ladder.pinned
    tried = {(a.attack, a.eps) for a in attempts}
    top = breaking_rung(rungs, attempts)

    def untried(place: int) -> Move | None:
        for attack in adversary.attacks:
            if attack in minimal:
                if (attack, "") not in tried:
                    return Move(attack, None, False, 0.0 if set(adversary.attacks) <= minimal else float(rungs[0]))
            elif (attack, format_fraction(rungs[place])) not in tried:
                return Move(attack, rungs[place], rungs[place] in pinned)
        return None

    for place, rung in enumerate(rungs[:top]):
        if rung in pinned and (move := untried(place)) is not None:
            return move
    floor = max((place for place in range(top) if untried(place) is None), default=-1)
    if floor == top - 1:
        return None
    if adversary.bound != "none":
        if (adversary.bound, "") not in tried:
            return Move(adversary.bound, None, False)
        return untried(top - 1)
    return untried((floor + top) // 2)


def _search_move(adversary: Adversary, search: Search, attempts: Sequence[Attempt], minimal: Set[str]) -> Move | None:
    """The next step of a search: the coarse sizes until one breaks, then the middle of the stretch still open.

    Only the attempts so far say where the search stands, and a size that a known break already lies within
    is not attacked again.
    """
    tried = {(a.attack, a.eps) for a in attempts}
    breaks = [a for a in attempts if a.broken]

    def broken(size: Fraction) -> bool:
        return any(a.eps == format_fraction(size) or within(a.distance, size) for a in breaks)

    def untried(size: Fraction) -> Move | None:
        for attack in adversary.attacks:
            rung = None if attack in minimal else size
            if (attack, "" if rung is None else format_fraction(size)) not in tried:
                return Move(attack, rung, False)
        return None

    low = Fraction(0)
    for high in search.coarse:
        if broken(high):
            break
        if (move := untried(high)) is not None:
            return move
        low = high
    else:
        return None  # beyond the last size
    for _ in range(search.bisections):
        middle = (low + high) / 2
        if broken(middle):
            high = middle
        elif (move := untried(middle)) is not None:
            return move
        else:
            low = middle
    return None
