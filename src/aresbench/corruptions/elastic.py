"""An image on a rubber sheet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from aresbench.core.errors import DataError
from aresbench.corruptions.base import Corruption, widen
from aresbench.corruptions.parameters import ELASTIC_TRANSFORM, Doses
from aresbench.ops.random import Streams

# What the mode imagecorruptions does instead: no affine map, and displacements in proportion to the image.
PACKAGE_ALPHAS = (12.5, 16.25, 21.25, 25.0, 30.0)
PACKAGE_SIGMA = 0.01  # share of each side
PACKAGE_SWING = 0.005  # share of the height

# OpenCV's affine map: steps along the axes are rounded to 2^-10 px, the sum of both to 2^-5 px.
_STEPS, _PLACES = 1024, 32


@dataclass(frozen=True)
class ElasticTransform(Corruption):
    """Stretched and shifted locally, as on a rubber sheet (Hendrycks and Dietterich, ICLR 2019).

    First an affine map (:func:`affine`): three points about the centre, a third of the side away, move by
    U(−jitter, jitter) px each way. Then each pixel is read from where a smooth random field points
    (:func:`displaced`): α times U(−1, 1) blurred by a Gaussian that ends at three sigmas, mirrored with the edge
    repeated. Both steps keep float32 images in between, as the benchmark does. At 224 px the jitter of severity 2
    is the largest and the field of severities 3 to 5 is finer: the corruption is not milder at severity 2 than 3.

    In the mode ``imagecorruptions`` there is no affine map; α is 12.5 to 30, σ 0.01 of each side, and the field
    begins as U(−0.005, 0.005) of the height.

    Draws: ``anchors`` [N,3,2] (not in that mode) and ``field`` [N,2,H,W] (along the rows, then down), in [0,1).

    Args:
        severity: 1 to 5.
        mode: the protocol.

    Raises:
        DataError: when called: an image under 3 px high or wide, in which three points cannot be placed.
    """

    name: ClassVar[str] = "elastic_transform"
    family: ClassVar[str] = "digital"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = ELASTIC_TRANSFORM
    package_doses: ClassVar[tuple[float, ...]] = PACKAGE_ALPHAS

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        draws = {"field": streams.uniform("field", (2, height, width))}
        if self.mode != "imagecorruptions":
            draws["anchors"] = streams.uniform("anchors", (3, 2), dtype=torch.float64)
        return draws

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        height, width = x.shape[2:]
        image = widen(x).float()
        if self.mode == "imagecorruptions":
            alpha, sigmas = self.dose(height, width), (PACKAGE_SIGMA * height, PACKAGE_SIGMA * width)
            swing = PACKAGE_SWING * height
        else:
            alpha, sigma, jitter = self.dose(height, width)
            sigmas, swing = (sigma, sigma), 1.0
            image = affine(image, draws["anchors"].to(x.device, torch.float64), jitter)
        if alpha:
            field = draws["field"].to(x.device, torch.float64).mul(2 * swing).sub_(swing)
            image = displaced(image, blurred(field, *sigmas).mul_(alpha).float())
        return image.clamp_(0, 1).mul_(255).floor_()


def affine(x: Tensor, anchors: Tensor, jitter: float) -> Tensor:
    """Images moved so that three points land where they are jittered to, to the bit as OpenCV 4.10 and before did.

    Those versions read at places rounded to 1/32 px (in two steps), which the benchmark's files show; from 4.11 on
    OpenCV reads at the exact place, up to 6 levels away on a picture of noise. Between four pixels it interpolates
    bilinearly in float32; beyond the border lies the image's mirror without repeating the edge.

    Args:
        x: [N,C,H,W] float32.
        anchors: [N,3,2] float64 in [0,1), the jitter of the points (centre + ⅓, centre + ⅓), (+⅓, −⅓), (−⅓, −⅓), each
            (x, y), where ⅓ is of the shorter side.
        jitter: largest move in pixels each way.

    Raises:
        DataError: an image with a side under 3 px.
    """
    height, width = x.shape[2:]
    arm = min(height, width) // 3
    if not arm:
        raise DataError(
            f"elastic_transform places three points in an image, which {height}×{width} pixels are too small for",
            "use images of at least 3×3 pixels",
        )
    points = [[width // 2 + arm, height // 2 + arm], [width // 2 + arm, height // 2 - arm]]
    points.append([width // 2 - arm, height // 2 - arm])
    start = torch.tensor(points, dtype=torch.float32, device=x.device)
    first, second, third = (start + (anchors * (2 * jitter) - jitter).float()).double().unbind(1)  # [N,2] each
    down, along = (first - second) / (2 * arm), (second - third) / (2 * arm)
    (a, d), (b, e) = along.unbind(1), down.unbind(1)
    c, f = (second - along * start[1, 0].double() - down * start[1, 1].double()).unbind(1)

    # The inverse map in OpenCV's order of operations: which pixel is read.
    determinant = a * e - b * d
    scale = torch.where(determinant == 0, 0.0, 1 / determinant)
    a, b, d, e = e * scale, -b * scale, -d * scale, a * scale
    c, f = -a * c - b * f, -d * c - e * f
    column = torch.arange(width, device=x.device, dtype=torch.float64)
    row = torch.arange(height, device=x.device, dtype=torch.float64)

    def place(by_column: Tensor, by_row: Tensor, offset: Tensor) -> Tensor:
        """[N,H,W] int64, in 1/32 px."""
        step = (by_column[:, None] * column * _STEPS).round_()
        line = ((by_row[:, None] * row + offset[:, None]) * _STEPS).round_()
        limit = 2.0**31 - 1  # of OpenCV's integers; a nearly flat map of a tiny image can reach it
        sums = line.clamp_(-limit, limit).long()[:, :, None] + step.clamp_(-limit, limit).long()[:, None]
        return (sums + _STEPS // _PLACES // 2) >> 5

    across, below = place(a, b, c), place(d, e, f)
    left, upper = across >> 5, below >> 5
    corners = (_bounced(upper, height), _bounced(upper + 1, height), _bounced(left, width), _bounced(left + 1, width))
    right_share, lower_share = ((v & (_PLACES - 1)).float().div_(_PLACES)[:, None] for v in (across, below))
    return _between(x, corners, 1 - lower_share, lower_share, 1 - right_share, right_share)


def displaced(x: Tensor, moves: Tensor) -> Tensor:
    """Each pixel read from its place plus a move, bilinearly in float64, as SciPy does to the bit; float32 result.

    Args:
        x: [N,C,H,W] float32.
        moves: [N,2,H,W] float32 in pixels: along the rows, then down. Beyond the border lies the mirror, the edge
            repeated.
    """
    height, width = x.shape[2:]
    column = torch.arange(width, device=x.device, dtype=torch.float64)
    row = torch.arange(height, device=x.device, dtype=torch.float64)[:, None]
    across, below = _mirrored(moves[:, 0] + column, width), _mirrored(moves[:, 1] + row, height)
    left, upper = across.floor(), below.floor()
    at_left, at_upper = 1 - (across - left)[:, None], 1 - (below - upper)[:, None]
    left, upper = left.long(), upper.long()
    corners = (upper.clamp(0), (upper + 1).clamp_max(height - 1), left.clamp(0), (left + 1).clamp_max(width - 1))
    return _between(x.double(), corners, at_upper, 1 - at_upper, at_left, 1 - at_left).float()


def blurred(field: Tensor, down: float, along: float) -> Tensor:
    """Fields [N,2,H,W] float64 blurred by Gaussians of these sigmas in pixels, mirrored at the border."""
    height, width = field.shape[2:]
    return _blur(height, down, field.device) @ field @ _blur(width, along, field.device).T


@lru_cache(maxsize=32)
def _blur(length: int, sigma: float, device: torch.device) -> Tensor:
    """The Gaussian that ends at three sigmas as a matrix [length, length]: the border is folded into it.

    Its cost does not depend on sigma, which reaches far beyond the image at severity 1.
    """
    reach = int(3 * sigma + 0.5)
    taps = np.exp(-0.5 / (sigma * sigma) * np.arange(-reach, reach + 1) ** 2)
    pixel = np.arange(length)[:, None] + np.arange(-reach, reach + 1)
    pixel %= 2 * length
    operator = np.zeros((length, length))
    np.add.at(operator, (np.arange(length)[:, None], np.minimum(pixel, 2 * length - 1 - pixel)), taps / taps.sum())
    return torch.from_numpy(operator).to(device)


def _between(
    x: Tensor, corners: tuple[Tensor, ...], at_upper: Tensor, at_lower: Tensor, at_left: Tensor, at_right: Tensor
) -> Tensor:
    """The weighted sum of four pixels, in a fixed order; rows and columns [N,H,W], weights [N,1,H,W]."""
    upper, lower, left, right = corners
    width = x.shape[3]
    flat = x.flatten(2)

    def pixel(row: Tensor, column: Tensor) -> Tensor:
        return flat.gather(2, (row * width + column).flatten(1)[:, None].expand(-1, x.shape[1], -1)).view_as(x)

    if x.dtype == torch.float32:  # OpenCV: one weight for each corner
        total = pixel(upper, left).mul_(at_left * at_upper)
        total += pixel(upper, right).mul_(at_right * at_upper)
        total += pixel(lower, left).mul_(at_left * at_lower)
        return total.add_(pixel(lower, right).mul_(at_right * at_lower))
    total = pixel(upper, left).mul_(at_upper).mul_(at_left)  # SciPy: one factor after the other
    total += pixel(upper, right).mul_(at_upper).mul_(at_right)
    total += pixel(lower, left).mul_(at_lower).mul_(at_left)
    return total.add_(pixel(lower, right).mul_(at_lower).mul_(at_right))


def _bounced(place: Tensor, length: int) -> Tensor:
    """Whole places on a line that is mirrored without repeating its ends: 2 1 | 0 1 2 3 | 2 1."""
    if length == 1:
        return torch.zeros_like(place)
    place = place.remainder(2 * length - 2)
    return torch.minimum(place, 2 * length - 2 - place)


def _mirrored(place: Tensor, length: int) -> Tensor:
    """Places on a line that is mirrored with its ends repeated, 1 0 | 0 1 2 3 | 3 2, in SciPy's order of roundings."""
    period = 2.0 * length
    before = torch.where(place < -period, place + period * torch.trunc(-place / period), place)
    before = torch.where(before < -length, before + period, -before - 1)
    after = place - period * torch.trunc(place / period)
    after = torch.where(after >= length, period - after - 1, after)
    return torch.where(place < 0, before, torch.where(place > length - 1, after, place))
