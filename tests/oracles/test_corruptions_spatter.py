"""Spatter against the benchmark's formula, made of OpenCV's and SciPy's own functions, with the same draws.

OpenCV's pure-code distances are whole multiples of 2^-16; with Intel's library inside, they are float32 sums whose last
bits decide where a mean of nine is a whole pixel. Ours are the former. The latter moves 1 of 10,000 values by a level.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from imagecorruptions import corruptions as package
from PIL import Image
from scipy import stats
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_image

from aresbench.corruptions.spatter import Spatter, edge_distance, edges, equalised
from aresbench.ops.random import Streams

SEVERITIES = (1, 2, 3, 4, 5)

# The published parameters, a second time on purpose.
DOSES = {
    32: [
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ],
    64: [
        (0.62, 0.1, 0.7, 0.7, 0.6, 0),
        (0.65, 0.1, 0.8, 0.7, 0.6, 0),
        (0.65, 0.3, 1, 0.69, 0.6, 0),
        (0.65, 0.1, 0.7, 0.68, 0.6, 1),
        (0.65, 0.1, 0.5, 0.67, 0.6, 1),
    ],
    224: [
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ],
    299: [
        (0.65, 0.3, 4, 0.69, 0.9, 0),
        (0.65, 0.3, 3.5, 0.68, 0.9, 0),
        (0.65, 0.3, 3, 0.68, 0.8, 0),
        (0.65, 0.3, 1.2, 0.65, 1.8, 1),
        (0.67, 0.4, 1.2, 0.65, 1.8, 1),
    ],
}


@pytest.fixture
def pure() -> Iterator[None]:
    """OpenCV without Intel's library."""
    if hasattr(cv2, "ipp"):
        used = cv2.ipp.useIPP()
        cv2.ipp.setUseIPP(False)
        yield
        cv2.ipp.setUseIPP(used)
    else:
        yield


def photo(height: int, width: int) -> np.ndarray:
    pixels = np.array(Image.fromarray(load_sample_image("flower.jpg")).resize((width, height)))
    pixels[: height // 4] = np.arange(width, dtype=np.uint8)[:, None]
    return pixels


def batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 255


def relief(drops: np.ndarray) -> np.ndarray:
    distance = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    depth = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    return cv2.blur(cv2.filter2D(cv2.equalizeHist(depth), cv2.CV_8U, emboss), (3, 3))


def formula(pixels: np.ndarray, dose: tuple[float, ...], normal: np.ndarray) -> np.ndarray:
    mean, deviation, sigma, threshold, strength, mud = dose
    x = pixels.astype(np.float32) / np.float32(255)
    field = gaussian_filter(mean + deviation * normal.astype(np.float64), sigma, mode="nearest")
    if mud:
        cover = gaussian_filter((field > threshold).astype(np.float64), strength, mode="nearest").astype(np.float32)
        cover[cover < 0.8] = 0
        colour = np.float32([63 / 255, 42 / 255, 20 / 255])
        x = x * (1 - cover[..., None]) + colour * cover[..., None]
    else:
        field[field < threshold] = 0
        drops = (field * 255).astype(np.uint8)
        water = drops * relief(drops).astype(np.float32)
        if water.max():
            x = x + (water / water.max() * np.float32(strength))[..., None] * np.float32(
                [175 / 255, 238 / 255, 238 / 255]
            )
    return np.uint8(np.clip(x, 0, 1) * 255)


def ours(severity: int, pixels: np.ndarray, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Our levels, and the draws behind them."""
    corruption = Spatter(severity)
    draws = corruption.draws(Streams(0, corruption.component, [key]), *pixels.shape[:2])
    levels = (corruption.apply(batch(pixels), draws)[0] * 255).round().permute(1, 2, 0).numpy()
    assert torch.equal(corruption.apply(batch(pixels).float(), draws), corruption.apply(batch(pixels), draws).float())
    return levels, draws["normal"][0].numpy()


@pytest.mark.usefixtures("pure")
@pytest.mark.parametrize("side", [32, 64, 224, 299])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_image_equals_the_formula(severity: int, side: int) -> None:
    dose = DOSES[side][severity - 1]
    assert Spatter(severity).describe(side, side)["parameters"] == list(dose)
    for size in ((side, side), (side, side + 9)):
        pixels = photo(*size)
        levels, normal = ours(severity, pixels, str(size))
        assert np.array_equal(levels, formula(pixels, dose, normal))
        assert (levels != pixels).mean() > 0.01


@pytest.mark.usefixtures("pure")
@pytest.mark.parametrize("severity", SEVERITIES)
def test_image_equals_the_package(severity: int, monkeypatch: pytest.MonkeyPatch) -> None:
    difference = against_package(severity, monkeypatch)
    if severity < 4:
        assert difference.max() == 0
    else:  # the package rounds mud to float32 half-way, and adds it in float64
        assert difference.max() <= 1 and (difference > 0).mean() < 5e-4


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_the_package_with_fast_distances_is_near(severity: int, monkeypatch: pytest.MonkeyPatch) -> None:
    difference = against_package(severity, monkeypatch)
    assert difference.max() <= 2 and (difference > 0).mean() < 1e-3


def against_package(severity: int, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    pixels = photo(224, 200)
    levels, normal = ours(severity, pixels, "photo")
    monkeypatch.setattr(np.random, "normal", lambda size, loc, scale: loc + scale * normal.astype(np.float64))
    return np.abs(levels - np.uint8(package.spatter(Image.fromarray(pixels), severity)))


@pytest.mark.parametrize("seed", range(4))
def test_edges_equal_canny(seed: int) -> None:
    """On fields of many slopes, some far stronger than drops, with flat and saturated parts."""
    noise = np.random.default_rng(seed).normal(size=(90, 70))
    for sigma, scale in ((1, 300), (2, 900), (4, 4000), (0.3, 60)):
        picture = np.clip(gaussian_filter(noise, sigma) * scale + 100, 0, 255).astype(np.uint8)
        found = edges(torch.from_numpy(picture).int()[None, None])[0, 0].numpy()
        assert np.array_equal(found, cv2.Canny(picture, 50, 150) > 0)
        assert found.any()


@pytest.mark.usefixtures("pure")
def test_long_edges_are_followed_to_their_end() -> None:
    weak = np.zeros((40, 200), np.uint8)
    weak[20:] = 30  # a step whose gradient, 120, counts only when connected
    weak[20:, :3] = 60
    found = edges(torch.from_numpy(weak).int()[None, None])[0, 0].numpy()
    assert np.array_equal(found, cv2.Canny(weak, 50, 150) > 0)
    assert found[19:21, -1].any()


@pytest.mark.usefixtures("pure")
@pytest.mark.parametrize("share", [0.001, 0.01, 0.2])
def test_distances_equal_opencv(share: float) -> None:
    for size in ((60, 80), (5, 90), (3, 2)):
        edge = np.random.default_rng(3).random(size) < share
        edge[size[0] // 2, size[1] // 2] = True
        wanted = np.minimum(cv2.distanceTransform(np.uint8(255 * ~edge), cv2.DIST_L2, 5), 20)
        assert np.array_equal(edge_distance(torch.from_numpy(edge)[None, None])[0, 0].numpy(), wanted)


def test_without_an_edge_everything_is_far() -> None:
    assert (edge_distance(torch.zeros(1, 1, 9, 9, dtype=torch.bool)) == 20).all()


def test_equalised_levels_equal_opencv() -> None:
    rng = np.random.default_rng(0)
    for top in (1, 3, 20):
        depth = np.minimum(rng.poisson(top / 3, (50, 33)), top).astype(np.uint8)
        found = equalised(torch.from_numpy(depth).long()[None, None])[0, 0].numpy()
        assert np.array_equal(found, cv2.equalizeHist(depth))
    flat = torch.full((1, 1, 4, 4), 7)
    assert torch.equal(equalised(flat), flat)


def test_dry_lens_leaves_the_picture() -> None:
    corruption = Spatter(1)
    x = batch(photo(32, 32))
    assert torch.equal(corruption.apply(x, {"normal": torch.full((1, 32, 32), -1.0)}), x)


@pytest.mark.usefixtures("pure")
def test_more_than_255_wraps_as_8_bits_do() -> None:
    corruption = Spatter(3)
    normal = torch.zeros(1, 40, 40)
    normal[:, 15:30, 15:30] = 2.0  # 0.65 + 0.3 · 2 is 1.25: 318 levels
    pixels = photo(40, 40)
    levels = (corruption.apply(batch(pixels), {"normal": normal})[0] * 255).round().permute(1, 2, 0).numpy()
    field = gaussian_filter(0.65 + 0.3 * normal[0].double().numpy(), 1, mode="nearest")
    field[field < 0.69] = 0
    drops = ((field * 255).astype(np.int64) % 256).astype(np.uint8)
    assert (field * 255).max() > 256
    bright = drops * relief(drops).astype(np.float32)
    unlit = (bright == 0)[..., None] & (pixels >= 0)
    assert np.array_equal(levels[unlit], pixels[unlit]) and (levels[~unlit] >= pixels[~unlit]).all()


def test_draws_are_normal() -> None:
    normal = Spatter(1).draws(Streams(0, "spatter/1", list("abcd")), 224, 224)["normal"]
    assert stats.kstest(normal.flatten().numpy(), "norm").pvalue > 1e-6
    assert abs(np.corrcoef(normal[1:].flatten(), normal[:-1].flatten())[0, 1]) < 5 / normal[1:].numel() ** 0.5
