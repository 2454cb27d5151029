"""Real digits, the committed models, and small models whose truth is known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.models.load import load_model


@pytest.fixture(scope="session")
def digits():
    """(images [100, 3, 32, 32], labels, ids) of the first 100 held-out digits."""
    data = load_dataset("digits")[:100]
    model = load_model("samples:digits-plain")
    x, _, _ = load_images(data, range(100), model.preprocessing)
    return x, torch.tensor(data.labels), list(data.ids)


@pytest.fixture(scope="session")
def plain():
    return load_model("samples:digits-plain").eval()


@pytest.fixture(scope="session")
def robust():
    return load_model("samples:digits-robust").eval()


class Linear(nn.Module):
    """f(x) = w·x + b as two logits (f/2, −f/2)."""

    def __init__(self, weight: torch.Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = (x * self.weight).sum((1, 2, 3)) + self.bias
        return torch.stack((f / 2, -f / 2), dim=1)


@pytest.fixture
def linear():
    return Linear
