"""The elastic transform against the benchmark's formula, made of OpenCV's and SciPy's own functions, same draws."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from imagecorruptions import corruptions as package
from PIL import Image
from scipy import stats
from scipy.ndimage import gaussian_filter, map_coordinates
from sklearn.datasets import load_sample_image

from aresbench.core.errors import DataError
from aresbench.corruptions.elastic import ElasticTransform, affine
from aresbench.ops.random import Streams

SEVERITIES = (1, 2, 3, 4, 5)

# The published parameters, a second time on purpose: (α, σ, jitter) in shares of 32, 64, 244 (sic) and 360.
SHARES = {
    32: (32, [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)]),
    64: (64, [(0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)]),
    224: (244, [(2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)]),
    299: (360, [(2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)]),
}


def photo(height: int, width: int) -> np.ndarray:
    """A photograph with a white, a black and a grey patch, where roundings show."""
    pixels = np.array(Image.fromarray(load_sample_image("china.jpg")).resize((width, height)))
    pixels[: height // 4, : width // 4] = 255
    pixels[: height // 4, width // 4 : width // 2] = 0
    pixels[height // 4 : height // 2, : width // 3] = 77
    return pixels


def batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 255


def mapped(image: np.ndarray, anchors: np.ndarray, jitter: float) -> tuple[np.ndarray, np.ndarray]:
    """The affine map with places rounded to 1/32 px (OpenCV's remap), and OpenCV's warpAffine of today."""
    height, width = image.shape[:2]
    centre, arm = np.float32((width, height)) // 2, min(height, width) // 3
    start = np.float32([centre + arm, [centre[0] + arm, centre[1] - arm], centre - arm])
    matrix = cv2.getAffineTransform(start, start + (-jitter + 2 * jitter * anchors).astype(np.float32))
    today = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)

    (a, b, c), (d, e, f) = cv2.invertAffineTransform(matrix)
    x, y = np.arange(width), np.arange(height)[:, None]
    across = (np.rint(a * x * 1024) + np.rint((b * y + c) * 1024) + 16).astype(int) >> 5
    below = (np.rint(d * x * 1024) + np.rint((e * y + f) * 1024) + 16).astype(int) >> 5
    whole = np.stack((across >> 5, below >> 5), 2).astype(np.int16)
    part = ((below & 31) * 32 + (across & 31)).astype(np.uint16)
    return cv2.remap(image, whole, part, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), today


def formula(pixels: np.ndarray, dose: tuple[float, float, float], draws: dict[str, np.ndarray]) -> np.ndarray:
    alpha, sigma, jitter = dose
    image, _ = mapped(pixels.astype(np.float32) / np.float32(255), draws["anchors"], jitter)
    dx, dy = (
        (gaussian_filter(2 * u.astype(np.float64) - 1, sigma, mode="reflect", truncate=3) * alpha).astype(np.float32)
        for u in draws["field"]
    )
    x, y, z = np.meshgrid(*(np.arange(n) for n in (pixels.shape[1], pixels.shape[0], 3)))
    places = [y + dy[..., None], x + dx[..., None], z]
    return np.uint8(np.clip(map_coordinates(image, places, order=1, mode="reflect"), 0, 1) * 255)


@pytest.mark.parametrize("side", [32, 64, 224, 299])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_image_equals_the_formula(severity: int, side: int) -> None:
    unit, shares = SHARES[side]
    dose = tuple(unit * share for share in shares[severity - 1])
    corruption = ElasticTransform(severity)
    assert corruption.describe(side, side)["parameters"] == pytest.approx(dose)
    for size in ((side, side), (side, side * 5 // 4)) if side < 224 else ((side, side),):
        pixels = photo(*size)
        draws = corruption.draws(Streams(0, corruption.component, [str(size)]), *size)
        wanted = formula(pixels, dose, {key: values[0].numpy() for key, values in draws.items()})  # type: ignore[arg-type]
        for x in (batch(pixels), batch(pixels).float()):
            ours = (corruption.apply(x, draws)[0] * 255).round().permute(1, 2, 0).numpy()
            # A field's last bit may fall otherwise in a product with a matrix.
            assert np.abs(ours - wanted).max() <= 1 and (ours != wanted).mean() < 1e-5


@pytest.mark.parametrize("size", [(224, 224), (60, 90), (5, 3)])
def test_affine_map_equals_opencv_to_the_bit(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((*size, 3)).astype(np.float32)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].repeat(4, 1, 1, 1)
    anchors = Streams(0, "test", list("abcd")).uniform("anchors", (3, 2), dtype=torch.float64)
    jitter = 0.12 * min(size)
    for ours, one in zip(affine(x, anchors, jitter), anchors.numpy(), strict=True):
        rounded, today = mapped(image, one, jitter)
        assert np.array_equal(ours.permute(1, 2, 0).numpy(), rounded)
        assert np.abs(rounded - today).max() < 0.06  # reads up to 1/64 px elsewhere


def test_places_far_outside_a_tiny_image_are_mirrored_too() -> None:
    image = torch.rand(50, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    anchors = Streams(0, "test", [str(i) for i in range(50)]).uniform("anchors", (3, 2), dtype=torch.float64)
    flat = torch.full((1, 3, 2), 0.5, dtype=torch.float64)
    flat[0, :, 0] = torch.tensor([0.0, 0.0, 1.0])  # three points in a line: no map leads back
    result = affine(image, anchors, 2.56)
    assert result.isfinite().all() and result.min() >= image.min() and result.max() <= image.max()
    assert affine(image[:1], flat, 1.0).isfinite().all()


@pytest.mark.parametrize("size", [(224, 200), (90, 130)])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_mode_imagecorruptions_equals_the_package(
    severity: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = photo(*size)
    corruption = ElasticTransform(severity, "imagecorruptions")
    assert corruption.describe(*size)["parameters"] == [(12.5, 16.25, 21.25, 25, 30)[severity - 1]]
    draws = corruption.draws(Streams(0, corruption.component, ["photo"]), *size)
    fields = iter(draws["field"][0].double().numpy())
    monkeypatch.setattr(np.random, "uniform", lambda low, high, size: low + (high - low) * next(fields))
    theirs = np.uint8(package.elastic_transform(Image.fromarray(pixels), severity)).astype(int)
    ours = (corruption.apply(batch(pixels), draws)[0] * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() <= 1 and (ours != theirs).mean() < 1e-4


def test_draws_are_uniform_and_independent() -> None:
    draws = ElasticTransform(2).draws(Streams(0, "elastic_transform/2", list("abcdefgh")), 224, 224)
    along, down = draws["field"].unbind(1)
    for values in (along, down, draws["anchors"]):
        assert stats.kstest(values.flatten().numpy(), "uniform").pvalue > 1e-6
    for one, other in ((along, down), (along[:, 1:], along[:, :-1]), (along[1:], along[:-1])):
        assert abs(np.corrcoef(one.flatten(), other.flatten())[0, 1]) < 5 / one.numel() ** 0.5


def test_displacements_have_the_size_that_theory_gives() -> None:
    """The deviation of α·Gaussian(U(−1, 1)) is α/√3/(2·√π·σ) px away from the border."""
    x = torch.linspace(0, 1, 224, dtype=torch.float64).expand(40, 3, 224, 224)  # a ramp shows where a pixel was read
    for severity in (3, 4, 5):
        corruption = ElasticTransform(severity)
        draws = corruption.draws(Streams(0, corruption.component, [str(i) for i in range(40)]), 224, 224)
        draws["anchors"] = torch.full_like(draws["anchors"], 0.5)
        read = corruption.apply(x, draws)[:, 0, 40:-40, 40:-40] * 223
        deviation = float((read - x[:, 0, 40:-40, 40:-40] * 223).std())
        alpha, sigma, _ = corruption.dose(224, 224)
        whole_levels = (223 / 255) ** 2 / 12  # variance that rounding down adds
        assert deviation == pytest.approx((alpha**2 / (12 * np.pi * sigma**2) + whole_levels) ** 0.5, rel=0.02)


def test_images_too_small_for_three_points_are_refused() -> None:
    for size in ((2, 9), (9, 1)):
        with pytest.raises(DataError, match=f"{size[0]}×{size[1]}"):
            ElasticTransform(3)(torch.rand(1, 3, *size), Streams(0, "elastic_transform/3", ["a"]))
    assert ElasticTransform(3, "imagecorruptions")(torch.rand(1, 3, 2, 9), Streams(0, "e", ["a"])).shape[2:] == (2, 9)


def test_severity_two_moves_the_picture_further_than_three() -> None:
    x = batch(photo(224, 224)).expand(8, -1, -1, -1)
    changes = []
    for severity in (1, 2, 3):
        corruption = ElasticTransform(severity)
        result = corruption(x, Streams(0, corruption.component, list("abcdefgh")))
        changes.append(float((result - x).square().mean()))
    assert [a < b for a, b in pairwise(changes)] == [True, False]
