"""Falling snow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.corruptions.base import Corruption, floor_levels, widen
from aresbench.corruptions.motion import QUANTUM, dragged, draw_angle, file_levels
from aresbench.corruptions.parameters import SNOW, Doses
from aresbench.corruptions.zoom import enlarged, middle
from aresbench.ops.random import Streams

# Shares of red, green and blue in a grey, rounded to float32.
_GREY: tuple[float, ...] = tuple(torch.tensor((0.299, 0.587, 0.114)).tolist())


@dataclass(frozen=True)
class Snow(Corruption):
    """Falling snow over a whitened picture (Hendrycks and Dietterich, ICLR 2019).

    Flakes: normal noise, enlarged, thinned by a threshold, in 8 bits, and dragged along the fall as
    :class:`aresbench.corruptions.motion.MotionBlur` does. They are added twice, the second time turned by 180°, to
    w·x + (1 − w)·max(x, 1.5·grey + 0.5). Draws: ``normal`` [N,H,W], standard normal; ``angle`` [N] float64, uniform
    from −135° to −45°.
    In the mode ``imagecorruptions`` the flakes are put into 8 bits, by rounding, only after their fall, which goes
    over the whole enlarged layer.

    Args:
        severity: 1 to 5; see :data:`aresbench.corruptions.parameters.SNOW`.
        mode: what follows the change.
    """

    name: ClassVar[str] = "snow"
    family: ClassVar[str] = "weather"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = SNOW

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {"normal": streams.normal("flakes", (height, width)), "angle": draw_angle(streams, -135, -45)}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        height, width = x.shape[2:]
        loc, scale, factor, threshold, radius, sigma, weight = self.dose(height, width)
        angle = draws["angle"].to(x.device)
        flakes = enlarged(draws["normal"].to(x.device)[:, None].double().mul_(scale).add_(loc), factor)
        flakes = flakes.masked_fill(flakes < threshold, 0)
        if self.mode == "imagecorruptions":
            fallen = dragged(flakes.clamp_(0, 1), angle, radius, sigma, package=True).mul_(255).round_()
            fallen = fallen[..., :height, :width] / 255
        else:
            fallen = middle(floor_levels(flakes), height, width) * QUANTUM
            fallen = file_levels(dragged(fallen, angle, radius, sigma)).div_(255)
        return floor_levels(whitened(widen(x).float(), weight).double().add_(fallen).add_(fallen.flip(2, 3)))


def whitened(x: Tensor, weight: float) -> Tensor:
    """The picture, mixed with a bright grey copy of itself: w·x + (1 − w)·max(x, 1.5·grey + 0.5).

    In float32, as in the reference: on grey pixels many results lie on the edge of a level, where its roundings decide.
    Those of the grey copy are OpenCV's: green first, then red and blue by a multiplication and addition in one.

    Args:
        x: RGB [N,3,H,W] float32 in [0,1].
        weight: w in [0,1].
    """
    red, green, blue = x.unbind(1)
    grey = green * _GREY[1]
    for colour, share in ((red, _GREY[0]), (blue, _GREY[2])):
        grey = (colour.double() * share + grey).float()  # float64 holds the product, so that there is one rounding
    return x * weight + torch.maximum(x, (grey * 1.5 + 0.5)[:, None]) * (1 - weight)
