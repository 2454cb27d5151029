"""Several runs of one search, one after the other: each image goes on to its next by itself, until its first break."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from aresbench.attacks import geometry
from aresbench.attacks.base import State

S = TypeVar("S", bound=State)


class Place(NamedTuple):
    """Where each image stands, [N] int64 each: in which run, in which leg of it, after how many updates of the leg."""

    run: Tensor
    leg: Tensor
    done: Tensor


@dataclass(frozen=True)
class Runs:
    """How the steps of an attack divide into runs, and each run into legs.

    A leg of n updates takes n + 1 steps, the last of which asks about its last iterate and begins the next leg.
    The very last iterate is left to ``finish``.

    Args:
        legs: updates in each leg of a run.
        count: how many runs there are.
    """

    legs: tuple[int, ...]
    count: int = 1

    @property
    def steps(self) -> int:
        """How many steps all runs take together."""
        return self.count * self._length - 1

    @property
    def _length(self) -> int:
        return sum(self.legs) + len(self.legs)

    def place(self, t: Tensor) -> Place:
        """Where images stand after ``t`` steps, [N] int64."""
        run, done = t // self._length, t % self._length
        leg = torch.zeros_like(t)
        for number, length in enumerate(self.legs[:-1]):
            later = (leg == number) & (done > length)
            leg, done = leg + later, torch.where(later, done - (length + 1), done)
        return Place(run, leg, done)

    def over(self, place: Place) -> Tensor:
        """[N] bool: is this the leg's last step?"""
        return place.done == of_leg(place.leg, self.legs)


def of_leg(leg: Tensor, values: Sequence[int]) -> Tensor:
    """The value of each image's leg, [N] int64."""
    found = torch.full_like(leg, values[0])
    for number, value in enumerate(values[1:], start=1):
        found = torch.where(leg == number, value, found)
    return found


def renew(state: S, over: Tensor, fresh: Callable[[], S]) -> S:
    """The state, with the rows ``over`` [N] bool taken from a fresh one; everybody's ``t`` goes on."""
    if not over.is_cuda and not over.any():
        return state
    again = fresh()
    new: dict[str, Any] = {}
    for f in fields(state):
        row, old = getattr(again, f.name), getattr(state, f.name)
        if f.name != "t" and row is not None:
            new[f.name] = torch.where(geometry.per_image(over, old), row, old)
    return replace(state, **new)
