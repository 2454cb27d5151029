"""Pieces of photographs that every installation has: pictures from outside the task, the same for everybody.

scikit-learn, which this package needs for its digits, carries two photographs (a temple and a flower, 640 × 427).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ZOOMS = (1, 2, 4)  # a piece is about the whole photograph, half of it, or a quarter (never enlarged for it)


@cache
def photographs() -> Tensor:
    """[2, 3, 427, 640] float32 in [0, 1]."""
    from sklearn.datasets import load_sample_images

    pictures = np.stack(load_sample_images().images)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).to(torch.float32).div_(255).contiguous()


@cache
def _sheets(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Both photographs in a few sizes, from each of which pieces of ``height`` × ``width`` pixels can be cut.

    Returns:
        all their pixels [3, P], and for each of them [S, 3] where it begins, its height and its width.
    """
    photos = photographs()
    least = max(height / photos.shape[2], width / photos.shape[3])
    pixels, places, begin = [], [], 0
    for factor in sorted({min(least * zoom, max(1.0, least)) for zoom in ZOOMS}):
        size = max(height, round(photos.shape[2] * factor)), max(width, round(photos.shape[3] * factor))
        for sheet in F.interpolate(photos, size=size, mode="bilinear", antialias=True).clamp(0, 1):
            pixels.append(sheet.flatten(1))
            places.append((begin, *size))
            begin += size[0] * size[1]
    return torch.cat(pixels, dim=1).to(device), torch.tensor(places, device=device)


def pieces(numbers: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """A piece of a photograph for each row, [M, C, H, W] in [0, 1]; grey where ``shape`` has not three channels.

    Args:
        numbers: [M, 3] in [0, 1): which photograph in which size, how far down and how far right.
        shape: (C, H, W) of the result.
    """
    channels, height, width = shape
    pixels, places = _sheets(height, width, numbers.device)
    begin, rows, columns = places[(numbers[:, 0] * len(places)).long()].unbind(1)
    top = (numbers[:, 1] * (rows - height + 1)).long()
    left = (numbers[:, 2] * (columns - width + 1)).long()
    down = torch.arange(height, device=numbers.device)[:, None]
    right = torch.arange(width, device=numbers.device)
    corner = begin + top * columns + left
    index = corner[:, None, None] + columns[:, None, None] * down + right
    found = pixels[:, index].transpose(0, 1)
    return found if channels == 3 else found.mean(1, keepdim=True).expand(-1, channels, -1, -1)
