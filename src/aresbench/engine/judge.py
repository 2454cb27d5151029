"""What counts as right and as broken: one definition for every verdict.

An answer that is NaN or infinite is neither a right one nor proof of a break.
"""

from __future__ import annotations

import torch
from torch import Tensor


def right(logits: Tensor, y: Tensor) -> Tensor:
    """[N] is the class with the largest of ``logits`` [N, K] the label ``y`` [N]?"""
    return (logits.argmax(1) == y) & torch.isfinite(logits).all(1)


def fooled(logits: Tensor, goal: Tensor, targeted: bool) -> Tensor:
    """[N] has an attack reached its end: any class but ``goal`` [N] (the labels), or ``goal`` itself where targeted?"""
    return ((logits.argmax(1) == goal) == targeted) & torch.isfinite(logits).all(1)
