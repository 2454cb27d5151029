"""Motion blur against the written formula, against ImageMagick itself, and against the package imagecorruptions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from imagecorruptions import corruptions as package
from scipy import stats

from aresbench.corruptions.load import make_corruption
from aresbench.corruptions.motion import dragged, file_levels, trail
from aresbench.ops.random import Streams

# The published parameters, a second time on purpose: radius and sigma.
DOSES = {
    32: [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
    64: [(10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)],
    224: [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    299: [(12, 4), (17, 6), (17, 9), (17, 13), (22, 16)],
}
SEVERITIES = (1, 2, 3, 4, 5)
SLOPES = [(1, -44.9), (2, -21.3), (3, 3.0), (4, 17.77), (5, 45.0)]  # severity and angle
Photo = Callable[[int, int], np.ndarray]

# What ImageMagick 6.9.11 (Q16) makes of PICTURE: convert in.png -motion-blur {radius}x{sigma}{angle} out.png
PICTURE = [
    [255, 255, 255, 159, 212, 9, 62, 115],
    [255, 255, 255, 229, 37, 101, 165, 229],
    [74, 149, 224, 43, 118, 193, 12, 87],
    [111, 197, 27, 113, 199, 29, 115, 201],
    [148, 245, 86, 183, 24, 121, 218, 59],
    [185, 37, 145, 253, 105, 213, 65, 173],
]
IMAGEMAGICK = {
    (2, 1.5, 30): [
        [250, 236, 175, 165, 134, 78, 118, 140],
        [235, 209, 216, 144, 59, 120, 169, 196],
        [94, 169, 146, 72, 146, 132, 81, 112],
        [141, 126, 63, 148, 136, 66, 131, 168],
        [187, 183, 130, 126, 74, 166, 153, 86],
        [132, 115, 179, 183, 139, 153, 127, 173],
    ],
    (3, 2, -40): [
        [249, 218, 199, 122, 99, 64, 97, 115],
        [249, 218, 199, 146, 41, 94, 131, 152],
        [188, 197, 173, 51, 116, 178, 137, 162],
        [163, 174, 51, 127, 150, 62, 113, 142],
        [147, 120, 122, 157, 55, 138, 195, 142],
        [157, 95, 138, 121, 132, 174, 78, 114],
    ],
    (2, 4, -110): [
        [255, 255, 255, 210, 183, 117, 33, 86],
        [255, 255, 255, 226, 142, 138, 58, 113],
        [212, 229, 247, 198, 121, 181, 45, 106],
        [179, 216, 193, 172, 173, 127, 54, 122],
        [158, 201, 140, 198, 124, 97, 138, 101],
        [151, 138, 158, 184, 94, 146, 120, 104],
    ],
}


def formula(pixels: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """The trail point by point, in ImageMagick's 16 bits, then cut to 8."""
    height, width, _ = pixels.shape
    gauss = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    total = np.zeros(pixels.shape)
    for i, weight in enumerate(gauss):
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        rows = np.clip(np.arange(height) + down, 0, height - 1)
        columns = np.clip(np.arange(width) + right, 0, width - 1)
        total += weight / sum(gauss) * 257 * pixels[rows][:, columns]
    return np.floor(np.floor(total + 0.5) / 257)


def blurred(pixels: np.ndarray, severity: int, angle: float, dtype: torch.dtype, mode: str = "memory") -> np.ndarray:
    x = (torch.tensor(pixels).permute(2, 0, 1)[None].double() / 255).to(dtype)
    draws = {"angle": torch.tensor([angle], dtype=torch.float64)}
    levels = make_corruption("motion_blur", severity, mode).apply(x, draws) * 255
    return levels.round()[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("side", DOSES)
@pytest.mark.parametrize(("severity", "angle"), [(1, -44.9), (2, -21.3), (3, 0.0), (4, 17.77), (5, 45.0)])
def test_levels_equal_the_formula(severity: int, angle: float, side: int, photo: Photo) -> None:
    pixels = photo(side, side)
    wanted = formula(pixels, *DOSES[side][severity - 1], angle)
    for dtype in (torch.float64, torch.float32):
        assert np.array_equal(blurred(pixels, severity, angle, dtype), wanted)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 3), (20, 45), (97, 70), (262, 301)])
def test_levels_of_any_size_equal_the_formula(size: tuple[int, int], photo: Photo) -> None:
    side = 32 if min(size) < 45 else 64 if min(size) < 119 else 299
    wanted = formula(photo(*size), *DOSES[side][4], -30.5)
    assert np.array_equal(blurred(photo(*size), 5, -30.5, torch.float64), wanted)


@pytest.mark.parametrize(("radius", "sigma", "angle"), IMAGEMAGICK)
def test_every_level_is_that_of_imagemagick(radius: int, sigma: float, angle: float) -> None:
    x = torch.tensor(PICTURE, dtype=torch.float64)[None, None] * 257
    ours = file_levels(dragged(x, torch.tensor([angle], dtype=torch.float64), radius, sigma))
    assert ours[0, 0].tolist() == IMAGEMAGICK[radius, sigma, angle]


@pytest.mark.parametrize(("severity", "angle"), SLOPES)
def test_the_package_is_at_most_one_level_away(
    severity: int, angle: float, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cuts to 8 bits without ImageMagick's 16 bits between, so that some flat areas drop by a level."""
    pixels = photo(224, 180)
    monkeypatch.setattr(np.random, "uniform", lambda low, high: angle)
    theirs = np.uint8(package.motion_blur(pixels, severity)).astype(float)
    away = np.abs(blurred(pixels, severity, angle, torch.float64) - theirs)
    assert away.max() <= 1
    textured = away[:, 90:]  # without the flat patches
    assert (textured > 0).mean() <= 6e-3


@pytest.mark.parametrize("size", [(224, 180), (64, 64), (30, 41), (9, 50), (1, 1)])
@pytest.mark.parametrize(("severity", "angle"), SLOPES)
def test_in_its_own_mode_every_level_is_that_of_the_package(
    severity: int, angle: float, size: tuple[int, int], photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the trail is longer than the image: it ends there, and the image grows darker."""
    monkeypatch.setattr(np.random, "uniform", lambda low, high: angle)
    theirs = np.uint8(package.motion_blur(photo(*size), severity))
    assert np.array_equal(blurred(photo(*size), severity, angle, torch.float32, "imagecorruptions"), theirs)


def test_flat_areas_keep_their_level() -> None:
    levels = torch.arange(256, dtype=torch.float32)
    x = (levels / 255)[:, None, None, None].expand(-1, 3, 8, 8)
    for severity in SEVERITIES:
        corruption = make_corruption("motion_blur", severity)
        result = corruption(x, Streams(0, corruption.component, [str(k) for k in range(256)])) * 255
        assert torch.equal(result.round(), levels[:, None, None, None].expand_as(result))


def test_each_image_moves_along_its_own_line() -> None:
    x = torch.zeros(3, 1, 31, 31, dtype=torch.float64)
    x[:, :, 15, 15] = 1
    result = dragged(x, torch.tensor([0.0, 90.0, -135.0], dtype=torch.float64), 3, 2)
    weights = torch.from_numpy(trail(3, 2))
    assert torch.equal(result[0, 0, 15, 9:16].flip(0), weights)
    assert torch.equal(result[1, 0, 9:16, 15].flip(0), weights)
    assert result.sum((1, 2, 3)).tolist() == pytest.approx([1, 1, 1])
    diagonal = result[2, 0].diagonal()
    assert diagonal.sum() == pytest.approx(1) and diagonal[15] >= weights[0] and diagonal[:15].sum() == 0


@pytest.mark.parametrize(("name", "low", "high"), [("motion_blur", -45, 45), ("snow", -135, -45)])
def test_angles_are_uniform(name: str, low: float, high: float) -> None:
    corruption = make_corruption(name, 3)
    ids = [str(i) for i in range(20000)]
    angle = corruption.draws(Streams(0, corruption.component, ids), 1, 1)["angle"]
    assert angle.dtype == torch.float64 and angle.shape == (20000,)
    assert low <= angle.min() < low + 0.05 and high - 0.05 < angle.max() < high
    assert stats.kstest(angle.numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-6
    assert abs(np.corrcoef(angle[1:], angle[:-1])[0, 1]) < 5 / math.sqrt(20000)
