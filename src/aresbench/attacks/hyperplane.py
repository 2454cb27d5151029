"""The nearest point of a plane inside the box [0, 1], exactly, under L∞, L2 and L1.

A linear model of a decision boundary is a plane. The nearest point of the plane that is still an image is
found in one of two ways. Under L∞ and L2 every value moves by the same amount, or in proportion to its
slope, until it meets the box; how far is a root of a rising, concave, piecewise linear function, and
Newton's method from the left reaches it exactly after a few rounds (4 to 8 where values lie anywhere in the
box), without sorting. Under L1 the values of steepest slope move first, each as far as the box lets it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aresbench.attacks import geometry
from aresbench.core.errors import SpecError

ROUNDS = 40  # of Newton's method on a GPU, where asking whether all are there would wait for it


def towards(x: Tensor, slope: Tensor, rise: Tensor, norm: str) -> Tensor:
    """The smallest change of each image that raises ⟨slope, x⟩ by ``rise`` and stays in the box.

    Args:
        x: [N, C, H, W] in [0, 1].
        slope: [N, C, H, W], finite.
        rise: [N]; negative to fall, NaN for nothing.
        norm: by which the change is smallest: ``linf``, ``l2`` or ``l1``.

    Returns:
        [N, C, H, W]. Where no point of the box lies so high, the change leads to the highest corner; values
        without a slope never change.
    """
    # Slopes are used relative to the steepest, so that the squares of tiny gradients do not vanish.
    peak = geometry.size(slope, "linf")
    side = torch.where(rise < 0, -1.0, 1.0).to(slope.dtype)
    way = slope * geometry.per_image(torch.where(peak > 0, side / peak, 0.0).clamp(-1e38, 1e38).to(slope.dtype), slope)
    need = torch.where(peak > 0, (rise.abs().double() / peak).nan_to_num(nan=0.0, posinf=torch.inf), 0.0)
    steep = way.abs()
    room = torch.where(way > 0, 1 - x, torch.where(way < 0, x, 0.0)).clamp_min_(0)
    if norm == "linf":
        change = torch.minimum(geometry.per_image(_level(steep, room, steep * room, need).to(x.dtype), x), room)
    elif norm == "l2":
        bound = room / steep.clamp_min(1e-30)
        level = geometry.per_image(_level(steep * steep, bound, steep * room, need).to(x.dtype), x)
        change = torch.minimum(level * steep, room)
    elif norm == "l1":
        change = _steepest_first(steep, room, need)
    else:
        raise SpecError(f"no nearest point of a plane for norm {norm!r}", "there is one for linf, l2 and l1")
    return change.copysign_(way)


def _level(weight: Tensor, bound: Tensor, most: Tensor, need: Tensor) -> Tensor:
    """The level λ, [N] float64, at which the sum of weight · min(λ, bound) is ``need``; 1e38 where it never is.

    Args:
        weight, bound: [N, C, H, W], not negative.
        most: weight · bound.
        need: [N] float64.
    """
    values = tuple(range(1, weight.ndim))
    total = most.sum(values, dtype=torch.float64)
    level = torch.zeros_like(need)
    for _ in range(ROUNDS if weight.is_cuda else weight[0].numel()):
        free = bound > geometry.per_image(level.to(bound.dtype), bound)
        stuck = total - torch.where(free, most, 0.0).sum(values, dtype=torch.float64)
        slope = torch.where(free, weight, 0.0).sum(values, dtype=torch.float64)
        higher = torch.where((need < total) & (slope > 0), (need - stuck) / slope, level)
        risen = higher > level
        level = torch.maximum(level, higher)
        if not risen.is_cuda and not risen.any():
            break
    return torch.where(need < total, level, 1e38)


def _steepest_first(steep: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """How far each value moves when the steepest moves first, as far as it can or until ``need`` is met."""
    order = steep.flatten(1).argsort(dim=1, descending=True)
    room_in_order = room.flatten(1).gather(1, order)
    gain = steep.flatten(1).gather(1, order).mul_(room_in_order).double()
    open_still = need[:, None] - (gain.cumsum(1) - gain)
    share = torch.where(gain > 0, open_still / gain, 0.0).clamp_(0, 1)
    moved = room_in_order.mul_(share.to(room.dtype))
    return torch.zeros_like(moved).scatter_(1, order, moved).view_as(room)
