"""A class map applied to logits: outputs chosen, put in order, and merged where several stand for one class."""

from __future__ import annotations

import torch
from torch import Tensor

from aresbench.core.classes import ClassMap


class Reduction:
    """Logits [N, outputs] → logits [N, positions] of a class map, differentiable, on the logits' own device.

    A position with several outputs takes the largest; one without any lies below every other, by 1.

    Args:
        class_map: which outputs stand at which position.
    """

    def __init__(self, class_map: ClassMap) -> None:
        widest = max(1, *map(len, class_map.outputs))
        rows = [(group + group[:1] * widest)[:widest] if group else (0,) * widest for group in class_map.outputs]
        self._index = torch.tensor(rows)
        self._empty = torch.tensor([not group for group in class_map.outputs])
        self._some_empty = bool(self._empty.any())

    def __len__(self) -> int:
        return len(self._index)

    def __call__(self, logits: Tensor) -> Tensor:
        """See the class."""
        if self._index.device != logits.device:
            self._index, self._empty = self._index.to(logits.device), self._empty.to(logits.device)
        chosen = logits[:, self._index]
        reduced = chosen.amax(2) if chosen.shape[2] > 1 else chosen[:, :, 0]
        if self._some_empty:
            reduced = torch.where(self._empty, logits.amin(1, keepdim=True) - 1, reduced)
        return reduced
