"""What attacks raise: functions of (logits [N, K], labels [N]) that return one value per image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aresbench.attacks.base import Loss, Problem
from aresbench.core.errors import SpecError


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each image, [N]."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Logit of ``y`` minus the best other one, [N]: positive while ``y`` is predicted."""
    own = y.unsqueeze(1)
    return logits.gather(1, own).squeeze(1) - logits.scatter(1, own, -torch.inf).amax(1)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, [N]: minus the margin over the spread of the top three (Croce and Hein, 2020).

    Unlike cross-entropy it does not change when all logits are scaled, so large logits cannot hide the gradient.

    Raises:
        SpecError: fewer than 3 classes, where the ratio is not defined.
    """
    if logits.shape[1] < 3:
        raise SpecError(f"the DLR loss needs at least 3 classes, the model has {logits.shape[1]}")
    top = logits.topk(3, dim=1).values
    return -margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Logit of ``target`` minus that of ``y``, over the first minus the mean of the third and fourth, [N].

    The targeted DLR of Croce and Hein (2020); with fewer than 4 classes the difference alone.
    """
    lead = (logits.gather(1, target.unsqueeze(1)) - logits.gather(1, y.unsqueeze(1))).squeeze(1)
    if logits.shape[1] < 4:
        return lead
    top = logits.topk(4, dim=1).values
    return lead / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def probability_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Best other probability minus that of ``y``, [N] in [-1, 1] (Xie et al., 2024. arXiv:2411.15210).

    Softmax and margin run in float64: at a confidence of 1 - 1e-8 the gradient is small, in float32 it would be wrong.
    """
    return -margin(logits.double().softmax(1), y).to(logits.dtype)


def _minus_margin(logits: Tensor, y: Tensor) -> Tensor:
    return -margin(logits, y)


def _ratio_or_margin(logits: Tensor, y: Tensor) -> Tensor:
    return dlr(logits, y) if logits.shape[1] >= 3 else -margin(logits, y)


LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "margin": _minus_margin,
    "dlr": _ratio_or_margin,
    "pm": probability_margin,
}
"""By name, what rises as an image leaves ``y``; with fewer than 3 classes ``dlr`` is the margin."""


def named(name: str, problem: Problem) -> Loss | None:
    """The loss an attack calls by name; ``None`` for ``ce``: the problem's own, which the goal may have replaced.

    Towards a target every other name means the target's lead in logits: the probability of a target is near
    0 at first and gives no gradient, and the DLR also rises when the leading class draws away from the third.
    """
    if name == "ce":
        return None
    return LOSSES[name] if problem.target is None else goal_margin(problem)


def goal_margin(problem: Problem, owner: Tensor | None = None) -> Loss:
    """The loss that is positive where the problem's goal is reached: a wrong class leads, or the target does.

    Args:
        owner: [M] int64, the image each row of logits belongs to; default: row i is image i.
    """
    target = problem.target
    if target is None:
        return lambda logits, y: -margin(logits, y)
    aimed = target if owner is None else target[owner]
    return lambda logits, y: margin(logits, aimed)


def goal_logit(problem: Problem, owner: Tensor | None = None) -> Loss:
    """The target's logit, or minus the label's: a loss that never goes flat (Zhao, Liu and Larson, 2021).

    Args:
        owner: [M] int64, the image each row of logits belongs to; default: row i is image i.
    """
    target = problem.target
    if target is None:
        return lambda logits, y: -logits.gather(1, y.unsqueeze(1)).squeeze(1)
    aimed = (target if owner is None else target[owner]).unsqueeze(1)
    return lambda logits, y: logits.gather(1, aimed).squeeze(1)
