"""JPEG on tensors against Pillow (libjpeg-turbo): every level equal, for every size, quality and kind of picture."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from aresbench.ops.jpeg import through_jpeg
from aresbench.ops.jpeg_tensors import through_jpeg_tensors

# All rests of a division by 16, one and two columns of chroma, and one pixel.
SIZES = [
    (224, 224),
    (223, 217),
    (64, 64),
    (32, 33),
    (48, 47),
    (49, 50),
    (17, 20),
    (8, 8),
    (5, 3),
    (2, 4),
    (9, 1),
    (1, 1),
]


@cache
def photograph() -> np.ndarray:
    return load_sample_image("china.jpg")


def pictures(height: int, width: int) -> Tensor:
    """A photograph, uniform noise, the photograph with noise, and pure colours side by side: uint8 [4,3,H,W]."""
    rng = np.random.default_rng(height * 1000 + width)
    photo = photograph()[:height, :width]
    noise = rng.integers(0, 256, photo.shape, dtype=np.uint8)
    noisy = np.clip(photo + rng.normal(0, 40, photo.shape), 0, 255).astype(np.uint8)
    pure = rng.integers(0, 2, photo.shape, dtype=np.uint8) * 255
    return torch.from_numpy(np.stack((photo, noise, noisy, pure))).permute(0, 3, 1, 2).contiguous()


def pillow(image: Tensor, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality, subsampling=2, optimize=True)
    return np.array(Image.open(file)).transpose(2, 0, 1)


@pytest.mark.parametrize("quality", [85, 25, 18, 15, 10, 7, 100, 50, 49, 1])
@pytest.mark.parametrize("size", SIZES)
def test_tensors_give_the_levels_of_pillow(size: tuple[int, int], quality: int) -> None:
    x = pictures(*size)
    for image, result in zip(x, through_jpeg_tensors(x, quality), strict=True):
        assert result.dtype == torch.uint8
        assert np.array_equal(result.numpy(), pillow(image, quality))


@pytest.mark.parametrize("size", [(65, 90), (1, 5)])
def test_the_cpu_goes_through_pillow(size: tuple[int, int]) -> None:
    x = pictures(*size)
    before = x.clone()
    for image, result in zip(x, through_jpeg(x, 30), strict=True):
        assert np.array_equal(result.numpy(), pillow(image, 30))
    assert torch.equal(x, before)
    through_jpeg_tensors(x, 30)
    assert torch.equal(x, before)


def test_an_empty_batch_stays_empty() -> None:
    for through in (through_jpeg, through_jpeg_tensors):
        assert through(torch.zeros(0, 3, 9, 9, dtype=torch.uint8), 85).shape == (0, 3, 9, 9)


def test_a_batch_is_the_same_as_its_images_one_by_one() -> None:
    x = pictures(40, 56)
    whole = through_jpeg_tensors(x, 60)
    assert torch.equal(torch.cat([through_jpeg_tensors(image[None], 60) for image in x]), whole)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("size", SIZES)
def test_a_gpu_gives_the_levels_of_pillow(size: tuple[int, int]) -> None:
    x = pictures(*size)
    for quality in (85, 25, 7):
        result = through_jpeg(x.cuda(), quality)
        assert result.is_cuda and torch.equal(result.cpu(), through_jpeg(x, quality))
