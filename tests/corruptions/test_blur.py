"""Gaussian blur against SciPy and against the package imagecorruptions. (Defocus blur: tests/oracles.)"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from imagecorruptions import corruptions as package
from scipy.ndimage import gaussian_filter

from aresbench.corruptions.blur import gaussian, gaussian_taps
from aresbench.corruptions.load import make_corruption

# The published parameters, a second time on purpose: a slip in the product's table must not pass.
SIGMAS = {
    32: (0.4, 0.6, 0.7, 0.8, 1),
    64: (0.5, 0.75, 1, 1.25, 1.5),
    224: (1, 2, 3, 4, 6),
    299: (1.5, 2.5, 3.5, 4.5, 6.5),
}
Photo = Callable[[int, int], np.ndarray]


def blurred(pixels: np.ndarray, severity: int, dtype: torch.dtype = torch.float64) -> np.ndarray:
    x = (torch.tensor(pixels).permute(2, 0, 1)[None].double() / 255).to(dtype)
    levels = make_corruption("gaussian_blur", severity).apply(x, {}) * 255
    return levels.round().to(torch.uint8)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("side", SIGMAS)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_every_level_is_that_of_scipy(severity: int, side: int, photo: Photo) -> None:
    pixels = photo(side, side)
    sigma = SIGMAS[side][severity - 1]
    soft = gaussian_filter(pixels / 255.0, (sigma, sigma, 0), mode="nearest", truncate=4)
    wanted = np.floor(np.clip(soft, 0, 1) * 255).astype(np.uint8)
    assert np.array_equal(blurred(pixels, severity), wanted)
    assert np.array_equal(blurred(pixels, severity, torch.float32), wanted)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (40, 31), (224, 200)])
@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.1, 3, 6.5])
def test_float64_is_equal_to_scipy_to_the_bit_at_any_size(sigma: float, size: tuple[int, int], photo: Photo) -> None:
    x = photo(*size).transpose(2, 0, 1) / 255.0
    wanted = [gaussian_filter(channel, sigma, mode="nearest", truncate=4) for channel in x]
    before = torch.from_numpy(x.copy())[None]
    assert np.array_equal(gaussian(before, sigma)[0].numpy(), np.stack(wanted))
    assert np.array_equal(before[0].numpy(), x)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_every_level_is_that_of_the_package(severity: int, photo: Photo) -> None:
    pixels = photo(224, 180)
    assert np.array_equal(blurred(pixels, severity), np.uint8(package.gaussian_blur(pixels, severity)))


def test_taps_end_at_four_sigmas_and_add_up_to_one() -> None:
    for sigma, reach in ((0.05, 0), (0.1, 0), (0.4, 2), (1, 4), (1.1, 4), (1.5, 6), (6.5, 26)):
        taps = gaussian_taps(sigma)
        assert len(taps) == reach + 1
        assert taps[0] + 2 * sum(taps[1:]) == pytest.approx(1, abs=1e-15)
        assert all(
            near / far == pytest.approx(np.exp((2 * k + 1) / (2 * sigma**2)))
            for k, (near, far) in enumerate(pairwise(taps))
        )
