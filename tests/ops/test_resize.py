"""Resize and crop are torchvision's and timm's, to the last bit."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as tv

from aresbench.core.errors import DataError
from aresbench.core.preprocessing import INTERPOLATIONS, Preprocessing
from aresbench.data.load import load_dataset
from aresbench.ops.resize import apply, resize_and_crop, to_rgb

# (width, height): landscape, portrait, square, tiny, one that the crop does not fit into, odd sides
PICTURES = [(97, 64), (51, 130), (64, 64), (5, 9), (40, 200), (301, 97)]


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", PICTURES)
def test_equals_torchvision(size: tuple[int, int], interpolation: str) -> None:
    image = picture(*size)
    for crop, resize in itertools.product([(32, 32), (33, 31), (57, 57), (40, 90)], [32, 37, 64]):
        reference = tv.Compose(
            [tv.Resize(resize, InterpolationMode(interpolation)), tv.CenterCrop(crop), tv.PILToTensor()]
        )
        ours = apply(image, Preprocessing(crop, resize, interpolation))
        assert ours.dtype == torch.uint8 and ours.shape == (3, *crop)
        assert torch.equal(ours, reference(image)), (crop, resize)


@pytest.mark.parametrize(("input_size", "crop_pct"), [(224, 0.875), (240, 0.882), (260, 0.89), (288, 1.0)])
def test_equals_timm_on_a_photograph(input_size: int, crop_pct: float) -> None:
    transform = create_transform(
        input_size, interpolation="bicubic", crop_pct=crop_pct, mean=(0, 0, 0), std=(1, 1, 1), is_training=False
    )
    image = load_dataset("samples").picture(3)
    ours = apply(image, Preprocessing((input_size, input_size), int(input_size / crop_pct))).float() / 255
    assert torch.equal(ours, transform(image))


def test_squash_resizes_both_sides() -> None:
    image = picture(97, 64)
    expected = tv.functional.resize(image, [31, 45], InterpolationMode.BILINEAR)
    ours = resize_and_crop(image, Preprocessing((31, 45), None, "bilinear", squash=True))
    assert np.array_equal(np.asarray(ours), np.asarray(expected))


@pytest.mark.parametrize("resize", [40, 57])
def test_squash_to_a_square_before_the_crop(resize: int) -> None:
    image = picture(97, 64)
    square = tv.functional.resize(image, [resize, resize], InterpolationMode.BICUBIC)
    ours = resize_and_crop(image, Preprocessing((31, 45), resize, squash=True))
    assert np.array_equal(np.asarray(ours), np.asarray(tv.functional.center_crop(square, [31, 45])))


def test_without_resize_the_size_must_be_right() -> None:
    image = picture(40, 30)
    assert np.array_equal(apply(image, Preprocessing((30, 40))).permute(1, 2, 0).numpy(), np.asarray(image))
    with pytest.raises(DataError, match="a picture is 30×40, the model takes 40×30"):
        apply(image, Preprocessing((40, 30)))


def test_without_preprocessing_the_size_stays() -> None:
    assert apply(picture(11, 7), None).shape == (3, 7, 11)


def test_modes_as_torchvision_reads_them() -> None:
    rgb = picture(20, 10)
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20)))
    palette = rgb.convert("P")
    for image in (rgb.convert("L"), palette, alpha, rgb.convert("CMYK"), rgb.convert("1"), rgb.convert("LA")):
        assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(image.convert("RGB"))), image.mode
    assert np.array_equal(np.asarray(to_rgb(alpha)), np.asarray(rgb)), "transparency is dropped, not composited"


def test_a_transparent_palette_is_read_without_a_warning() -> None:
    rgb = picture(20, 10)
    image = rgb.convert("P")
    image.info["transparency"] = bytes(range(256))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = np.asarray(to_rgb(image))
    assert np.array_equal(ours, np.asarray(rgb.convert("P").convert("RGB")))


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_16_bit_grey_is_scaled_not_clipped(mode: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]])
    image = Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.int32))
    assert image.mode == mode
    grey = np.asarray(to_rgb(image))
    assert grey.shape == (1, 6, 3)
    assert grey[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]  # v / 257, rounded


def test_pixels_without_a_range_are_refused() -> None:
    with pytest.raises(DataError, match="floating-point"):
        to_rgb(Image.fromarray(np.ones((2, 2), dtype=np.float32)))
    with pytest.raises(DataError, match="from -1 to 5"):
        to_rgb(Image.fromarray(np.array([[-1, 5]], dtype=np.int32)))


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    image = picture(20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees"
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        assert np.array_equal(np.asarray(to_rgb(opened)), np.asarray(image))
