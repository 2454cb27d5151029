"""A stand-in for the generator that the attack `cda` must be given."""

from __future__ import annotations

from torch import Tensor, nn


class Negative(nn.Module):
    """Every picture's negative."""

    def forward(self, x: Tensor) -> Tensor:
        return 1 - x
