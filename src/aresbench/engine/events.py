"""What a run tells while it goes on: plain records for whoever shows progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from aresbench.engine.forecast import Cost
from aresbench.engine.plan import Plan, Planned, Skipped


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Args:
        kind: ``skip`` (a task is left out), ``plan`` (what lies ahead, told once), ``start`` (a cell begins),
            ``advance`` (work went on), ``done`` (a cell is complete), ``failed`` (a cell stopped; the run goes on
            with the next) or ``note`` (something about the run as a whole).
        cell: the cell, for all kinds but ``skip``, ``plan`` and ``note``.
        skipped: for ``skip``.
        done, total: images whose rows are complete, of those the cell needs.
        seconds_left: for the whole run, once something is known about its speed.
        message: the reason of a failure, what is being done, or the note.
        plan, costs: for ``plan``, with what each of its cells costs at most; times where they are worth measuring.
    """

    kind: str
    cell: Planned | None = None
    skipped: Skipped | None = None
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    message: str = ""
    plan: Plan | None = None
    costs: tuple[Cost, ...] = ()


Progress = Callable[[Event], None]


class Clock:
    """Time left, from the work done so far against the work planned.

    Work is counted in forwards plus backwards, weighted by what one cost in the same model so far;
    early breaks make cells cheaper than their full price, so the share actually spent is learnt too.

    Args:
        prices: what each cell costs at most, in passes.
    """

    def __init__(self, prices: list[int]) -> None:
        self.ahead = sum(prices)
        self.spent = 0.0
        self.began = time.monotonic()

    def finish(self, price: int) -> None:
        """A cell of this full price is complete."""
        self.ahead -= price
        self.spent += price

    def seconds_left(self, price: int, share: float) -> float | None:
        """Estimate while a share of a cell of this price is done; ``None`` while too little is known."""
        done = self.spent + price * share
        elapsed = time.monotonic() - self.began
        if done <= 0 or elapsed < 1:
            return None
        return elapsed / done * max(0.0, self.ahead - price * share)
