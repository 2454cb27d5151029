"""Corruptions against their published formulas, written again point by point in NumPy float64.

Each formula takes the very draws our own maths takes, and every level must be equal: for images in
float64, and for the same images in float32, whose maths runs in float64 too.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_image

from aresbench.core.errors import DataError
from aresbench.corruptions.blur import disk_kernel
from aresbench.corruptions.load import make_corruption
from aresbench.corruptions.noise import poisson_levels
from aresbench.corruptions.weather import plasma
from aresbench.ops.box import box_resize
from aresbench.ops.random import Streams

SEVERITIES = (1, 2, 3, 4, 5)
SIDES = (32, 64, 224)

# The published parameters, a second time on purpose: a slip in the product's table must not pass.
DOSES = {
    ("gaussian_noise", 32): [0.04, 0.06, 0.08, 0.09, 0.10],
    ("gaussian_noise", 64): [0.04, 0.08, 0.12, 0.15, 0.18],
    ("gaussian_noise", 224): [0.08, 0.12, 0.18, 0.26, 0.38],
    ("gaussian_noise", 299): [0.09, 0.13, 0.19, 0.27, 0.40],
    ("defocus_blur", 32): [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)],
    ("defocus_blur", 64): [(0.5, 0.6), (1.0, 0.1), (1.5, 0.1), (2.5, 0.01), (3.0, 0.1)],
    ("defocus_blur", 224): [(3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)],
    ("defocus_blur", 299): [(4.0, 0.1), (5.0, 0.5), (7.0, 0.5), (10.0, 0.5), (12.0, 0.5)],
    ("fog", 32): [(0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)],
    ("fog", 64): [(0.4, 3.0), (0.7, 3.0), (1.0, 2.5), (1.5, 2.0), (2.0, 1.75)],
    ("fog", 224): [(1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)],
    ("fog", 299): [(1.5, 2.0), (2.0, 2.0), (2.5, 1.8), (2.5, 1.6), (3.0, 1.5)],
    ("brightness", 32): [0.05, 0.10, 0.15, 0.20, 0.30],
    ("brightness", 64): [0.1, 0.2, 0.3, 0.4, 0.5],
    ("brightness", 224): [0.1, 0.2, 0.3, 0.4, 0.5],
    ("brightness", 299): [0.1, 0.2, 0.3, 0.4, 0.5],
    ("jpeg_compression", 32): [80, 65, 58, 50, 40],
    ("jpeg_compression", 64): [65, 58, 50, 40, 25],
    ("jpeg_compression", 224): [25, 18, 15, 10, 7],
    ("jpeg_compression", 299): [23, 16, 13, 8, 5],
    ("shot_noise", 32): [500, 250, 100, 75, 50],
    ("shot_noise", 64): [250, 100, 50, 30, 15],
    ("shot_noise", 224): [60, 25, 12, 5, 3],
    ("shot_noise", 299): [50, 20, 10, 5, 3],
    ("impulse_noise", 32): [0.01, 0.02, 0.03, 0.05, 0.07],
    ("impulse_noise", 64): [0.01, 0.02, 0.05, 0.08, 0.14],
    ("impulse_noise", 224): [0.03, 0.06, 0.09, 0.17, 0.27],
    ("impulse_noise", 299): [0.04, 0.07, 0.1, 0.18, 0.28],
    ("speckle_noise", 32): [0.06, 0.1, 0.12, 0.16, 0.2],
    ("speckle_noise", 64): [0.15, 0.2, 0.25, 0.3, 0.35],
    ("speckle_noise", 224): [0.15, 0.2, 0.35, 0.45, 0.6],
    ("speckle_noise", 299): [0.16, 0.21, 0.36, 0.46, 0.61],
    ("contrast", 32): [0.75, 0.5, 0.4, 0.3, 0.15],
    ("contrast", 64): [0.4, 0.3, 0.2, 0.1, 0.05],
    ("contrast", 224): [0.4, 0.3, 0.2, 0.1, 0.05],
    ("contrast", 299): [0.4, 0.3, 0.2, 0.1, 0.05],
    ("saturate", 32): [(0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)],
    ("saturate", 64): [(0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (30.0, 0.2)],
    ("saturate", 224): [(0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)],
    ("saturate", 299): [(0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)],
    ("pixelate", 32): [0.95, 0.9, 0.85, 0.75, 0.65],
    ("pixelate", 64): [0.9, 0.8, 0.7, 0.6, 0.5],
    ("pixelate", 224): [0.6, 0.5, 0.4, 0.3, 0.25],
    ("pixelate", 299): [0.5, 0.4, 0.3, 0.25, 0.2],
}
NAMES = sorted({name for name, _ in DOSES})


@cache
def photo(height: int, width: int) -> np.ndarray:
    """A real photograph with an artificial patch of greys, pure colours, black and white: uint8 [H,W,3]."""
    whole = Image.fromarray(load_sample_image("china.jpg"))
    pixels = np.array(whole.resize((width, height), Image.Resampling.BICUBIC))
    k = max(1, height // 4)
    pixels[:k, :k] = np.arange(k, dtype=np.uint8)[:, None, None] * (255 // k)
    pixels[:k, k : 2 * k] = (255, 0, 0)
    pixels[k : 2 * k, :k] = 0
    pixels[k : 2 * k, k : 2 * k] = 255
    return pixels


def truncate(values: np.ndarray) -> np.ndarray:
    return np.floor(np.clip(values, 0, 1) * 255).astype(np.uint8)


def gaussian_noise(x: np.ndarray, sigma: float, draws: dict[str, np.ndarray]) -> np.ndarray:
    return truncate(x + sigma * draws["normal"].astype(np.float64).transpose(1, 2, 0))


def soft_disk(radius: float, sigma: float) -> np.ndarray:
    """Pixels within the radius, equal weights; then a Gaussian mirrored at the kernel's own border. In float32."""
    half, taps = (8, 1) if radius <= 8 else (int(radius), 2)
    side = 2 * half + 1
    inside = [[float((i - half) ** 2 + (j - half) ** 2 <= radius**2) for j in range(side)] for i in range(side)]
    disk = np.array(inside, dtype=np.float32)
    disk = disk / np.float32(disk.sum())
    gauss = {k: math.exp(-(k**2) / (2 * sigma**2)) for k in range(-taps, taps + 1)}
    weights = {k: np.float32(g / sum(gauss.values())) for k, g in gauss.items()}

    def at(k: int) -> int:
        return abs(k) if k < side else 2 * (side - 1) - k

    for axis in (1, 0):
        soft = weights[0] * disk
        for k in range(1, taps + 1):
            before = disk.take([at(p - k) for p in range(side)], axis=axis)
            after = disk.take([at(p + k) for p in range(side)], axis=axis)
            exact = weights[k].astype(np.float64) * (before + after) + soft
            soft = exact.astype(np.float32)
        disk = soft
    return disk.astype(np.float64)


def defocus_blur(x: np.ndarray, dose: tuple[float, float], draws: dict[str, np.ndarray]) -> np.ndarray:
    kernel = soft_disk(*dose)
    half = len(kernel) // 2
    height, width, _ = x.shape
    around = np.pad(x, ((half, half), (half, half), (0, 0)), mode="reflect")
    total = np.zeros_like(x)
    for i, row in enumerate(kernel):
        for j, weight in enumerate(row):
            total += weight * around[i : i + height, j : j + width]
    return truncate(total)


def relief(draws: np.ndarray, side: int, decay: float) -> np.ndarray:
    """The diamond–square recursion, one point after the other, on a map without edges."""
    numbers = iter(draws)
    z = [[0.0] * side for _ in range(side)]
    step, swing = side, 100.0

    def wobble(total: float) -> float:
        return total / 4 + swing * (-swing + 2 * swing * next(numbers))

    while step >= 2:
        half = step // 2
        for i in range(0, side, step):
            for j in range(0, side, step):
                down, right = (i + step) % side, (j + step) % side
                z[i + half][j + half] = wobble((z[i][j] + z[down][j]) + (z[i][right] + z[down][right]))
        for i in range(0, side, step):
            for j in range(0, side, step):
                right = (j + step) % side
                z[i][j + half] = wobble((z[i + half][j + half] + z[i - half][j + half]) + (z[i][j] + z[i][right]))
        for i in range(0, side, step):
            for j in range(0, side, step):
                down = (i + step) % side
                z[i + half][j] = wobble((z[i + half][j + half] + z[i + half][j - half]) + (z[i][j] + z[down][j]))
        step, swing = half, swing / decay
    assert next(numbers, None) is None
    heights = np.array(z)
    heights -= heights.min()
    return heights / heights.max()


def fog(x: np.ndarray, dose: tuple[float, float], draws: dict[str, np.ndarray]) -> np.ndarray:
    strength, decay = dose
    height, width, _ = x.shape
    side = 2
    while side < max(height, width):
        side *= 2
    banks = relief(draws["uniform"], side, decay)[:height, :width, None]
    return truncate((x + strength * banks) * x.max() / (x.max() + strength))


def in_hsv(x: np.ndarray, change: Callable[[float, float], tuple[float, float]]) -> np.ndarray:
    """Saturation and value changed, pixel by pixel."""
    result = np.empty_like(x)
    for place in np.ndindex(x.shape[:2]):
        r, g, b = x[place].tolist()
        value = max(r, g, b)
        span = value - min(r, g, b)
        hue = saturation = 0.0
        if span > 0:
            saturation = span / value
            if b == value:
                hue = 4 + (r - g) / span
            elif g == value:
                hue = 2 + (b - r) / span
            else:
                hue = (g - b) / span
            hue = (hue / 6) % 1
        saturation, value = (min(max(v, 0), 1) for v in change(saturation, value))
        sector = math.floor(hue * 6)
        part = hue * 6 - sector
        low, falling = value * (1 - saturation), value * (1 - part * saturation)
        rising = value * (1 - (1 - part) * saturation)
        result[place] = (
            (value, rising, low),
            (falling, value, low),
            (low, value, rising),
            (low, falling, value),
            (rising, low, value),
            (value, low, falling),
        )[sector % 6]
    return truncate(result)


def brightness(x: np.ndarray, shift: float, draws: dict[str, np.ndarray]) -> np.ndarray:
    return in_hsv(x, lambda saturation, value: (saturation, value + shift))


def saturate(x: np.ndarray, dose: tuple[float, float], draws: dict[str, np.ndarray]) -> np.ndarray:
    return in_hsv(x, lambda saturation, value: (saturation * dose[0] + dose[1], value))


def contrast(x: np.ndarray, factor: float, draws: dict[str, np.ndarray]) -> np.ndarray:
    mean = [math.fsum(255 * v for v in x[..., channel].flat) / x[..., 0].size / 255 for channel in range(3)]
    return truncate((x - mean) * factor + mean)


def shot_noise(x: np.ndarray, photons: int, draws: dict[str, np.ndarray]) -> np.ndarray:
    counts = stats.poisson.ppf(draws["uniform"].transpose(1, 2, 0), photons * x)
    return truncate(np.maximum(counts, 0) / photons)


def impulse_noise(x: np.ndarray, amount: float, draws: dict[str, np.ndarray]) -> np.ndarray:
    uniform = draws["uniform"].transpose(1, 2, 0)
    result = x.copy()
    result[uniform < amount] = 0
    result[uniform < amount / 2] = 1
    return truncate(result)


def speckle_noise(x: np.ndarray, sigma: float, draws: dict[str, np.ndarray]) -> np.ndarray:
    return truncate(x + x * (sigma * draws["normal"].astype(np.float64).transpose(1, 2, 0)))


def pixelate(x: np.ndarray, scale: float, draws: dict[str, np.ndarray]) -> np.ndarray:
    height, width, _ = x.shape
    picture = Image.fromarray(np.round(x * 255).astype(np.uint8))
    # One side at a time, the rows first: versions of Pillow differ in which they take first.
    for size in ((int(width * scale), height), (int(width * scale), int(height * scale))):
        picture = picture.resize(size, Image.Resampling.BOX)
    return np.array(picture.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(x: np.ndarray, quality: int, draws: dict[str, np.ndarray]) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.round(x * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


FORMULAS: dict[str, Callable[..., np.ndarray]] = {name: globals()[name] for name in NAMES}


def both(name: str, severity: int, pixels: np.ndarray, nominal: int) -> dict[torch.dtype, np.ndarray]:
    """Our levels minus the formula's, for a float64 and a float32 image."""
    height, width, _ = pixels.shape
    corruption = make_corruption(name, severity)
    draws = corruption.draws(Streams(3, corruption.component, ["photo"]), height, width)
    clean = pixels / 255.0
    wanted = FORMULAS[name](clean, DOSES[name, nominal][severity - 1], {k: v[0].numpy() for k, v in draws.items()})
    differences = {}
    for dtype in (torch.float64, torch.float32):
        x = torch.from_numpy(clean.transpose(2, 0, 1).copy()).to(dtype)[None]
        levels = corruption.apply(x, draws) * 255
        assert (levels - levels.round()).abs().max() < 1e-4
        differences[dtype] = levels.round().to(torch.int64)[0].permute(1, 2, 0).numpy() - wanted.astype(np.int64)
    return differences


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", NAMES)
def test_image_equals_the_formula(name: str, severity: int, side: int) -> None:
    difference = both(name, severity, photo(side, side), side)
    assert np.count_nonzero(difference[torch.float64]) == 0
    assert np.count_nonzero(difference[torch.float32]) == 0


@pytest.mark.parametrize(
    ("height", "width", "nominal"),
    [(1, 1, 32), (1, 6, 32), (3, 2, 32), (20, 45, 32), (40, 33, 32), (97, 70, 64), (130, 200, 224), (262, 301, 299)],
)
@pytest.mark.parametrize("name", NAMES)
def test_image_of_any_size_equals_the_formula_of_the_nearest_set(
    name: str, height: int, width: int, nominal: int
) -> None:
    if name == "pixelate" and min(height, width) == 1:
        return  # nothing is left of a single pixel: see below
    difference = both(name, 4, photo(height, width), nominal)
    assert np.count_nonzero(difference[torch.float64]) == 0
    assert np.count_nonzero(difference[torch.float32]) == 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (6, 1)])
def test_pixelate_says_when_no_pixel_would_be_left(height: int, width: int) -> None:
    with pytest.raises(DataError, match=f"{height}×{width} images have no pixel left at 0.75") as caught:
        make_corruption("pixelate", 4).apply(torch.zeros(1, 3, height, width), {})
    assert "2×2 pixels" in caught.value.remedy


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_published_ones(name: str) -> None:
    for side in (32, 64, 224, 299):
        for severity in SEVERITIES:
            described = make_corruption(name, severity).describe(side, side)
            dose = DOSES[name, side][severity - 1]
            assert described["parameter_set"] == side
            assert described["parameters"] == list(dose if isinstance(dose, tuple) else (dose,))


@pytest.mark.parametrize("nominal", [32, 64, 224, 299])
def test_kernel_equals_the_formula_to_the_bit_and_is_symmetric(nominal: int) -> None:
    for dose in DOSES["defocus_blur", nominal]:
        ours, formula = disk_kernel(*dose), soft_disk(*dose)
        margin = (len(formula) - len(ours)) // 2
        assert np.array_equal(ours, formula[margin : len(formula) - margin, margin : len(formula) - margin])
        assert formula.sum() - ours.sum() < 1e-18
        assert np.array_equal(ours, ours[::-1]) and np.array_equal(ours, ours[:, ::-1])


@pytest.mark.parametrize("side", [2, 4, 16, 256])
@pytest.mark.parametrize("decay", [1.4, 1.7, 3])
def test_plasma_equals_the_pointwise_recursion_to_the_bit(side: int, decay: float) -> None:
    draws = np.random.default_rng(side).random((2, side * side - 1))
    ours = plasma(torch.from_numpy(draws), side, decay).numpy()
    for map_, numbers in zip(ours, draws, strict=True):
        assert np.array_equal(map_, relief(numbers, side, decay))


@pytest.mark.parametrize("photons", [500, 60, 3])
def test_photon_counts_of_values_between_the_levels_are_quantiles_too(photons: int) -> None:
    rng = np.random.default_rng(photons)
    x, uniform = rng.random((2, 3, 20, 20)), np.floor(rng.random((2, 3, 20, 20)) * 2**53) / 2**53
    x[0, 0] = np.round(x[0, 0] * 255) / 255  # some on a level, some between
    x[0, 1, 0, 0], x[0, 1, 0, 1] = 0, 1
    wanted = truncate(stats.poisson.ppf(uniform, photons * x) / photons)
    ours = poisson_levels(torch.from_numpy(x), photons, torch.from_numpy(uniform)).numpy()
    assert np.array_equal(ours, wanted)


@pytest.mark.parametrize("photons", [60, 5])
def test_photon_counts_at_the_ends_of_the_draws(photons: int) -> None:
    """The first draw of all gives no photon; very late ones give many, but none where there is no light."""
    x = torch.arange(256).double().div(255).expand(1, 3, 1, 256)
    assert (poisson_levels(x, photons, torch.zeros_like(x)) == 0).all()
    last = poisson_levels(x, photons, torch.full_like(x, 1 - 2.0**-40))
    wanted = truncate(stats.poisson.ppf(1 - 2.0**-40, photons * x.numpy()) / photons)
    assert np.array_equal(last.numpy(), wanted)
    assert last[0, 0, 0, 0] == 0


@pytest.mark.parametrize("before", [(1, 7), (13, 40), (97, 31), (224, 224), (300, 5)])
def test_box_filter_is_that_of_pillow_side_by_side(before: tuple[int, int]) -> None:
    height, width = before
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    for rows in (1, 2, 13, 33, 134, 301):
        for columns in (1, 3, 40, 97, 134, 240):
            picture = Image.fromarray(pixels).resize((columns, height), Image.Resampling.BOX)
            wanted = np.array(picture.resize((columns, rows), Image.Resampling.BOX))
            assert np.array_equal(box_resize(tensor, rows, columns)[0].permute(1, 2, 0).numpy(), wanted)
