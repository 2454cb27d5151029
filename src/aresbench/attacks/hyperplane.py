"""The nearest point of a plane inside the box [0, 1], exactly, under L∞, L2 and L1.

A linear model of a decision boundary is a plane. The nearest point of the plane that is still an image is found
without sorting, which would cost more than all the rest. Under L∞ and L2 every value moves by the same amount,
or in proportion to its slope, until it meets the box; how far is a root of a rising, concave, piecewise linear
function, and Newton's method from the left reaches it exactly after a few rounds (4 to 8 where values lie
anywhere in the box). Under L1 the values of steepest slope move first, each as far as the box lets it; the slope
of the last to move is found by bisection over all numbers there are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aresbench.attacks import geometry
from aresbench.core.errors import SpecError

ROUNDS = 40  # of Newton's method on a GPU, where asking whether all are there would wait for it
BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


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
    # Comparisons written into floats, and sums of products, are many times faster than torch.where on a CPU.
    room = torch.gt(way, 0, out=torch.empty_like(way)).sub_(x).abs_()
    room.mul_(torch.ne(way, 0, out=torch.empty_like(way)))
    if norm == "linf":
        level = geometry.per_image(_level(steep, room, steep * room, need).to(x.dtype), x)
        change = torch.minimum(level, room)
    elif norm == "l2":
        level = geometry.per_image(
            _level(steep * steep, room / steep.clamp_min(1e-30), steep * room, need).to(x.dtype), x
        )
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
    free, product = torch.empty_like(bound), torch.empty_like(bound)
    level, total = torch.zeros_like(need), _sum(most, exact=True)

    def root(level: Tensor, exact: bool = False) -> Tensor:
        """Where the function would meet ``need`` if no more values met their bounds than at ``level``."""
        torch.gt(bound, geometry.per_image(level.to(bound.dtype), bound), out=free)
        stuck = total - _sum(torch.mul(most, free, out=product), exact)
        slope = _sum(torch.mul(weight, free, out=product), exact)
        return torch.where((need < total) & (slope > 0), (need - stuck) / slope, level)

    for _ in range(ROUNDS if weight.is_cuda else weight[0].numel()):
        higher = root(level)
        risen = higher > level
        level = torch.maximum(level, higher)
        if not risen.is_cuda and not risen.any():
            break
    return torch.where(need < total, root(level, exact=True), 1e38)


def _steepest_first(steep: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """How far each value moves when the steepest moves first, as far as it can or until ``need`` is met."""
    most, kind = steep * room, BITS[steep.dtype]
    moves, product = torch.empty_like(steep), torch.empty_like(steep)

    def won(compare: Callable[..., Tensor], least: Tensor) -> Tensor:
        """How much all values whose slope compares so with ``least`` can win together."""
        compare(steep, geometry.per_image(least, steep), out=moves)
        return _sum(torch.mul(most, moves, out=product), exact=True)

    # The bits of positive floats, read as whole numbers, are in the order of the floats.
    low = torch.zeros(len(need), dtype=kind, device=need.device)
    high = torch.full_like(need, 2.0).to(steep.dtype).view(kind)
    for _ in range(torch.iinfo(kind).bits - 1):
        middle = low + (high - low) // 2
        enough = won(torch.ge, middle.view(steep.dtype)) >= need
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    last = low.view(steep.dtype)
    left, ties = need - won(torch.gt, last), won(torch.eq, last)
    share = torch.where(ties > 0, left / ties, 0.0).clamp(0, 1).to(steep.dtype)  # of equal slopes all move alike
    moves.mul_(geometry.per_image(share, moves)).add_(torch.gt(steep, geometry.per_image(last, steep), out=product))
    return moves.mul_(room)


def _sum(values: Tensor, exact: bool = False) -> Tensor:
    """[N] float64, of each image; summed in its own precision, which is faster, or in float64."""
    return values.sum(tuple(range(1, values.ndim)), dtype=torch.float64 if exact else None).double()
