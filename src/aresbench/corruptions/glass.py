"""A view through frosted glass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aresbench.corruptions.base import Corruption, floor_levels, widen
from aresbench.corruptions.blur import gaussian
from aresbench.corruptions.parameters import GLASS_BLUR, Doses
from aresbench.ops.random import Streams


@dataclass(frozen=True)
class GlassBlur(Corruption):
    """Seen through frosted glass: pixels change place with near ones (Hendrycks and Dietterich, ICLR 2019).

    Blurred by :func:`aresbench.corruptions.blur.gaussian` and cut to 8 bits, displaced (:func:`origins`), and blurred
    again. Draws: ``shift`` [N, passes, rows, columns, 2] int64, each (dx, dy) uniform in {−Δ, …, Δ − 1}; in the order
    of the displacement, from the last pixel to the first, for all but 2Δ of the image's rows and columns.

    Args:
        severity: 1 to 5; Δ from 1 to 4 px at 224 px.
        mode: what follows the change.
    """

    name: ClassVar[str] = "glass_blur"
    family: ClassVar[str] = "blur"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = GLASS_BLUR

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        _, reach, passes = self.dose(height, width)
        shape = (passes, max(height - 2 * reach, 0), max(width - 2 * reach, 0), 2)
        return {"shift": streams.integers("shift", 2 * reach, shape) - reach}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        sigma, reach, _ = self.dose(x.shape[2], x.shape[3])
        soft = floor_levels(gaussian(widen(x), sigma))
        source = origins(draws["shift"].to(x.device), reach, x.shape[2], x.shape[3])
        moved = soft.flatten(2).gather(2, source[:, None].expand(-1, x.shape[1], -1)).view_as(soft)
        return floor_levels(gaussian(moved.div_(255), sigma))


def origins(shift: Tensor, reach: int, height: int, width: int) -> Tensor:
    """Where each pixel comes from, after passes of displacements that build on one another.

    A pass goes over the rows and columns from n − Δ down to Δ + 1 (both included; n rows or columns, counted from 0),
    from the last pixel to the first, and overwrites each pixel with the one dx columns and dy rows away. That one
    may have been overwritten already in the same pass. (The paper's code means to swap the two, but its array views
    copy: values get lost, and so it was published.)

    No loop over the pixels is needed. A pixel whose neighbour was overwritten before takes what that one took:
    so it points on to it, and chains of pointers only ever lead to later pixels. Following all pointers at once,
    twice as far each time, finds the end of every chain in a handful of rounds.

    Args:
        shift: [N, passes, rows, columns, 2] int64, (dx, dy) of each pixel, the last pixel first.
        reach: Δ in pixels.
        height, width: of the images in pixels.

    Returns:
        [N, height·width] int64: the place, row by row, from which each pixel's value comes.
    """
    here = torch.arange(height * width, device=shift.device)
    origin = here.expand(len(shift), -1)
    if not shift.numel():
        return origin
    steps = (shift[..., 1] * width + shift[..., 0]).flip(2, 3)  # from the first pixel to the last
    margins = (reach + 1, reach - 1) * 2
    moves = F.pad(torch.ones_like(steps[0, 0], dtype=torch.bool), margins).flatten().expand(len(shift), -1)
    for step in F.pad(steps, margins).flatten(2).unbind(1):
        target = here + step
        overwritten = (step > 0) & moves.gather(1, target)
        pointer = torch.where(overwritten, target, here)
        while not torch.equal(further := pointer.gather(1, pointer), pointer):
            pointer = further
        origin = origin.gather(1, target.gather(1, pointer))
    return origin
