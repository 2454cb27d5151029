"""Real digits, the committed models, and small models whose truth is known in closed form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from plugins.relatives import build
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


@pytest.fixture(scope="session")
def relatives_of_imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet and its relatives in part, each in the folder of its name; tests leave them as they are."""
    folder = tmp_path_factory.mktemp("data")
    build(folder, corrupted=3)
    return folder


@pytest.fixture
def world(relatives_of_imagenet: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """They are what ARESBENCH_DATA names."""
    monkeypatch.setenv("ARESBENCH_DATA", str(relatives_of_imagenet))
    return relatives_of_imagenet
