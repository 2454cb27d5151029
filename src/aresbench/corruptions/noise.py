"""Corruptions that add noise to every value: each pixel and channel for itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.corruptions.base import Corruption, floor_levels, widen
from aresbench.corruptions.parameters import GAUSSIAN_NOISE, IMPULSE_NOISE, SHOT_NOISE, SPECKLE_NOISE, Doses
from aresbench.ops.random import Streams


@dataclass(frozen=True)
class GaussianNoise(Corruption):
    """Independent normal noise on every pixel and channel, as in low light (Hendrycks and Dietterich, ICLR 2019).

    x + σ·n. Draws: ``normal`` [N,3,H,W], standard normal.

    Args:
        severity: 1 to 5; σ from 0.08 to 0.38 at 224 px.
        mode: what follows the change.
    """

    name: ClassVar[str] = "gaussian_noise"
    family: ClassVar[str] = "noise"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = GAUSSIAN_NOISE

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {"normal": streams.normal("noise", (3, height, width))}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        sigma = self.dose(x.shape[2], x.shape[3])
        noise = draws["normal"].to(x.device).double() * sigma
        return floor_levels(noise.add_(widen(x)))


@dataclass(frozen=True)
class ShotNoise(Corruption):
    """The grain of few photons: each value becomes a Poisson count (Hendrycks and Dietterich, ICLR 2019).

    Poisson(λ·x)/λ. Draws: ``uniform`` [N,3,H,W] float64 in [0,1), multiples of 2^-53, of which the count is the
    quantile (:func:`poisson_levels`): equal on every device.

    Args:
        severity: 1 to 5; λ, the photons of a white value, from 60 down to 3 at 224 px.
        mode: what follows the change.
    """

    name: ClassVar[str] = "shot_noise"
    family: ClassVar[str] = "noise"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = SHOT_NOISE

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {"uniform": streams.uniform("noise", (3, height, width), dtype=torch.float64)}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        photons = self.dose(x.shape[2], x.shape[3])
        return poisson_levels(widen(x), photons, draws["uniform"].to(x.device, torch.float64))


@dataclass(frozen=True)
class ImpulseNoise(Corruption):
    """Salt and pepper: single values go all on or all off, as from bit errors (Hendrycks and Dietterich, ICLR 2019).

    Where a draw is below half the amount the value becomes 1, where it is below the amount 0; each channel for
    itself. Draws: ``uniform`` [N,3,H,W] in [0,1).

    Args:
        severity: 1 to 5; amount, the share of values replaced, from 0.03 to 0.27 at 224 px.
        mode: what follows the change.
    """

    name: ClassVar[str] = "impulse_noise"
    family: ClassVar[str] = "noise"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = IMPULSE_NOISE

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {"uniform": streams.uniform("noise", (3, height, width))}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        amount = self.dose(x.shape[2], x.shape[3])
        uniform = draws["uniform"].to(x.device)
        peppered = widen(x).masked_fill(uniform < amount, 0)
        return floor_levels(peppered.masked_fill_(uniform < amount / 2, 1))


@dataclass(frozen=True)
class SpeckleNoise(Corruption):
    """Noise that grows with the brightness, as in radar and ultrasound (Hendrycks and Dietterich, ICLR 2019).

    x + x·σ·n; one of the four extra corruptions, not part of the mean corruption error. Draws: ``normal``
    [N,3,H,W], standard normal.

    Args:
        severity: 1 to 5; σ from 0.15 to 0.6 at 224 px.
        mode: what follows the change.
    """

    name: ClassVar[str] = "speckle_noise"
    family: ClassVar[str] = "noise"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = SPECKLE_NOISE

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {"normal": streams.normal("noise", (3, height, width))}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        sigma = self.dose(x.shape[2], x.shape[3])
        clean = widen(x)
        noise = draws["normal"].to(x.device).double() * sigma
        return floor_levels(noise.mul_(clean).add_(clean))


# Poisson counts by inversion: the count is the smallest k with u < P(count ≤ k). Draws are whole numbers U = u·2^53
# and so are the bounds, which makes every comparison exact. Counts of λ and above are all white.
_DRAW_BITS = 53
_CELL_BITS = 11  # the table has 2^11 cells of draws per grey level
_SEVERAL = -1


def poisson_levels(x: Tensor, photons: int, uniform: Tensor) -> Tensor:
    """The levels floor(255·clip(k/λ)) of Poisson counts k with mean λ·x.

    Values on one of the 256 grey levels, which is nearly always all of them, are looked up: most cells of draws
    lead to one level; the few that hold a bound of the distribution are searched. Other values are counted up.

    Args:
        x: images [N,3,H,W] float64.
        photons: λ.
        uniform: as many draws, float64 in [0,1).

    Returns:
        [N,3,H,W] int16.
    """
    cells, bounds, level_of = _tables(photons, x.device)
    values, numbers = x.reshape(-1), uniform.reshape(-1)
    grey = (values * 255).round_()
    row, draw = grey.long(), (numbers * 2.0**_DRAW_BITS).long()
    levels = cells.index_select(0, (row << _CELL_BITS) | (draw >> (_DRAW_BITS - _CELL_BITS)))

    several = (levels == _SEVERAL).nonzero().squeeze(1)
    rows = row[several]
    passed = torch.searchsorted(bounds, (rows << _DRAW_BITS) + draw[several], right=True)
    levels[several] = level_of[passed - rows * photons]

    between = (grey.div_(255) != values).nonzero().squeeze(1)
    if len(between):
        counts = sum(
            (numbers[between] >= chance).long() for chance in _distribution(values[between] * photons, photons)
        )
        levels[between] = level_of[counts]
    return levels.view_as(x)


def _distribution(mean: Tensor, counts: int) -> Iterator[Tensor]:
    """P(count ≤ k) for k = 0 … ``counts`` - 1 of Poisson counts with these means (up to 700), one k after the other."""
    chance = torch.exp(-mean)
    total = chance.clone()
    for k in range(1, counts + 1):
        yield total
        chance = chance * mean / k
        total = total + chance


@lru_cache(maxsize=32)
def _tables(photons: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For the 256 grey levels, λ bounds each: what :func:`poisson_levels` looks up.

    Returns:
        cells: [256·2^11] int16, the level of the draws of one cell, or ``_SEVERAL``.
        bounds: [256·λ] int64 in rising order: row·2^53 + the smallest draw whose count is above k.
        level_of: [λ+1] int16, the level of a count.
    """
    rows = torch.arange(256)
    chances = torch.stack(list(_distribution(rows.double() / 255 * photons, photons)), 1)
    bounds = (chances.clamp_(max=1) * 2.0**_DRAW_BITS).ceil_().long()
    level_of = (torch.arange(photons + 1).double() / photons * 255).floor_().to(torch.int16)

    # In each cell, the count of its first draw and that of its last: the bounds up to there.
    side = _DRAW_BITS - _CELL_BITS
    first, last = (
        torch.zeros(256, (1 << _CELL_BITS) + 1, dtype=torch.int64)
        .scatter_add_(1, (bounds + offset) >> side, torch.ones_like(bounds))
        .cumsum_(1)[:, :-1]
        for offset in ((1 << side) - 1, 0)
    )
    cells = torch.where(level_of[first] == level_of[last], level_of[first], _SEVERAL)
    flat = (bounds + (rows[:, None] << _DRAW_BITS)).flatten()
    return cells.flatten().to(device), flat.to(device), level_of.to(device)
