"""Small modules and files that the tests of this room share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from aresbench.models.architectures.small_cnn import SmallCNN

FACTORY = """
from torch import nn
from aresbench.models.architectures.small_cnn import SmallCNN

def make():
    return SmallCNN(10)
"""


@pytest.fixture
def small() -> nn.Module:
    """A SmallCNN with fixed weights and batch-norm statistics that are not the default, in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        module = SmallCNN(10)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
    return module


@pytest.fixture
def images() -> torch.Tensor:
    """[4, 3, 32, 32] in [0, 1]."""
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str | bytes], Path]:
    """Write a file into an empty folder, which is also the current one."""
    monkeypatch.chdir(tmp_path)

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def factory(write: Callable[[str, str | bytes], Path]) -> Path:
    """``mine.py`` with ``make()``, a SmallCNN of ten classes."""
    return write("mine.py", FACTORY)
