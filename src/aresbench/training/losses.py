"""What training lowers: functions of logits and labels, one value per image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy to soft labels, [N].

    Args:
        logits: [N, K].
        labels: [N, K], each row sums to 1.
    """
    return -(labels * F.log_softmax(logits, dim=1)).sum(1)
