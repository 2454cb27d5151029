"""An image on a rubber sheet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, TypeAlias

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

_Pair: TypeAlias = tuple[Tensor, Tensor]


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

    The benchmark was made with versions that read at places rounded to 1/32 px, in two steps; OpenCV 5 reads at the
    exact place instead, up to 6 levels apart on a picture of noise. Between four pixels both interpolate bilinearly
    in float32; beyond the border lies the image's mirror without repeating the edge.

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
        """[N,H,W] int32, in 1/32 px."""
        limit = 2.0**30 - _STEPS  # keeps sums within the integers; only a nearly flat map of a tiny image reaches it
        step = (by_column[:, None] * column).mul_(_STEPS).round_().clamp_(-limit, limit).int()
        line = (by_row[:, None] * row).add_(offset[:, None]).mul_(_STEPS).round_().clamp_(-limit, limit).int()
        line += _STEPS // _PLACES // 2
        return (line[:, :, None] + step[:, None]) >> 5

    across, below = place(a, b, c), place(d, e, f)
    shares = [(v & (_PLACES - 1)).float().div_(_PLACES) for v in (below, across)]
    return _between(x, _bounced(below >> 5, height), _bounced(across >> 5, width), *shares)


def displaced(x: Tensor, moves: Tensor) -> Tensor:
    """Each pixel read from its place plus a move, bilinearly in float64 as SciPy does; float32 result.

    Args:
        x: [N,C,H,W] float32.
        moves: [N,2,H,W] float32 in pixels: along the rows, then down. Beyond the border lies the mirror, the edge
            repeated.
    """
    height, width = x.shape[2:]
    column = torch.arange(width, device=x.device, dtype=torch.float64)
    row = torch.arange(height, device=x.device, dtype=torch.float64)[:, None]
    across, below = moves[:, 0] + column, moves[:, 1] + row
    left, upper = across.floor(), below.floor()
    shares = below.sub_(upper), across.sub_(left)
    return _between(x.double(), _mirrored(upper.int(), height), _mirrored(left.int(), width), *shares).float()


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


def _between(x: Tensor, rows: _Pair, columns: _Pair, down: Tensor, along: Tensor) -> Tensor:
    """Images [N,C,H,W] read bilinearly between two rows and two columns.

    Args:
        rows, columns: the whole places before and after, [N,H,W] int32 each.
        down, along: how far from the former to the latter, [N,H,W] in [0,1), of x's dtype.
    """
    images, channels, _, width = x.shape
    flat = x.flatten(2)
    total = torch.zeros_like(flat)
    upper, left = 1 - down, 1 - along
    for row, share in zip(rows, (upper, down), strict=True):
        line = row * width
        for column, part in zip(columns, (left, along), strict=True):
            index = (line + column).long().view(images, 1, -1).expand(-1, channels, -1)
            # The order of the sums, and one weight for each of the four pixels, are OpenCV's.
            total += flat.gather(2, index).mul_((share * part).view(images, 1, -1))
    return total.view_as(x)


def _bounced(place: Tensor, length: int) -> _Pair:
    """Whole places and the next ones, on a line that is mirrored without repeating its ends: 2 1 | 0 1 2 3 | 2 1."""
    last = max(length - 1, 1)
    place = place.remainder(2 * last)
    before, after = torch.minimum(place, 2 * last - place), torch.minimum(place + 1, 2 * last - 1 - place).abs_()
    return (before, after) if length > 1 else (before.zero_(), after.zero_())


def _mirrored(place: Tensor, length: int) -> _Pair:
    """Whole places and the next ones, on a line that is mirrored with its ends repeated: 1 0 | 0 1 2 3 | 3 2."""
    place = place.remainder(2 * length)
    return torch.minimum(place, 2 * length - 1 - place), torch.minimum(place + 1, 2 * length - 2 - place).clamp_(0)
