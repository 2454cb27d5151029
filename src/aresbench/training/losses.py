"""What training lowers: functions of logits and labels (or of gradients), one value per image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy to soft labels, [N]: −Σ_k labels_k · log p_k.

    Args:
        logits: [N, K].
        labels: [N, K], each row sums to 1.
    """
    return -(labels * F.log_softmax(logits, dim=1)).sum(1)


def kl_divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ_k p_k · (log p_k − log q_k) of each image, [N]; gradients go to both.

    Args:
        reference: [N, K], logits of p.
        logits: [N, K], logits of q.
    """
    log_p, log_q = F.log_softmax(reference, dim=1), F.log_softmax(logits, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def trades(clean: Tensor, attacked: Tensor, labels: Tensor, beta: float) -> Tensor:
    """CE(p, labels) + β · KL(p ‖ p′), [N] (Zhang et al., 2019).

    Args:
        clean, attacked: [N, K], logits of p and p′.
        labels: [N, K].
        beta: weight of robustness against accuracy.
    """
    return soft_cross_entropy(clean, labels) + beta * kl_divergence(clean, attacked)


def boosted_cross_entropy(logits: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    """CE(p, labels) − log(1.0001 − max_{k≠y} p_k), [N]: also pushes the strongest wrong class down (Wang et al., 2020).

    The 1.0001 of the authors' code keeps the logarithm finite where a wrong class is certain.

    Args:
        logits: [N, K].
        y: [N], main labels.
        labels: [N, K].
    """
    wrong = logits.softmax(1).scatter(1, y[:, None], 0.0).amax(1)
    return soft_cross_entropy(logits, labels) - torch.log(1.0001 - wrong)


def mart(clean: Tensor, attacked: Tensor, y: Tensor, labels: Tensor, beta: float) -> Tensor:
    """BCE(p′, y) + β · KL(p ‖ p′) · (1 − p_y), [N] (Wang et al., 2020); BCE is ``boosted_cross_entropy``.

    Args:
        clean, attacked: [N, K], logits of p and p′.
        y: [N], main labels.
        labels: [N, K].
        beta: weight of the second term, which counts most where the clean image is not learned yet.
    """
    unsure = 1 - clean.softmax(1).gather(1, y[:, None]).squeeze(1)
    return boosted_cross_entropy(attacked, y, labels) + beta * kl_divergence(clean, attacked) * unsure


def misalignment(first: Tensor, second: Tensor) -> Tensor:
    """1 − cos of the angle between two gradients of each image, [N] in [0, 2]; 0 where one of them is all zero.

    Args:
        first, second: [N, …]; both may have a graph, a zero gradient gets no slope (and no NaN) from here.
    """
    a, b = _direction(first.flatten(1)), _direction(second.flatten(1))
    defined = (a.detach() != 0).any(1) & (b.detach() != 0).any(1)
    return torch.where(defined, 1 - (a * b).sum(1), 0.0)


def _direction(v: Tensor) -> Tensor:
    """Each row at length 1; rows of zeros stay. Scaled first: squares of tiny float32 gradients would vanish."""
    peak = v.detach().abs().amax(1, keepdim=True)
    v = v / torch.where(peak > 0, peak, 1.0)
    square = v.square().sum(1, keepdim=True)
    return v * torch.where(square > 0, square, 1.0).rsqrt()
