"""Images to corrupt."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor


@pytest.fixture(scope="session")
def photos() -> Tensor:
    """Five 40 × 36 pieces of a real photograph: float32 [5,3,40,36] in [0,1]."""
    pixels = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    pieces = [pixels[:, 60 * i : 60 * i + 120 : 3, 90 * i : 90 * i + 108 : 3] for i in range(5)]
    return torch.stack(pieces).float() / 255


@pytest.fixture(scope="session")
def photo() -> Callable[[int, int], np.ndarray]:
    """A real photograph of any height and width, with flat patches and a ramp of greys: uint8 [H,W,3]."""

    @cache
    def make(height: int, width: int) -> np.ndarray:
        whole = Image.fromarray(load_sample_image("flower.jpg"))
        pixels = np.array(whole.resize((width, height), Image.Resampling.BICUBIC))
        k = max(1, height // 4)
        for place, colour in enumerate((255, 0, (255, 0, 0), 77)):
            pixels[place * k : (place + 1) * k, :k] = colour
        pixels[:k, k : 2 * k] = np.arange(k, dtype=np.uint8)[:, None, None] * (255 // k)
        pixels.flags.writeable = False
        return pixels

    return make
