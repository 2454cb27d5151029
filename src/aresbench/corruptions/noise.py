"""Corruptions that add noise to every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from aresbench.corruptions.base import Corruption, floor_levels, widen
from aresbench.corruptions.parameters import GAUSSIAN_NOISE, Doses
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
