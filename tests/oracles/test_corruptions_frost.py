"""Frost against the benchmark's formula with OpenCV's own reading and resizing, and with the same draws."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from imagecorruptions import corruptions as package
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_image

from aresbench.core.errors import DataError
from aresbench.corruptions.frost import TEXTURES, Frost, enlarged, read_texture, reduced
from aresbench.ops.random import Streams

# The published weights, a second time on purpose.
DOSES = {
    32: [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
    64: [(1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)],
    224: [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
    299: [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
}
FACTOR = {32: 0.2, 64: 0.3, 224: None, 299: None}
FILES = ["frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"]


def photo(height: int, width: int) -> np.ndarray:
    pixels = np.array(Image.fromarray(load_sample_image("flower.jpg")).resize((width, height)))
    pixels[: height // 4] = np.arange(width, dtype=np.uint8)[:, None]
    return pixels


def images(pixels: np.ndarray, count: int) -> torch.Tensor:
    return (torch.from_numpy(pixels).permute(2, 0, 1).double() / 255).expand(count, -1, -1, -1)


@cache
def texture_of_opencv(file: str) -> np.ndarray:
    spec = importlib.util.find_spec("imagecorruptions")
    assert spec is not None and spec.origin is not None
    return cv2.imread(str(Path(spec.origin).with_name("frost") / file))[..., ::-1]


@pytest.mark.parametrize("texture", TEXTURES, ids=FILES)
def test_textures_are_read_and_resized_as_opencv_does(texture: object) -> None:
    ours, theirs = read_texture(texture), texture_of_opencv(texture.file)  # type: ignore[arg-type,attr-defined]
    assert np.array_equal(ours, theirs)
    for factor in (0.2, 0.3):
        small = cv2.resize(theirs, (0, 0), fx=factor, fy=factor)
        assert np.array_equal(reduced(ours, *small.shape[:2], factor), small)
    large = cv2.resize(theirs, (1100, 700), interpolation=cv2.INTER_CUBIC)
    difference = np.abs(enlarged(ours, 700, 1100).astype(int) - large)
    assert difference.max() <= 1 and (difference > 0).mean() < 5e-5


@pytest.mark.parametrize("side", [32, 64, 224, 299])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_image_equals_the_formula(severity: int, side: int) -> None:
    pixels = photo(side, side)
    corruption = Frost(severity)
    draws = corruption.draws(Streams(0, corruption.component, [str(i) for i in range(6)]), side, side)
    levels = corruption.apply(images(pixels, 6), draws) * 255
    of_image, of_frost = DOSES[side][severity - 1]
    assert corruption.describe(side, side)["parameters"] == [of_image, of_frost]
    for k, ours in enumerate(levels):
        ice = texture_of_opencv(FILES[int(draws["texture"][k])])
        if FACTOR[side]:
            ice = cv2.resize(ice, (0, 0), fx=FACTOR[side], fy=FACTOR[side])
        top, left = int(draws["top"][k]), int(draws["left"][k])
        piece = ice[top : top + side, left : left + side]
        wanted = np.uint8(np.clip(of_image * pixels + of_frost * piece, 0, 255))
        assert np.array_equal(ours.round().numpy().astype(np.uint8).transpose(1, 2, 0), wanted)


@pytest.mark.parametrize("size", [(224, 200), (400, 700)])
@pytest.mark.parametrize("severity", [1, 5])
def test_mode_imagecorruptions_equals_the_package(
    severity: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = photo(*size)
    corruption = Frost(severity, "imagecorruptions")
    draws = corruption.draws(Streams(0, corruption.component, list("abcd")), *size)
    assert int(draws["texture"].max()) < 5
    levels = corruption.apply(images(pixels, 4), draws) * 255
    for k, ours in enumerate(levels):
        numbers = iter([int(draws[key][k]) for key in ("texture", "top", "left")])
        limits = []
        monkeypatch.setattr(np.random, "randint", lambda *a, n=numbers, seen=limits: (seen.append(a[-1]), next(n))[1])
        theirs = np.uint8(package.frost(Image.fromarray(pixels), severity)).astype(int)
        assert all(int(draws[key][k]) < limit for key, limit in zip(("texture", "top", "left"), limits, strict=True))
        difference = np.abs(ours.round().numpy().transpose(1, 2, 0) - theirs)
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-4


def test_textures_and_places_are_drawn_uniformly() -> None:
    count = 4000
    draws = Frost(1).draws(Streams(0, "frost/1", [str(i) for i in range(count)]), 224, 224)
    assert stats.chisquare(np.bincount(draws["texture"], minlength=5)).pvalue > 1e-6
    for k, (height, width) in enumerate([(600, 900), (315, 560), (315, 560), (350, 527), (495, 660)]):
        of_texture = draws["texture"] == k
        for key, length in (("top", height), ("left", width)):
            places = draws[key][of_texture].numpy()
            assert places.min() >= 0 and places.max() < length - 224  # the last place is never drawn
            assert stats.kstest((places + 0.5) / (length - 224), "uniform").pvalue > 1e-6


def test_textures_grow_with_the_image_until_they_end() -> None:
    # (64, 41) has the doses of 32 px, whose textures are 63 px high: those of 64 px serve.
    for size in ((64, 41), (100, 100), (119, 119), (315, 527)):
        result = Frost(3)(images(photo(*size), 5), Streams(0, "frost/3", list("abcde")))
        assert result.shape == (5, 3, *size)
        assert (result != images(photo(*size), 5)).any((1, 2, 3)).all()
    for size in ((316, 300), (200, 528)):
        with pytest.raises(DataError, match=f"{size[0]}×{size[1]}") as caught:
            Frost(3)(images(photo(*size), 1), Streams(0, "frost/3", ["a"]))
        assert "imagecorruptions" in caught.value.remedy
    assert Frost(3, "imagecorruptions")(images(photo(316, 300), 1), Streams(0, "frost/3", ["a"])).shape[2:] == (
        316,
        300,
    )


def test_missing_or_other_textures_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="textures") as caught:
        read_texture(TEXTURES[0])
    assert 'pip install "aresbench[frost]"' in caught.value.remedy

    class Spec:
        submodule_search_locations = [str(tmp_path)]

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Spec())
    with pytest.raises(DataError, match="cannot be read"):
        read_texture(TEXTURES[0])
    (tmp_path / "frost").mkdir()
    Image.new("RGB", (900, 600)).save(tmp_path / "frost" / "frost1.png")
    with pytest.raises(DataError, match="not the texture of the benchmark"):
        read_texture(TEXTURES[0])
