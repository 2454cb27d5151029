"""Images to corrupt."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor


@pytest.fixture(scope="session")
def photos() -> Tensor:
    """Five 40 × 36 pieces of a real photograph: float32 [5,3,40,36] in [0,1]."""
    pixels = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    pieces = [pixels[:, 60 * i : 60 * i + 120 : 3, 90 * i : 90 * i + 108 : 3] for i in range(5)]
    return torch.stack(pieces).float() / 255
