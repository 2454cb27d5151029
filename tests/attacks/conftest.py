"""Linear classifiers, whose nearest and worst points are known exactly, and a way to run attacks on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aresbench.attacks.base import Attack
from aresbench.engine.driver import Outcome, run_attack
from aresbench.engine.prepare import prepared


class Linear(nn.Module):
    """Logits W·x + b."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


@pytest.fixture(scope="session")
def linear() -> Callable[..., tuple[Linear, Tensor, Tensor]]:
    """(model, images, labels it gets right); ``low``/``high`` bound the pixels, ``edges`` puts a third at 0 or 1."""

    def make(
        classes: int = 2,
        n: int = 32,
        shape: tuple[int, int, int] = (3, 8, 6),
        low: float = 0.0,
        high: float = 1.0,
        edges: bool = False,
        seed: int = 0,
    ) -> tuple[Linear, Tensor, Tensor]:
        draw = torch.Generator().manual_seed(seed)
        size = shape[0] * shape[1] * shape[2]
        x = low + (high - low) * torch.rand(n, *shape, generator=draw)
        if edges:
            place = torch.rand(x.shape, generator=draw)
            x = torch.where(place < 1 / 6, 0.0, torch.where(place > 5 / 6, 1.0, x))
        weight = torch.randn(classes, size, generator=draw) / size**0.5
        model = Linear(weight, -(weight @ torch.full((size,), 0.5)))
        with torch.no_grad():
            y = model(x).argmax(1)
        return model, x, y

    return make


@pytest.fixture(scope="session")
def run() -> Callable[..., Outcome]:
    """Drive an attack through the engine."""

    def drive(model: nn.Module, attack: Attack, x: Tensor, y: Tensor, norm: str, eps: Any, **options: Any) -> Outcome:
        with prepared(model, x) as ready:
            return run_attack(ready, attack, x, y, norm=norm, eps=eps, **options)

    return drive
