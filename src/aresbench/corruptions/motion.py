"""A blur along a line, as if the camera had moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aresbench.corruptions.base import Corruption, widen
from aresbench.corruptions.parameters import MOTION_BLUR, Doses
from aresbench.ops.random import Streams

QUANTUM = 257  # one 8-bit level in ImageMagick's 16 bits


@dataclass(frozen=True)
class MotionBlur(Corruption):
    """Blurred along a line, as if the camera had moved (Hendrycks and Dietterich, ICLR 2019).

    What ImageMagick's ``-motion-blur`` does to an 8-bit file, to the bit: the trail of :func:`dragged`, rounded to
    16 bits and then cut to 8. Draws: ``angle`` [N] float64, uniform from -45° to 45°.
    In the mode ``imagecorruptions`` the sum is cut to 8 bits at once, and ends with the image (see :func:`dragged`).

    Args:
        severity: 1 to 5; radius from 10 to 20 px at 224 px.
        mode: what follows the change.
    """

    name: ClassVar[str] = "motion_blur"
    family: ClassVar[str] = "blur"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = MOTION_BLUR

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {"angle": draw_angle(streams, -45, 45)}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        radius, sigma = self.dose(x.shape[2], x.shape[3])
        angle = draws["angle"].to(x.device)
        if self.mode == "imagecorruptions":
            return dragged(widen(x) * 255, angle, radius, sigma, package=True).clamp_(0, 255).floor_()
        return file_levels(dragged(widen(x) * (255 * QUANTUM), angle, radius, sigma))


def draw_angle(streams: Streams, low: float, high: float) -> Tensor:
    """[N] float64 angles in degrees, uniform from ``low`` to ``high``."""
    return streams.uniform("angle", (), dtype=torch.float64) * (high - low) + low


def trail(radius: int, sigma: float) -> np.ndarray:
    """The weights of the 2·radius + 1 points of a trail: half a Gaussian, from its peak outwards; they add up to 1."""
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    return weights / weights.sum()


def dragged(x: Tensor, angle: Tensor, radius: int, sigma: float, package: bool = False) -> Tensor:
    """Each image averaged with copies of itself along a line, the further the fainter; the edge pixels reach outwards.

    Point i of the :func:`trail` reads the pixel ⌈i·cos θ − ½⌉ columns to the right and ⌈i·sin θ − ½⌉ rows down
    (ImageMagick's rule). The sum runs from the nearest point outwards.

    Args:
        x: [N,C,H,W] float64, of any range.
        angle: [N] float64, θ in degrees.
        radius, sigma: of the trail, in pixels.
        package: as in the package imagecorruptions, to the bit: each product is rounded before it is added, and the
            trail ends at the first point that is as far away as the image is high or wide; the rest adds nothing.
    """
    height, width = x.shape[2:]
    reach = 2 * radius
    weights = torch.from_numpy(trail(radius, sigma)).to(x.device).expand(len(x), -1)
    right, down = torch.cos(torch.deg2rad(angle)), torch.sin(torch.deg2rad(angle))
    place = torch.arange(reach + 1, dtype=torch.float64, device=x.device)
    columns, rows = ((place * part[:, None] - 0.5).ceil().long() for part in (right, down))
    if package:
        inside = (columns.abs() < width) & (rows.abs() < height)
        weights = weights * inside.cumprod(1)

    # All windows of the widened images, without a copy: [N, C, row offset, column offset, H, W].
    windows = F.pad(x, (reach,) * 4, mode="replicate").unfold(2, height, 1).unfold(3, width, 1)
    rows, columns = rows + reach, columns + reach
    total = torch.zeros_like(x)
    if x.device.type == "cpu":  # image by image, each window in place: at least four times as fast
        for image, own_windows, *own in zip(
            total, windows, rows.tolist(), columns.tolist(), weights.tolist(), strict=True
        ):
            for row, column, weight in zip(*own, strict=True):
                if package:
                    image += own_windows[:, row, column] * weight
                else:
                    image.add_(own_windows[:, row, column], alpha=weight)
    else:
        images = torch.arange(len(x), device=x.device)
        for i in range(reach + 1):
            total += windows[images, :, rows[:, i], columns[:, i]].mul_(weights[:, i, None, None, None])
    return total


def file_levels(quanta: Tensor) -> Tensor:
    """The 8-bit levels in a file that ImageMagick wrote: rounded to its 16 bits, then cut; in place on ``quanta``."""
    return quanta.add_(0.5).floor_().div_(QUANTUM).floor_()
