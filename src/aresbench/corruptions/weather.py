"""Corruptions that imitate weather."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.corruptions.base import Corruption, floor_levels, widen
from aresbench.corruptions.parameters import FOG, Doses
from aresbench.ops.random import Streams


@dataclass(frozen=True)
class Fog(Corruption):
    """Fog in banks: a random relief lightens and flattens the picture (Hendrycks and Dietterich, ICLR 2019).

    (x + c·plasma)·m/(m + c), where m is the largest value of the clean image and the plasma is the top
    left corner of a relief (:func:`plasma`). Draws: ``uniform`` [N, S²−1] float64 in [0,1), in the order
    of the recursion; S is the smallest power of two that covers the image.

    Args:
        severity: 1 to 5; c from 1.5 to 3 at 224 px.
        mode: what follows the change.
    """

    name: ClassVar[str] = "fog"
    family: ClassVar[str] = "weather"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = FOG

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        side = _map_side(height, width)
        return {"uniform": streams.uniform("plasma", (side * side - 1,), dtype=torch.float64)}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        height, width = x.shape[2:]
        strength, decay = self.dose(height, width)
        relief = plasma(draws["uniform"].to(x.device, torch.float64), _map_side(height, width), decay)
        clean = widen(x)
        brightest = clean.amax((1, 2, 3), keepdim=True)
        foggy = clean + strength * relief[:, None, :height, :width]  # clean may be the caller's own tensor
        return floor_levels(foggy.mul_(brightest).div_(brightest + strength))


def _map_side(height: int, width: int) -> int:
    return max(2, 1 << (max(height, width) - 1).bit_length())


def plasma(uniform: Tensor, side: int, decay: float) -> Tensor:
    """Random reliefs by the diamond–square recursion on a torus (Fournier, Fussell and Carpenter, CACM 1982).

    From coarse to fine, the middle of each square of known points, then the middle of each diamond,
    becomes the mean of its four neighbours plus w·U(−w, w). The swing w starts at 100 and is divided by
    ``decay`` from level to level. The order of the sums is fixed, so that float64 results are equal to
    the bit to those of the point-by-point recursion.

    Args:
        uniform: [N, side²−1] float64 in [0,1), in the order: per level the squares, then the diamonds on the upper
            edges of the squares, then those on their left edges, each row by row.
        side: length of the map, a power of two of at least 2.
        decay: how fast the relief fades; larger is smoother.

    Returns:
        [N, side, side], each map stretched to [0,1].
    """
    swings = _swings(side, decay, uniform.device)
    noise = (uniform * (2 * swings)).sub_(swings).mul_(swings)
    relief = uniform.new_zeros(len(uniform), 1, 1)
    used = 0

    def middle(total: Tensor) -> Tensor:
        """The mean of four neighbours of which the sum is given, plus the next draws."""
        nonlocal used
        count = total[0].numel()
        draw = noise[:, used : used + count].view_as(total)
        used += count
        return torch.add(draw, total, alpha=0.25)

    while (known := relief.shape[1]) < side:
        columns = relief + relief.roll(-1, 1)
        rows = relief + relief.roll(-1, 2)
        squares = middle(columns + columns.roll(-1, 2))
        above = middle((squares + squares.roll(1, 1)).add_(rows))
        beside = middle((squares + squares.roll(1, 2)).add_(columns))
        finer = uniform.new_empty(len(uniform), 2 * known, 2 * known)
        finer[:, ::2, ::2], finer[:, ::2, 1::2] = relief, above
        finer[:, 1::2, ::2], finer[:, 1::2, 1::2] = beside, squares
        relief = finer

    relief -= relief.amin((1, 2), keepdim=True)
    return relief.div_(relief.amax((1, 2), keepdim=True))


@lru_cache(maxsize=32)
def _swings(side: int, decay: float, device: torch.device) -> Tensor:
    """The swing w of each of the side²−1 draws: 3·4^k draws at the k-th level."""
    levels, swing, known = [], 100.0, 1
    while known < side:
        levels.append(torch.full((3 * known * known,), swing, dtype=torch.float64))
        known, swing = 2 * known, swing / decay
    return torch.cat(levels).to(device)
