"""Smoothing by a Gaussian kernel, differentiable, each channel by itself."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


@cache
def gaussian_weights(size: int, nsig: float) -> tuple[float, ...]:
    """The ``size`` weights of a Gaussian cut off at ``nsig`` standard deviations on either side; they add up to 1."""
    places = torch.linspace(-nsig, nsig, size, dtype=torch.float64) if size > 1 else torch.zeros(1, dtype=torch.float64)
    weights = torch.exp(-places.square() / 2)
    return tuple((weights / weights.sum()).tolist())


def smoothed(x: Tensor, size: int, nsig: float) -> Tensor:
    """Images [N, C, H, W] convolved with a ``size`` × ``size`` Gaussian; beyond the border lie zeros."""
    weights = torch.tensor(gaussian_weights(size, nsig), dtype=x.dtype, device=x.device)
    planes = x.reshape(-1, 1, *x.shape[2:])
    planes = F.conv2d(planes, weights.reshape(1, 1, size, 1), padding=(size // 2, 0))
    planes = F.conv2d(planes, weights.reshape(1, 1, 1, size), padding=(0, size // 2))
    return planes.reshape(x.shape)
