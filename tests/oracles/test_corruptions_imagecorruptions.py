"""Corruptions against the package imagecorruptions (its fork imagecorruptions-imaug), with the same draws.

The package works in float64 on 8-bit images of any size with the 224 px parameters. Its random numbers
are replaced by ours. It is a valid oracle for all the corruptions here; fog keeps its relief in float32
there, which is put to float64 for the exact comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from imagecorruptions import corruptions as package
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_image

from aresbench.corruptions.blur import disk_kernel
from aresbench.corruptions.load import make_corruption
from aresbench.ops.random import Streams

SEVERITIES = (1, 2, 3, 4, 5)

# Share of values that may differ, by one level: OpenCV's filter sums in another order.
DEFOCUS_SHARE = 3e-5


@cache
def photo() -> np.ndarray:
    """A real photograph, 224 × 200 pixels, with a white, a black and a red patch."""
    pixels = load_sample_image("flower.jpg")[100:324, 150:350].copy()
    pixels[:40, :40] = 255
    pixels[:40, 40:80] = 0
    pixels[40:80, :40] = (255, 0, 0)
    return pixels


def theirs(name: str, severity: int) -> np.ndarray:
    return np.uint8(getattr(package, name)(Image.fromarray(photo()), severity)).astype(np.int64)


def ours(name: str, severity: int, dtype: torch.dtype) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Our levels, and the draws behind them."""
    corruption = make_corruption(name, severity)
    x = (torch.from_numpy(photo()).permute(2, 0, 1)[None].double() / 255).to(dtype)
    draws = corruption.draws(Streams(0, corruption.component, ["flower"]), *photo().shape[:2])
    levels = (corruption.apply(x, draws) * 255).round().to(torch.int64)[0].permute(1, 2, 0).numpy()
    return levels, {k: v[0].numpy() for k, v in draws.items()}


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ["brightness", "contrast", "jpeg_compression", "pixelate", "saturate"])
def test_deterministic_corruptions_are_equal(
    name: str, severity: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its pixelate enlarges by nearest neighbour; ImageNet-C's by the box filter, which breaks ties without rounding.
    monkeypatch.setattr(package.Image, "NEAREST", Image.Resampling.BOX)
    assert np.array_equal(ours(name, severity, dtype)[0], theirs(name, severity))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_blur_is_equal_but_for_rare_ties(severity: int, dtype: torch.dtype) -> None:
    difference = np.abs(ours("defocus_blur", severity, dtype)[0] - theirs("defocus_blur", severity))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= DEFOCUS_SHARE


@pytest.mark.parametrize(
    "dose", [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5), (12, 0.5), (0.3, 0.4), (1, 0.2), (2.5, 0.01)]
)
def test_defocus_kernel_is_that_of_opencv_but_for_two_roundings(dose: tuple[float, float]) -> None:
    kernel, reference = disk_kernel(*dose), package.disk(*dose).astype(np.float64)
    margin = (len(reference) - len(kernel)) // 2
    assert np.abs(np.pad(kernel, margin) - reference).max() <= 2.0**-22 * kernel.max()
    assert np.sign(kernel.sum() - 1) == np.sign(reference.sum() - 1)  # which way flat areas fall


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise"])
def test_normal_noise_is_equal_with_the_same_draws(
    name: str, severity: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels, draws = ours(name, severity, dtype)
    normal = draws["normal"].transpose(1, 2, 0).astype(np.float64)
    monkeypatch.setattr(np.random, "normal", lambda size, scale: normal.reshape(size) * scale)
    assert np.array_equal(levels, theirs(name, severity))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_is_equal_with_the_counts_of_the_same_draws(
    severity: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels, draws = ours("shot_noise", severity, dtype)
    uniform = draws["uniform"].transpose(1, 2, 0)
    monkeypatch.setattr(np.random, "poisson", lambda mean: np.maximum(stats.poisson.ppf(uniform, mean), 0))
    assert np.array_equal(levels, theirs("shot_noise", severity))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_is_equal_with_the_same_draws(
    severity: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There one draw says whether a value is hit and a second whether it is salt; here one draw says both."""
    levels, draws = ours("impulse_noise", severity, dtype)
    uniform = draws["uniform"].transpose(1, 2, 0).astype(np.float64)
    (amount,) = make_corruption("impulse_noise", severity).describe(224, 200)["parameters"]
    numbers = iter([uniform, uniform / amount])
    monkeypatch.setattr(np.random, "default_rng", lambda seed: SimpleNamespace(random=lambda shape: next(numbers)))
    assert np.array_equal(levels, theirs("impulse_noise", severity))
    assert next(numbers, None) is None


def feed(draws: np.ndarray) -> tuple[Callable[..., np.ndarray], Iterator[float]]:
    """A stand-in for numpy.random.uniform that hands out given numbers, and what is left of them."""
    numbers = iter(draws)

    def uniform(low: float, high: float, size: tuple[int, ...]) -> np.ndarray:
        taken = np.fromiter(numbers, np.float64, count=int(np.prod(size)))
        return low + (high - low) * taken.reshape(size)

    return uniform, numbers


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_is_equal_with_the_same_draws(severity: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    levels, draws = ours("fog", severity, dtype)
    uniform, left = feed(draws["uniform"])
    monkeypatch.setattr(np.random, "uniform", uniform)
    monkeypatch.setattr(package, "np", SimpleNamespace(**{**vars(np), "float32": np.float64}))
    assert np.array_equal(levels, theirs("fog", severity))
    assert next(left, None) is None


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_as_shipped_differs_by_one_level_at_most(severity: int, monkeypatch: pytest.MonkeyPatch) -> None:
    levels, draws = ours("fog", severity, torch.float32)
    monkeypatch.setattr(np.random, "uniform", feed(draws["uniform"])[0])
    difference = np.abs(levels - theirs("fog", severity))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
