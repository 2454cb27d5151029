"""Corruptions that blur."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aresbench.corruptions.base import Corruption, floor_levels, widen
from aresbench.corruptions.parameters import DEFOCUS_BLUR, GAUSSIAN_BLUR, Doses
from aresbench.ops.random import Streams


@dataclass(frozen=True)
class DefocusBlur(Corruption):
    """A lens out of focus: each point becomes a soft disk (Hendrycks and Dietterich, ICLR 2019).

    Correlation with the kernel of :func:`disk_kernel`; beyond the border the image continues as its
    mirror without repeating the edge, as often as needed, so any image size works. No draws.

    Args:
        severity: 1 to 5; radius from 3 to 10 px at 224 px.
        mode: what follows the change.
    """

    name: ClassVar[str] = "defocus_blur"
    family: ClassVar[str] = "blur"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = DEFOCUS_BLUR

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        radius, alias = self.dose(x.shape[2], x.shape[3])
        return floor_levels(correlate_mirrored(x, radius, alias))


@cache
def disk_kernel(radius: float, alias: float) -> np.ndarray:
    """A disk of total weight 1 on the pixel grid, its edge softened by a small Gaussian.

    The reference kernel is in float32, and its roundings decide which way exact ties fall (whether a
    flat white area stays 255 or drops to 254). So the weights are rounded to float32 here as well, in
    the order of OpenCV's vector code: centre tap, then pairs outwards, one rounding per step.
    The Gaussian mirrors at the border of the grid, which lets the largest disks weigh up to 1 % more
    than 1. That is how the benchmark was defined.

    Args:
        radius: of the disk, in pixels.
        alias: sigma of the Gaussian in pixels; 3 taps, or 5 for radii above 8.

    Returns:
        [2h+1, 2h+1] float64 (the float32 weights, widened), where h is the smallest half-width that holds
        them. Symmetric in both directions to the bit.
    """
    half, reach = (8, 1) if radius <= 8 else (int(radius), 2)
    place = np.arange(-half, half + 1)
    disk = (place[:, None] ** 2 + place**2 <= radius**2).astype(np.float32)
    disk /= disk.sum()

    taps = np.exp(-(np.arange(reach + 1) ** 2) / (2 * alias**2))
    taps = (taps / (taps[0] + 2 * taps[1:].sum())).astype(np.float32)
    for _ in range(2):  # along the rows, then (transposed) along the columns
        around = np.pad(disk, ((0, 0), (reach, reach)), mode="reflect")
        disk = disk * taps[0]
        for k in range(1, reach + 1):
            pair = around[:, reach - k : reach - k + len(place)] + around[:, reach + k : reach + k + len(place)]
            disk = (pair.astype(np.float64) * taps[k] + disk).astype(np.float32)
        disk = disk.T

    # Weights below 2^-60 of the largest cannot move a float64 sum: a narrower kernel is the same kernel.
    used = np.abs(np.argwhere(disk > disk.max() * 2.0**-60) - half).max()
    return disk[half - used : half + used + 1, half - used : half + used + 1].astype(np.float64)


def correlate_mirrored(x: Tensor, radius: float, alias: float) -> Tensor:
    """Correlate images [N,3,H,W] (widened to float64) with the kernel of :func:`disk_kernel`, mirroring at the border.

    By Fourier transform: the cost does not depend on the radius, and the error (1e-15) is far below the
    1e-9 by which the kernel's own float32 roundings move exact ties.
    """
    height, width = x.shape[-2:]
    half = len(disk_kernel(radius, alias)) // 2
    size = (_fast_length(height + 2 * half), _fast_length(width + 2 * half))
    spectrum = torch.fft.rfft2(widen(_mirrored(x, half)), s=size) * _kernel_spectrum(radius, alias, size, x.device)
    # Wrapping around spoils only the first 2h rows and columns of the product: what is kept begins there.
    by_rows = torch.fft.ifft(spectrum, dim=-2)[..., 2 * half : 2 * half + height, :]
    return torch.fft.irfft(by_rows, n=size[1], dim=-1)[..., 2 * half : 2 * half + width]


@lru_cache(maxsize=32)
def _kernel_spectrum(radius: float, alias: float, size: tuple[int, int], device: torch.device) -> Tensor:
    # The kernel is symmetric about its centre, so that convolution is correlation.
    return torch.fft.rfft2(torch.from_numpy(disk_kernel(radius, alias)).to(device), s=size)


def _mirrored(x: Tensor, margin: int) -> Tensor:
    """Images continued by ``margin`` pixels on every side, the edge not repeated: 2 1 | 0 1 2 3 | 2 1."""
    height, width = x.shape[-2:]
    if margin < min(height, width):
        return F.pad(x, (margin,) * 4, mode="reflect")
    # A margin wider than the image mirrors it again and again, which pad does not do.
    return x.index_select(2, _bounce(height, margin, x.device)).index_select(3, _bounce(width, margin, x.device))


def _bounce(length: int, margin: int, device: torch.device) -> Tensor:
    """The pixels met on a walk to and fro along a line, from ``margin`` before its start to as far past its end."""
    period = max(2 * (length - 1), 1)
    place = torch.arange(-margin, length + margin, device=device).remainder(period)
    return torch.minimum(place, period - place) if length > 1 else place


def _fast_length(length: int) -> int:
    """The next length with no prime factor above 5, for which Fourier transforms are fast."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


@dataclass(frozen=True)
class GaussianBlur(Corruption):
    """An even blur, each point spread into a soft spot; an extra, not in mCE (Hendrycks and Dietterich, ICLR 2019).

    See :func:`gaussian`. No draws.

    Args:
        severity: 1 to 5; σ from 1 to 6 px at 224 px.
        mode: what follows the change.
    """

    name: ClassVar[str] = "gaussian_blur"
    family: ClassVar[str] = "blur"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = GAUSSIAN_BLUR

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        return {}

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        return floor_levels(gaussian(widen(x), self.dose(x.shape[2], x.shape[3])))


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Images blurred by a Gaussian that ends at four sigmas; beyond the border the edge pixels continue.

    Down the columns first, then along the rows; per point the middle first, then pairs of equal weight from the
    outermost inwards. That is SciPy's order: in flat areas it decides whether a level stays or drops by one, so it
    is kept, and results are equal to SciPy's to the bit. (A product with a dense matrix per side is no faster.)

    Args:
        x: [N,C,H,W] float64; left as it is.
        sigma: in pixels.

    Returns:
        [N,C,H,W] float64.
    """
    weights = gaussian_taps(sigma)
    return _down(_down(x, weights).transpose(2, 3).contiguous(), weights).transpose(2, 3)


@cache
def gaussian_taps(sigma: float) -> tuple[float, ...]:
    """The weights of a Gaussian from its middle to its end at round(4 sigma); with the other half they add up to 1."""
    reach = int(4 * sigma + 0.5)
    whole = np.exp(-0.5 / (sigma * sigma) * np.arange(-reach, reach + 1) ** 2)
    return tuple((whole / whole.sum())[reach:].tolist())


def _down(x: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Images correlated with a symmetric kernel along their columns."""
    reach, height = len(weights) - 1, x.shape[2]
    around = F.pad(x, (0, 0, reach, reach), mode="replicate")
    total = x * weights[0]
    pair = torch.empty_like(x)
    for k in range(reach, 0, -1):
        before, after = around[:, :, reach - k : reach - k + height], around[:, :, reach + k : reach + k + height]
        total += torch.add(before, after, out=pair).mul_(weights[k])
    return total
