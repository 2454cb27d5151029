"""Corruptions by digital processing: exposure, resolution and compression."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.core.errors import DataError
from aresbench.corruptions.base import Corruption, floor_levels, input_levels, widen
from aresbench.corruptions.parameters import BRIGHTNESS, CONTRAST, JPEG_COMPRESSION, PIXELATE, SATURATE, Doses
from aresbench.ops.box import box_resize
from aresbench.ops.jpeg import through_jpeg
from aresbench.ops.random import Streams


@dataclass(frozen=True)
class Brightness(Corruption):
    """More light: the value of HSV is raised, hue and saturation stay (Hendrycks and Dietterich, ICLR 2019).

    No draws.

    Args:
        severity: 1 to 5; from 0.1 to 0.5 of the full range at 224 px.
        mode: what follows the change.
    """

    name: ClassVar[str] = "brightness"
    family: ClassVar[str] = "digital"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = BRIGHTNESS

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        hue, saturation, value = rgb_to_hsv(widen(x))
        value = value.add_(self.dose(x.shape[2], x.shape[3])).clamp_(0, 1)
        return floor_levels(hsv_to_rgb(hue, saturation, value))


@dataclass(frozen=True)
class Saturate(Corruption):
    """Colours paler or stronger: the saturation of HSV is scaled and raised (Hendrycks and Dietterich, ICLR 2019).

    S becomes a·S + b, cut to [0,1]; hue and value stay. Grey has hue 0, so that b > 0 turns it reddish, as published.
    One of the four extra corruptions, not part of the mean corruption error. No draws.

    Args:
        severity: 1 and 2 take colour away (a = 0.3 and 0.1); 3 to 5 add it (a = 2, 5, 20 at 224 px).
        mode: what follows the change.
    """

    name: ClassVar[str] = "saturate"
    family: ClassVar[str] = "digital"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = SATURATE

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        factor, shift = self.dose(x.shape[2], x.shape[3])
        hue, saturation, value = rgb_to_hsv(widen(x))
        saturation = saturation.mul_(factor).add_(shift).clamp_(0, 1)
        return floor_levels(hsv_to_rgb(hue, saturation, value))


@dataclass(frozen=True)
class Contrast(Corruption):
    """Less contrast: values move towards the mean of their channel (Hendrycks and Dietterich, ICLR 2019).

    (x − μ)·c + μ, where μ is the mean over the pixels of one channel. No draws.

    Args:
        severity: 1 to 5; c from 0.4 down to 0.05 at 224 px.
        mode: what follows the change.
    """

    name: ClassVar[str] = "contrast"
    family: ClassVar[str] = "digital"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = CONTRAST

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        clean = widen(x)
        # Sums of whole levels are exact in any order, so that a flat channel keeps its level.
        mean = (clean * 255).mean((2, 3), keepdim=True).div_(255)
        return floor_levels((clean - mean).mul_(self.dose(x.shape[2], x.shape[3])).add_(mean))


@dataclass(frozen=True)
class Pixelate(Corruption):
    """Large square pixels, as of a small picture blown up (Hendrycks and Dietterich, ICLR 2019).

    Reduced to the whole part of scale·N pixels along each side and back, by Pillow's box filter
    (:func:`aresbench.ops.box.box_resize`). No draws.

    Args:
        severity: 1 to 5; scale from 0.6 down to 0.25 at 224 px.
        mode: what follows the change.

    Raises:
        DataError: a side is so short that no pixel would be left of it.
    """

    name: ClassVar[str] = "pixelate"
    family: ClassVar[str] = "digital"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = PIXELATE

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        height, width = x.shape[2:]
        scale = self.dose(height, width)
        rows, columns = int(height * scale), int(width * scale)
        if not rows or not columns:
            raise DataError(
                f"{height}×{width} images have no pixel left at {scale:g} of their size ({self.name} {self.severity})",
                f"give images of at least {math.ceil(1 / scale)}×{math.ceil(1 / scale)} pixels",
            )
        return box_resize(box_resize(input_levels(x), rows, columns), height, width)


@dataclass(frozen=True)
class JpegCompression(Corruption):
    """Saved as JPEG at low quality, colours at half resolution (Hendrycks and Dietterich, ICLR 2019).

    Encoded and decoded by Pillow on the CPU, by the same whole numbers elsewhere. No draws.

    Args:
        severity: 1 to 5; quality from 25 down to 7 at 224 px.
        mode: what follows the change.
    """

    name: ClassVar[str] = "jpeg_compression"
    family: ClassVar[str] = "digital"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = JPEG_COMPRESSION

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        return through_jpeg(input_levels(x), self.dose(x.shape[2], x.shape[3]))


def rgb_to_hsv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value in [0,1], each [N,H,W] (Smith, SIGGRAPH 1978).

    The order of the operations is part of the definition: after the shift many values lie on the edge
    of an 8-bit level, where the last bit decides. Where channels tie for the maximum, the later one counts.

    Args:
        x: RGB [N,3,H,W] in [0,1].
    """
    red, green, blue = x.unbind(1)
    value = x.amax(1)
    span = value - x.amin(1)
    grey = span == 0
    safe = span.masked_fill(grey, 1)
    hue = torch.where(value == green, 2 + (blue - red) / safe, (green - blue) / safe)
    hue = torch.where(value == blue, 4 + (red - green) / safe, hue)
    hue = hue.div_(6).remainder_(1).masked_fill_(grey, 0)
    saturation = (span / value).masked_fill_(grey, 0)
    return hue, saturation, value


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """RGB [N,3,H,W] from hue, saturation and value in [0,1], each [N,H,W]; the inverse of :func:`rgb_to_hsv`."""
    hue = hue * 6
    sector = hue.floor()
    part = hue - sector
    low = value * (1 - saturation)
    falling = value * (1 - part * saturation)
    rising = value * (1 - (1 - part) * saturation)
    # Which of (value, falling, low, rising) red, green and blue take in each sixth of the colour circle.
    roles = [[0, 1, 2, 2, 3, 0], [3, 0, 0, 1, 2, 2], [2, 2, 3, 0, 0, 1]]
    table = torch.tensor(roles, device=hue.device)
    choices = torch.stack((value, falling, low, rising), 1)
    return choices.gather(1, table[:, sector.long() % 6].transpose(0, 1))
