"""The ideal filters against the definition written frequency by frequency, and what follows from it."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from aresbench.core.errors import DataError, SpecError
from aresbench.corruptions.change import Change
from aresbench.corruptions.frequency import HighPass, LowPass, coarse_part
from aresbench.ops.random import Streams

FILTERS = (LowPass, HighPass)


def by_definition(x: np.ndarray, keep: object) -> np.ndarray:
    """|inverse of the kept part of the centred spectrum|, frequency by frequency; x is [C,H,W]."""
    spectrum = np.fft.fftshift(np.fft.fft2(x), axes=(-2, -1))
    height, width = x.shape[-2:]
    for i in range(height):
        for j in range(width):
            if not keep((i - height // 2) ** 2 + (j - width // 2) ** 2):  # type: ignore[operator]
                spectrum[:, i, j] = 0
    return np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(-2, -1)))


@pytest.mark.parametrize("size", [(40, 36), (33, 31), (24, 35), (1, 9), (1, 1)])
@pytest.mark.parametrize("r", [1, 4, 5, 13, 40])  # 5: (3, 4) lies on the border of the disc
def test_filters_equal_the_definition(r: int, size: tuple[int, int], photos: Tensor) -> None:
    x = torch.nn.functional.interpolate(photos[:2].double(), size)
    for image, low, high in zip(x.numpy(), LowPass(r).apply(x), HighPass(r).apply(x), strict=True):
        wanted = by_definition(image, lambda square: square <= r * r)
        assert np.abs(wanted.imag).max() < 1e-12
        np.testing.assert_allclose(low, np.minimum(np.abs(wanted), 1), atol=1e-12)
        wanted = by_definition(image, lambda square: square > r * r or square == 0)
        np.testing.assert_allclose(high, np.clip(wanted.real, 0, 1), atol=1e-12)


def test_undershoot_is_mirrored_and_overshoot_cut_off() -> None:
    step = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    step[..., 16:] = 1
    raw, low = coarse_part(step, 5), LowPass(5).apply(step)
    below, above = raw < -0.01, raw > 1.01
    assert below.any() and above.any()
    assert torch.allclose(low[below], -raw[below]) and (low[above] == 1).all()


def test_filtering_twice_is_filtering_once(photos: Tensor) -> None:
    once = coarse_part(photos.double(), 7)
    assert torch.allclose(coarse_part(once, 7), once, atol=1e-12)
    assert torch.allclose(coarse_part(coarse_part(once, 12), 4), coarse_part(photos.double(), 4), atol=1e-12)


def test_low_and_high_part_and_mean_make_the_picture() -> None:
    x = 0.5 + 0.02 * torch.rand(2, 3, 20, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = LowPass(6).apply(x) + HighPass(6).apply(x) - x.mean((2, 3), keepdim=True)  # nothing is cut off
    assert torch.allclose(together, x, atol=1e-12)


def test_kept_energy_grows_with_the_radius_and_is_that_of_the_disc(photos: Tensor) -> None:
    x = photos[0].double()
    power = (torch.fft.fft2(x).abs() ** 2).sum(0) / (40 * 36)
    up, across = (torch.fft.fftfreq(n, dtype=torch.float64) * n for n in (40, 36))
    square = (up[:, None] ** 2 + across**2).round()
    radii = range(1, 28)
    kept = [float(coarse_part(x[None], r).square().sum()) for r in radii]
    assert kept == pytest.approx([float(power[square <= r * r].sum()) for r in radii], rel=1e-12)
    assert all(a < b for a, b in pairwise(kept))
    assert kept[-1] == pytest.approx(float(x.square().sum()), rel=1e-12)  # 27 reaches the corner (20, 18)


def test_large_radius_changes_nothing_and_the_complement_leaves_the_mean(photos: Tensor) -> None:
    r = math.ceil(math.hypot(20, 18))
    assert torch.allclose(LowPass(r).apply(photos), photos, atol=1e-6)
    assert torch.allclose(HighPass(r).apply(photos), photos.mean((2, 3), keepdim=True).expand_as(photos), atol=1e-6)


@pytest.mark.parametrize("kind", FILTERS)
def test_call_keeps_shape_dtype_input_and_ignores_batch_and_order(kind: type, photos: Tensor) -> None:
    change = kind(9)
    for dtype in (torch.float32, torch.float64):
        x = photos.to(dtype)
        before = x.clone()
        whole = change(x, Streams(0, change.component, list("abcde")))
        assert whole.dtype == dtype and whole.shape == x.shape
        assert torch.equal(x, before) and whole.min() >= 0 and whole.max() <= 1
        assert ((whole * 255 - (whole * 255).round()).abs() > 0.1).float().mean() > 0.5  # no 8 bits
        assert torch.equal(torch.cat([change.apply(x[i : i + 1]) for i in range(5)]), whole)
        assert torch.equal(change.apply(x.to(memory_format=torch.channels_last)), whole)
    assert torch.equal(change.apply(photos), change.apply((photos.double() * 255).round() / 255).float())
    assert change.apply(photos[:0]).shape == (0, 3, 40, 36)


@pytest.mark.parametrize("kind", FILTERS)
def test_record(kind: type) -> None:
    change = kind(40)
    assert isinstance(change, Change)
    assert change.component == f"{change.name}/40"
    assert change.describe() == change.describe(224, 300) == {"name": change.name, "r": 40, "revision": 1}
    assert change == kind(40) != kind(38)
    assert repr(change) == f"{kind.__name__}(r=40)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        change.r = 3


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("r", [0, -3, 2.5, "8", True, None])
def test_radius_that_is_none_is_refused(kind: type, r: object) -> None:
    with pytest.raises(SpecError, match="radius") as caught:
        kind(r)
    assert "at least 1" in caught.value.remedy


@pytest.mark.parametrize("kind", FILTERS)
def test_what_is_no_batch_of_images_is_refused(kind: type, photos: Tensor) -> None:
    with pytest.raises(DataError, match=r"must lie in \[0, 1\]"):
        kind(4).apply(photos * 255)
    with pytest.raises(DataError, match="5 images but 1 random streams"):
        kind(4)(photos, Streams(0, "lowpass/4", ["a"]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", FILTERS)
def test_gpu_agrees_with_the_cpu(kind: type, photos: Tensor) -> None:
    assert torch.allclose(kind(9).apply(photos.cuda()).cpu(), kind(9).apply(photos), atol=1e-6)
