"""Ideal filters: which frequencies of a picture does a model need?

A frequency (u, v) counts whole waves along the height and along the width of the image, so that a radius
means the same share of the picture's detail at every size; 0 is the mean. In an image that is not square the
disc of frequencies is an ellipse in waves per pixel.

The published filter is the low-pass. It does not round to 8 bits, so its results here stay floats.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, final

import torch
from torch import Tensor

from aresbench.core.errors import DataError, SpecError
from aresbench.corruptions.base import check_images, widen
from aresbench.corruptions.change import Change
from aresbench.ops.random import Streams


@dataclass(frozen=True)
class _Filter(Change, ABC):
    """A filter with a radius in the plane of frequencies; it draws nothing."""

    r: int

    def __post_init__(self) -> None:
        if isinstance(self.r, bool) or not isinstance(self.r, int) or self.r < 1:
            raise SpecError(
                f"{self.name} has no radius {self.r!r}",
                "give a whole number of at least 1; at 224 px the published curve goes from 110 down to 4",
            )

    @property
    def component(self) -> str:
        return f"{self.name}/{self.r}"

    def describe(self, height: int | None = None, width: int | None = None) -> dict[str, object]:
        """The record that goes into a cell's key; nothing in it depends on the image size."""
        return {"name": self.name, "r": self.r, "revision": self.revision}

    @final
    def __call__(self, x: Tensor, streams: Streams) -> Tensor:
        """Filter images [N,3,H,W] in [0,1] (see :meth:`apply`); the streams are not used."""
        check_images(x)
        if len(streams) != len(x):
            raise DataError(f"{len(x)} images but {len(streams)} random streams", "give one id per image")
        return self.apply(x)

    @final
    @torch.no_grad()
    def apply(self, x: Tensor) -> Tensor:
        """Filter images, computed in float64.

        Args:
            x: images [N,3,H,W], RGB in [0,1], float32 or float64, of any size.

        Returns:
            [N,3,H,W] of x's dtype and device, in [0,1], not rounded to 8 bits.

        Raises:
            DataError: not such a tensor, or values outside [0,1].
        """
        check_images(x)
        result = torch.empty_like(x, requires_grad=False, memory_format=torch.contiguous_format)
        for i in range(len(x)):  # one at a time fits a CPU's cache, and no image's last bit depends on its batch
            result[i] = self._filtered(widen(x[i : i + 1]))[0]
        return result

    @abstractmethod
    def _filtered(self, x: Tensor) -> Tensor:
        """The filtered images, in [0,1]; ``x`` is float64."""


@final
@dataclass(frozen=True)
class LowPass(_Filter):
    """Only the coarse part of the picture: frequencies in a disc about zero (ARES-Bench, Liu et al., IJCV 2024).

    Kept are the (u, v) with u² + v² ≤ r²: the disc is closed, r itself is kept. As published, the result is the
    modulus of the inverse transform (where ringing undershoots 0 it is mirrored, not cut off). Values above 1,
    which the published code hands to the model as they are, become 1 here: an image lies in [0,1].

    The published curve at 224 px: r = 110, 108 … 4, and a first point "112" that stands for the unfiltered
    picture. ``LowPass(112)`` is a filter, which drops the corners of the spectrum; unfiltered is the threat ``clean``.

    Args:
        r: radius in whole waves per image side, at least 1; from half the diagonal of the image nothing is lost.
    """

    name: ClassVar[str] = "lowpass"
    paper: ClassVar[str] = "https://arxiv.org/abs/2302.14301"
    revision: ClassVar[int] = 1

    def _filtered(self, x: Tensor) -> Tensor:
        return coarse_part(x, self.r).abs_().clamp_(max=1)


@final
@dataclass(frozen=True)
class HighPass(_Filter):
    """Only the fine part of the picture: frequencies outside a disc about zero, and the mean (complement of lowpass).

    Kept are the (u, v) with u² + v² > r², and zero itself: each channel keeps its mean, so that edges stand out
    on a flat ground as in the picture's own colour. Values outside [0,1] are cut off. Not part of the paper.

    Args:
        r: radius in whole waves per image side, at least 1; from half the diagonal of the image only the mean is left.
    """

    name: ClassVar[str] = "highpass"
    paper: ClassVar[str] = "https://arxiv.org/abs/2302.14301"
    revision: ClassVar[int] = 1

    def _filtered(self, x: Tensor) -> Tensor:
        return (x - coarse_part(x, self.r)).add_(x.mean((2, 3), keepdim=True)).clamp_(0, 1)


def coarse_part(x: Tensor, r: int) -> Tensor:
    """The part of float images [N,C,H,W] in the frequencies u² + v² ≤ r²; linear, real, may leave [0,1].

    The disc contains −(u, v) with each (u, v), so that the part of a real image is real and half of the
    spectrum tells all.
    """
    size = (x.shape[-2], x.shape[-1])
    return torch.fft.irfft2(torch.fft.rfft2(x) * _disc(r, *size, x.device), s=size)


@lru_cache(maxsize=64)
def _disc(r: int, height: int, width: int, device: torch.device) -> Tensor:
    """True on the frequencies inside, in the order of the half spectrum: [height, width // 2 + 1]."""
    down = (torch.fft.fftfreq(height, device=device) * height).round().long()
    along = torch.arange(width // 2 + 1, device=device)
    return down[:, None] ** 2 + along**2 <= r * r
