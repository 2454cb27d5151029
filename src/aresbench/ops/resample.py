"""Bilinear resizing in which every image has a size and place of its own: one small matrix per image and side.

An image resized along both sides is A · X · Bᵀ. Matrices of one batch need not agree, nothing waits for
the device, and the gradient passes back exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bilinear(places: Tensor, length: int, spread: Tensor | float = 1.0) -> Tensor:
    """Weights [..., M, length] that read a line of pixels at ``places`` [..., M]; the edge pixels reach outwards.

    Args:
        places: where to read, in pixels: 0 is the middle of the first, ``length`` - 1 that of the last.
        length: pixels of the line.
        spread: half-width of the reading triangle in pixels (broadcast to ``places``): 1 interpolates;
            the factor of a reduction averages the pixels that it merges.
    """
    pixels = torch.arange(length, device=places.device, dtype=places.dtype)
    gap = (places.clamp(0, length - 1).unsqueeze(-1) - pixels).abs()
    reach = torch.as_tensor(spread, device=places.device, dtype=places.dtype)
    weights = (1 - gap / (reach.unsqueeze(-1) if reach.ndim else reach)).clamp_min(0)
    return weights / weights.sum(-1, keepdim=True)


def apply_sides(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Each image of ``x`` [N, C, H, W] read through its ``rows`` [N, P, H] and ``columns`` [N, Q, W]: [N, C, P, Q]."""
    return rows.unsqueeze(1) @ x @ columns.unsqueeze(1).transpose(-1, -2)
