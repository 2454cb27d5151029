"""Drops of rain or of mud on the lens.

Water takes its look from a chain of steps of classic image processing, which OpenCV did for the benchmark. They are
written here as batched tensor operations with whole numbers, whose results are equal to OpenCV's to the bit. (OpenCV
with Intel's library inside reckons distances in float32 instead: 1 level apart on 1 of 10,000 values of the result.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aresbench.corruptions.base import Corruption, widen
from aresbench.corruptions.blur import gaussian
from aresbench.corruptions.parameters import SPATTER, Doses
from aresbench.ops.random import Streams

WATER = (175 / 255, 238 / 255, 238 / 255)  # pale turquoise
MUD = (63 / 255, 42 / 255, 20 / 255)  # brown
_MUD_EDGE = 0.8  # thinner mud than this is none
_FARTHEST = 20  # pixels from an edge at which distances stop to count


@dataclass(frozen=True)
class Spatter(Corruption):
    """Water (1 to 3) or mud (4, 5) on the lens; an extra, not in mCE (Hendrycks and Dietterich, ICLR 2019).

    Drops are where a blurred normal field exceeds a threshold. Mud covers the picture with brown, water brightens
    it by a turquoise relief (:func:`relief`). Images are float32 in between, as in the benchmark. Where the field
    nowhere exceeds the threshold there is no drop, and the picture stays as it is.

    Draws: ``normal`` [N,H,W], standard normal.

    Args:
        severity: 1 to 5.
        mode: the protocol.
    """

    name: ClassVar[str] = "spatter"
    family: ClassVar[str] = "weather"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = SPATTER

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {"normal": streams.normal("drops", (height, width))}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        mean, deviation, sigma, threshold, strength, is_mud = self.dose(x.shape[2], x.shape[3])
        field = draws["normal"].to(x.device).double().mul_(deviation).add_(mean)[:, None]
        field = gaussian(field, sigma)
        clean = widen(x).float()
        if is_mud:
            mud = gaussian((field > threshold).double(), strength).float()
            mud.masked_fill_(mud < _MUD_EDGE, 0)
            dirty = clean * (1 - mud) + mud * _colour(MUD, x.device)
        else:
            drops = field.masked_fill_(field < threshold, 0).mul_(255).int().bitwise_and_(255)  # 8 bits, wrapped
            water = (drops * relief(drops)).float()
            # In float32, and a division before a product: the roundings decide where a sum is a whole level.
            water = water / water.amax((2, 3), keepdim=True).clamp_min(1) * strength
            dirty = clean + water * _colour(WATER, x.device)
        return dirty.clamp_(0, 1).mul_(255).floor_()


def _colour(rgb: tuple[float, float, float], device: torch.device) -> Tensor:
    return torch.tensor(rgb, dtype=torch.float32, device=device)[:, None, None]


def relief(drops: Tensor) -> Tensor:
    """How brightly drops shine: an embossed map of the distance from their edges.

    Args:
        drops: [N,1,H,W] int32, levels 0…255.

    Returns:
        [N,1,H,W] int32, levels 0…255.
    """
    distance = edge_distance(edges(drops))
    # Means of nine in float32, cut to whole pixels.
    depth = (_boxes(distance.double()) * (1 / 9)).float().long()
    around = _reflected(equalised(depth).int())
    height, width = drops.shape[2:]

    def near(down: int, along: int) -> Tensor:
        return around[:, :, 1 + down : 1 + down + height, 1 + along : 1 + along + width]

    embossed = near(0, 0) + near(0, 1) + near(1, 0) - near(0, -1) - near(-1, 0) + 2 * (near(1, 1) - near(-1, -1))
    return (_boxes(embossed.clamp_(0, 255)) + 4) // 9


def edges(picture: Tensor, low: int = 50, high: int = 150) -> Tensor:
    """Where brightness jumps: lines one pixel wide (Canny, PAMI 1986), as OpenCV finds them.

    Gradients by Sobel's 3 × 3 kernels with the border repeated, their size |x| + |y|; kept where larger than both
    neighbours across the edge (compared in whole numbers at 22.5° and 67.5°), if above ``high`` or if connected,
    over any of eight neighbours, to one above ``high`` by such above ``low``.

    Args:
        picture: [N,1,H,W] int32, levels.
        low, high: limits of the gradient's size.

    Returns:
        [N,1,H,W] bool.
    """
    height, width = picture.shape[2:]
    around = F.pad(picture.float(), (1, 1, 1, 1), mode="replicate").int()
    columns = around[:, :, :-2] + 2 * around[:, :, 1:-1] + around[:, :, 2:]
    rows = around[..., :-2] + 2 * around[..., 1:-1] + around[..., 2:]
    along = columns[..., 2:] - columns[..., :-2]
    down = rows[:, :, 2:] - rows[:, :, :-2]
    size = along.abs() + down.abs()
    outer = F.pad(size, (1, 1, 1, 1))

    def near(row: int, column: int) -> Tensor:
        return outer[:, :, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    flat = along.abs() * 13573  # tan 22.5° in 1/2^15
    steep = down.abs() << 15
    level = steep < flat
    upright = steep > flat + (along.abs() << 16)  # tan 67.5° = tan 22.5° + 2
    across = (size > near(0, -1)) & (size >= near(0, 1))
    over = (size > near(-1, 0)) & (size >= near(1, 0))
    falling = (along < 0) ^ (down < 0)
    slanted = torch.where(
        falling, (size > near(-1, 1)) & (size > near(1, -1)), (size > near(-1, -1)) & (size > near(1, 1))
    )
    candidate = torch.where(level, across, torch.where(upright, over, slanted)) & (size > low)
    edge = candidate & (size > high)
    while True:
        before = edge
        for _ in range(8):  # look only now and then whether anything was still added
            wide = edge.clone()
            wide[..., 1:] |= edge[..., :-1]
            wide[..., :-1] |= edge[..., 1:]
            edge = wide.clone()
            edge[:, :, 1:] |= wide[:, :, :-1]
            edge[:, :, :-1] |= wide[:, :, 1:]
            edge &= candidate
        if torch.equal(edge, before):
            return edge


def edge_distance(edge: Tensor) -> Tensor:
    """Distance of each pixel from the nearest edge, at most 20, measured in steps (Borgefors, CVGIP 1986).

    A step to a side counts 1, a diagonal one 1.4, a knight's move 2.1969, in whole multiples of 2^-16 as in OpenCV.
    A shortest way takes steps of two neighbouring directions at most, all of one, then all of the other. So it
    is found by going in each of the 16 directions in turn, 1, 2, 4 … steps at once.

    Args:
        edge: [N,1,H,W] bool.

    Returns:
        [N,1,H,W] float32.
    """
    height, width = edge.shape[2:]
    unit = 1 << 16
    distance = (~edge).int() * (_FARTHEST * unit)
    for down, along in ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (1, -2), (2, 1), (2, -1)):
        cost = round({1: 1.0, 2: 1.4, 3: 2.1969}[abs(down) + abs(along)] * unit)
        count = 1
        while count * cost < _FARTHEST * unit:
            rows, columns = count * down, count * along
            if rows >= height or abs(columns) >= width:
                break
            upper, lower = slice(0, height - rows), slice(rows, height)
            left, right = slice(0, width - abs(columns)), slice(abs(columns), width)
            if columns < 0:
                left, right = right, left
            first, last = distance[:, :, upper, left], distance[:, :, lower, right]
            torch.minimum(last, first + cost * count, out=last)
            torch.minimum(first, last + cost * count, out=first)
            count *= 2
    return distance.float() / unit


def equalised(depth: Tensor) -> Tensor:
    """Levels spread evenly over 0…255 by how frequent they are, as OpenCV does; one level alone stays.

    Args:
        depth: [N,1,H,W] int64, 0…20.
    """
    values = depth.flatten(1)
    counts = values.new_zeros(len(values), _FARTHEST + 1).scatter_add_(1, values, torch.ones_like(values))
    lowest = values.amin(1, keepdim=True)
    rare = counts.gather(1, lowest)
    others = values.shape[1] - rare
    scale = torch.tensor(255, dtype=torch.float32, device=depth.device) / others
    table = ((counts.cumsum(1) - rare) * scale).round().clamp(0, 255).long()
    return torch.where(others == 0, values, table.gather(1, values)).view_as(depth)


def _reflected(x: Tensor) -> Tensor:
    """One more pixel on every side: the image's mirror without repeating the edge (a single row is repeated)."""
    for side in (2, 3):
        length = x.shape[side]
        place = torch.arange(-1, length + 1, device=x.device).abs()
        x = x.index_select(side, torch.where(place < length, place, length - 2).clamp_min(0))
    return x


def _boxes(x: Tensor) -> Tensor:
    """Sums over 3 × 3 pixels, the image mirrored at its border."""
    around = _reflected(x)
    rows = around[:, :, :-2] + around[:, :, 1:-1] + around[:, :, 2:]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
