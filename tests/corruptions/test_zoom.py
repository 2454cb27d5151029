"""Zoom blur against the written formula with SciPy's zoom, and against the package imagecorruptions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from imagecorruptions import corruptions as package
from scipy.ndimage import zoom

from aresbench.corruptions.load import make_corruption
from aresbench.corruptions.zoom import enlarged, middle, zoom_factors

# The published ranges, a second time on purpose: end and step; and how many factors they have.
RANGES = {
    32: [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
    64: [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
    224: [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
    299: [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
}
COUNTS = {32: [7, 12, 16, 21, 26], 64: [7, 12, 16, 21, 26], 224: [12, 16, 11, 13, 11], 299: [12, 16, 11, 13, 11]}
SEVERITIES = (1, 2, 3, 4, 5)
Photo = Callable[[int, int], np.ndarray]


def formula(pixels: np.ndarray, end: float, step: float) -> np.ndarray:
    """The mean of the picture and of its copies, each rounded to float32 as in the published code."""
    height, width, _ = pixels.shape
    clean = (pixels / 255.0).astype(np.float32)
    total = np.zeros_like(clean)
    factors = np.arange(1, end, step)
    for factor in factors:
        rows, columns = math.ceil(height / factor), math.ceil(width / factor)
        top, left = (height - rows) // 2, (width - columns) // 2
        part = clean[top : top + rows, left : left + columns].astype(np.float64)
        large = zoom(part, (factor, factor, 1), order=1)
        top, left = (len(large) - height) // 2, (large.shape[1] - width) // 2
        total += large[top : top + height, left : left + width].astype(np.float32)
    return np.floor(np.clip((clean + total) / np.float32(len(factors) + 1), 0, 1) * np.float32(255))


def blurred(pixels: np.ndarray, severity: int, dtype: torch.dtype = torch.float64, mode: str = "memory") -> np.ndarray:
    x = (torch.tensor(pixels).permute(2, 0, 1)[None].double() / 255).to(dtype)
    levels = make_corruption("zoom_blur", severity, mode).apply(x, {}) * 255
    return levels.round()[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("side", RANGES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_levels_equal_the_formula(severity: int, side: int, photo: Photo) -> None:
    wanted = formula(photo(side, side), *RANGES[side][severity - 1])
    for dtype in (torch.float64, torch.float32):
        assert np.array_equal(blurred(photo(side, side), severity, dtype), wanted)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 3), (20, 45), (97, 70), (150, 200)])
def test_levels_of_any_size_equal_the_formula(size: tuple[int, int], photo: Photo) -> None:
    side = 32 if min(size) < 45 else 64 if min(size) < 119 else 224
    assert np.array_equal(blurred(photo(*size), 5), formula(photo(*size), *RANGES[side][4]))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("size", [(224, 224), (131, 224), (40, 33)])
def test_every_level_is_that_of_the_package(severity: int, size: tuple[int, int], photo: Photo) -> None:
    theirs = np.uint8(package.zoom_blur(photo(*size), severity))
    assert np.array_equal(blurred(photo(*size), severity, torch.float32, "imagecorruptions"), theirs)


@pytest.mark.parametrize("side", RANGES)
def test_factors_are_those_of_the_published_ranges_to_the_bit(side: int) -> None:
    for severity, (end, step), count in zip(SEVERITIES, RANGES[side], COUNTS[side], strict=True):
        factors = zoom_factors(*make_corruption("zoom_blur", severity).dose(side, side))
        assert len(factors) == count
        assert factors == np.arange(1, end, step).tolist()


@pytest.mark.parametrize("factor", [1, 1.03, 1.3, 1.75, 2.25, 2.5, 3, 4, 4.5])
@pytest.mark.parametrize("size", [(224, 224), (299, 64), (32, 97), (3, 1)])
def test_enlarged_is_scipys_zoom_of_the_middle(factor: float, size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=size)
    rows, columns = (math.ceil(side / factor) for side in size)
    top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
    wanted = zoom(x[top : top + rows, left : left + columns], factor, order=1)
    ours = enlarged(torch.from_numpy(x)[None, None], factor)[0, 0].numpy()
    assert ours.shape == wanted.shape and ours.shape[0] >= size[0] and ours.shape[1] >= size[1]
    assert np.abs(ours - wanted).max() < 1e-13
    if factor == 1:
        assert np.array_equal(ours, x)


def test_an_odd_pixel_to_spare_is_cut_off_at_the_end() -> None:
    x = torch.arange(5)[None, None, None].expand(1, 1, 5, 5)
    assert middle(x, 5, 2)[0, 0, 0].tolist() == [1, 2]
    assert middle(x, 2, 5)[0, 0].shape == (2, 5)


def test_flat_areas_keep_their_level() -> None:
    levels = torch.arange(256, dtype=torch.float32)
    x = (levels / 255)[:, None, None, None].expand(-1, 3, 40, 36)
    for severity in SEVERITIES:
        result = make_corruption("zoom_blur", severity).apply(x, {}) * 255
        assert (result.round() - levels[:, None, None, None]).abs().max() <= 1
        assert torch.equal(result[[0, 255]].unique().round(), torch.tensor([0.0, 255.0]))
        assert len(result.round()[:, 0].flatten(1).unique(dim=1)[0]) == 1
