"""JPEG on tensors: what libjpeg's encoder and decoder make of pictures, in the same whole numbers, on any device.

Colour transform, chroma at half resolution, the "islow" DCT (Loeffler, Ligtenberg and Moschytz, "Practical fast 1-D
DCT algorithms with 11 multiplications", ICASSP 1989), quantisation and all of it back, with the triangle filter that
libjpeg's decoder enlarges chroma by ("fancy upsampling"). The bits between encoder and decoder lose nothing and
are not made. Whole numbers are held in float64 where they are multiplied as matrices: below 2^53 all of it is exact.
"""

from __future__ import annotations

from functools import cache, lru_cache

import torch
from torch import Tensor

# The example tables of the standard (ITU-T T.81, annex K), by rows of frequencies.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)

# Binary places of the constants of the DCT, of its values between the two passes, and of the colour transform.
_DCT_PLACES, _PASS_PLACES, _COLOUR_PLACES = 13, 2, 16


def through_jpeg_tensors(images: Tensor, quality: int) -> Tensor:
    """Encode and decode images as baseline JPEG with 4:2:0 chroma, without leaving the device.

    Args:
        images: [N,3,H,W] uint8 RGB, on any device.
        quality: libjpeg's quality, 1 to 100.

    Returns:
        [N,3,H,W] uint8 on the same device.
    """
    height, width = images.shape[2:]
    luma, chroma = to_ycc(images.int()).split((1, 2), 1)
    luma = _coded(_padded(luma, -height % 8, -width % 8), _table(_LUMA, quality, images.device))
    small = _halved(_padded(chroma, height % 2, -width % 16))
    small = _coded(_padded(small, -small.shape[2] % 8, 0), _table(_CHROMA, quality, images.device))
    chroma = _doubled(small[..., : (height + 1) // 2, : (width + 1) // 2])
    return to_rgb(torch.cat((luma[..., :height, :width], chroma[..., :height, :width]), 1)).to(torch.uint8)


def _fixed(*values: float) -> list[int]:
    return [int(abs(v) * (1 << _COLOUR_PLACES) + 0.5) * (1 if v > 0 else -1) for v in values]


def _weighted(planes: Tensor, weights: list[int], offset: int) -> Tensor:
    """Σ weight·plane + offset in whole numbers, without the binary places."""
    total = torch.full_like(planes[:, 0], offset)
    for weight, plane in zip(weights, planes.unbind(1), strict=True):
        total += weight * plane
    return total >> _COLOUR_PLACES


def to_ycc(rgb: Tensor) -> Tensor:
    """Luma and the two chroma planes (JFIF) of RGB levels [N,3,H,W] int32; chroma is centred on 128."""
    half = 1 << (_COLOUR_PLACES - 1)
    centre = (128 << _COLOUR_PLACES) + half - 1
    luma = _weighted(rgb, _fixed(0.299, 0.587, 0.114), half)
    blue = _weighted(rgb, _fixed(-0.16874, -0.33126, 0.5), centre)
    red = _weighted(rgb, _fixed(0.5, -0.41869, -0.08131), centre)
    return torch.stack((luma, blue, red), 1)


def to_rgb(ycc: Tensor) -> Tensor:
    """RGB levels, cut to 0…255, of what :func:`to_ycc` makes."""
    luma, blue, red = ycc.unbind(1)
    chroma = torch.stack((blue, red), 1) - 128
    half = 1 << (_COLOUR_PLACES - 1)
    shifts = [
        _weighted(chroma, weights, half) for weights in (_fixed(0, 1.402), _fixed(-0.34414, -0.71414), _fixed(1.772, 0))
    ]
    return torch.stack([luma + shift for shift in shifts], 1).clamp_(0, 255)


def _padded(planes: Tensor, below: int, right: int) -> Tensor:
    """The last row and column repeated, as often as said."""
    planes = torch.cat((planes, planes[..., -1:].expand(*planes.shape[:-1], right)), -1) if right else planes
    if not below:
        return planes
    return torch.cat((planes, planes[..., -1:, :].expand(*planes.shape[:-2], below, planes.shape[-1])), -2)


def _halved(planes: Tensor) -> Tensor:
    """The mean of each 2 × 2 pixels; halves are rounded down and up by turns."""
    rows = planes[..., ::2, :] + planes[..., 1::2, :]
    total = rows[..., ::2] + rows[..., 1::2]
    turn = torch.arange(total.shape[-1], dtype=total.dtype, device=total.device) % 2 + 1
    return (total + turn) >> 2


def _doubled(planes: Tensor) -> Tensor:
    """Twice the size: each new pixel is 3/4 of the nearest and 1/4 of the next, along both sides.

    libjpeg repeats pixels instead where there are only one or two columns.
    """
    if planes.shape[-1] <= 2:
        return planes.repeat_interleave(2, -1).repeat_interleave(2, -2)
    above = torch.cat((planes[..., :1, :], planes[..., :-1, :]), -2)
    below = torch.cat((planes[..., 1:, :], planes[..., -1:, :]), -2)
    rows = torch.stack((3 * planes + above, 3 * planes + below), -2).flatten(-3, -2)
    before = torch.cat((rows[..., :1], rows[..., :-1]), -1)
    after = torch.cat((rows[..., 1:], rows[..., -1:]), -1)
    return torch.stack(((3 * rows + before + 8) >> 4, (3 * rows + after + 7) >> 4), -1).flatten(-2)


def _coded(planes: Tensor, table: Tensor) -> Tensor:
    """Planes [N,C,8h,8w] of levels after DCT, quantisation by ``table`` [8,8], and back."""
    n, channels, height, width = planes.shape
    matrix = _dct(planes.device)
    blocks = (planes - 128).double().view(n, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    blocks = _shifted(blocks @ matrix.T, _DCT_PLACES - _PASS_PLACES)
    blocks = _shifted(matrix @ blocks, _DCT_PLACES + _PASS_PLACES)
    # The two passes leave a factor of 8. Halves are rounded away from zero.
    step = 8 * table
    blocks = ((blocks.abs() + (step / 2).floor()) / step).floor_().mul_(blocks.sign()).mul_(table)
    blocks = _shifted(matrix.T @ blocks, _DCT_PLACES - _PASS_PLACES)
    blocks = _shifted(blocks @ matrix, _DCT_PLACES + _PASS_PLACES + 3)
    return blocks.add_(128).clamp_(0, 255).transpose(3, 4).reshape(planes.shape).int()


def _shifted(values: Tensor, places: int) -> Tensor:
    """Whole numbers in float64 without their last binary places, rounded; in place."""
    return values.add_(1 << (places - 1)).mul_(2.0**-places).floor_()


@lru_cache(maxsize=64)
def _table(standard: tuple[tuple[int, ...], ...], quality: int, device: torch.device) -> Tensor:
    """The steps of quantisation [8,8] at a quality."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = (torch.tensor(standard) * percent + 50) // 100
    return steps.clamp_(1, 255).double().to(device)


@lru_cache(maxsize=8)
def _dct(device: torch.device) -> Tensor:
    """The DCT of eight values as the matrix [8,8] that the flow graph of the paper amounts to, with 13 binary places.

    Its entries are sums of the graph's rounded constants, not the rounded cosines. The inverse is its transpose.
    """
    return torch.tensor(_flow_graph(), dtype=torch.float64, device=device)


@cache
def _flow_graph() -> list[list[int]]:
    def fix(value: float) -> int:
        return round(value * (1 << _DCT_PLACES))

    unit = torch.eye(8, dtype=torch.int64)
    sums = [unit[k] + unit[7 - k] for k in range(4)]
    gaps = [unit[k] - unit[7 - k] for k in range(4)]  # of the outermost pair first

    outer, inner = sums[0] + sums[3], sums[1] + sums[2]
    cross, twist = sums[0] - sums[3], sums[1] - sums[2]
    one = 1 << _DCT_PLACES
    shared = (cross + twist) * fix(0.541196100)
    even = [
        (outer + inner) * one,
        shared + cross * fix(0.765366865),
        (outer - inner) * one,
        shared - twist * fix(1.847759065),
    ]

    ends, middle = (gaps[3] + gaps[0]) * -fix(0.899976223), (gaps[2] + gaps[1]) * -fix(2.562915447)
    left, right = gaps[3] + gaps[1], gaps[2] + gaps[0]
    common = (left + right) * fix(1.175875602)
    left, right = common - left * fix(1.961570560), common - right * fix(0.390180644)
    odd = [
        gaps[0] * fix(1.501321110) + ends + right,
        gaps[1] * fix(3.072711026) + middle + left,
        gaps[2] * fix(2.053119869) + middle + right,
        gaps[3] * fix(0.298631336) + ends + left,
    ]
    return [row.tolist() for pair in zip(even, odd, strict=True) for row in pair]
