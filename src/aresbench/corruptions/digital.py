"""Corruptions by digital processing: exposure and compression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.corruptions.base import Corruption, floor_levels, input_levels, widen
from aresbench.corruptions.parameters import BRIGHTNESS, JPEG_COMPRESSION, Doses
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
class JpegCompression(Corruption):
    """Saved as JPEG at low quality, colours at half resolution (Hendrycks and Dietterich, ICLR 2019).

    Encoded and decoded by Pillow on the CPU, whatever the device of the images. No draws.

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
