"""Resizing with the box filter, equal to Pillow's to the bit, as sums of whole numbers on any device."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

# Pillow's weights for 8-bit pictures are whole numbers of this many binary places.
_PLACES = 22


def box_resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resize as ``picture.resize((width, height), Image.Resampling.BOX)`` does: first each row, then each column.

    Both passes round to 8 bits. Pillow's box gives all the pixels whose middle lies in it the same weight, none a
    part of it: towards fewer pixels the runs may differ by one in length, towards more it is the nearest pixel.

    The rows always come first, as in Pillow up to 12. Pillow 13 takes the columns first where the height shrinks
    by more than twice as many pixels as the width; there single values differ from it by one level.

    Args:
        images: [N,C,H,W] uint8.
        height, width: of the result, at least 1.

    Returns:
        [N,C,height,width] uint8.
    """
    return _one_side(_one_side(images, width, 3), height, 2)


def _one_side(levels: Tensor, length: int, side: int) -> Tensor:
    """One dimension resized to ``length``."""
    before = levels.shape[side]
    if before == length:
        return levels
    start, stop, weight = _runs(before, length, levels.device)
    if length > before:
        return levels.index_select(side, start)
    sums = levels.cumsum(side, dtype=torch.int32)
    upto = torch.cat((torch.zeros_like(sums.narrow(side, 0, 1)), sums), side)
    total = upto.index_select(side, stop) - upto.index_select(side, start)
    total *= weight if side == 3 else weight[:, None]
    return (total.add_(1 << (_PLACES - 1)) >> _PLACES).to(torch.uint8)


@lru_cache(maxsize=128)
def _runs(before: int, after: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel of the result: first and last + 1 of the pixels it averages, and their weight times 2^22."""
    scale = before / after
    stretch = max(scale, 1.0)
    starts, stops, weights = [], [], []
    for k in range(after):
        centre = (k + 0.5) * scale
        low, high = max(int(centre - stretch / 2 + 0.5), 0), min(int(centre + stretch / 2 + 0.5), before)
        inside = [i for i in range(low, high) if -0.5 < (i - centre + 0.5) * (1 / stretch) <= 0.5]
        starts.append(inside[0])
        stops.append(inside[-1] + 1)
        weights.append(math.floor(0.5 + 1 / len(inside) * (1 << _PLACES)))
    start, stop = (torch.tensor(places, device=device) for places in (starts, stops))
    return start, stop, torch.tensor(weights, dtype=torch.int32, device=device)
