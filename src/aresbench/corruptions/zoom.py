"""A blur towards the middle, as if the camera had come nearer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aresbench.corruptions.base import Corruption, widen
from aresbench.corruptions.parameters import ZOOM_BLUR, Doses
from aresbench.ops.random import Streams


@dataclass(frozen=True)
class ZoomBlur(Corruption):
    """Blurred towards the middle, as if the camera had come nearer (Hendrycks and Dietterich, ICLR 2019).

    The mean of the image and of its enlarged copies (:func:`enlarged`). Each copy, their sum and their mean are
    rounded to float32, as in the reference: those roundings keep flat areas at their level. No draws.

    Args:
        severity: 1 to 5; factors up to 1.11 and up to 1.30 at 224 px.
        mode: what follows the change.
    """

    name: ClassVar[str] = "zoom_blur"
    family: ClassVar[str] = "blur"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = ZOOM_BLUR

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        height, width = x.shape[2:]
        step, count = self.dose(height, width)
        clean = widen(x).float()
        exact = clean.double()
        total = torch.zeros_like(clean)
        for factor in zoom_factors(step, count):
            total += middle(enlarged(exact, factor), height, width).float()
        return total.add_(clean).div_(count + 1).clamp_(0, 1).mul_(255).floor_()


def zoom_factors(step: float, count: int) -> list[float]:
    """1, 1 + step, … as a range in floating point counts them, to the last bit: it decides the size of a crop."""
    rounded = (1 + step) - 1
    return [1 + k * rounded for k in range(count)]


def enlarged(x: Tensor, factor: float) -> Tensor:
    """The middle of each image, enlarged so that it covers the image again.

    Per side of n pixels: the middle ⌈n/factor⌉ pixels become round(factor·⌈n/factor⌉), interpolated linearly, corner
    pixels onto corner pixels. That may be a few pixels more than n (see :func:`middle`). SciPy's zoom, but for the
    rounding error by which that leaves the last line empty at a few sizes, none of them the benchmark's.

    Args:
        x: [N,C,H,W] float64.
        factor: at least 1.
    """
    height, width = (math.ceil(side / factor) for side in x.shape[2:])
    return F.interpolate(
        middle(x, height, width),
        size=(round(height * factor), round(width * factor)),
        mode="bilinear",
        align_corners=True,
    )


def middle(x: Tensor, height: int, width: int) -> Tensor:
    """The middle ``height`` × ``width`` pixels of images; an odd pixel to spare is cut off at the end."""
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[..., top : top + height, left : left + width]
