"""Where norms become arithmetic: distances, projections, steps and random starts, all per image.

Every function takes images [N, C, H, W] and per-image sizes [N] and works without waiting for the
device, in the memory format it is given. A name that ends in ``_`` changes its first argument.

Under L∞ and L2 the ball and the box [0, 1] are met one after the other: first the ball, then the box.
Because the clean image lies in the box, clamping moves every value towards it, so the result is in both;
under L2 it is not always the nearest such point (it is under L∞). Under L1, where the box cuts off most
of the ball, steps and projections take both at once (Croce and Hein, "Mind the box", ICML 2021. arXiv:2103.01208).
"""

from __future__ import annotations

import torch
from torch import Tensor

from aresbench.core.errors import SpecError
from aresbench.ops.random import Streams

DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}
ROUNDS = 60  # of the search for a threshold, half of which halve its bracket; about 20 are the rule


def allowance(eps: Tensor) -> Tensor:
    """The largest measured distance that counts as inside ``eps``: room for float32 rounding only."""
    return eps * (1 + 1e-6) + 1e-7


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Values [N] shaped so that they apply to the whole of each image of ``like``."""
    return values.reshape(-1, *([1] * (like.ndim - 1)))


def size(v: Tensor, norm: str) -> Tensor:
    """The norm of each perturbation.

    Args:
        v: [N, C, H, W].
        norm: ``linf``, ``l2``, ``l1`` or ``l0``.

    Returns:
        [N] float32; sums run in float64, so that a million values add no error of their own.
    """
    if norm == "linf":
        low, high = extent(v)  # many times faster than vector_norm with ord=inf
        return torch.maximum(-low, high).float()
    v = flat(v)
    if norm == "l2":
        return torch.linalg.vector_norm(v, dim=1, dtype=torch.float64).float()
    if norm == "l1":
        return v.abs().sum(1, dtype=torch.float64).float()
    if norm == "l0":
        return (v != 0).sum(1).float()
    raise SpecError(f"unknown norm {norm!r}")


def channel_size(v: Tensor, norm: str) -> Tensor:
    """The ``l2`` or ``l1`` norm of each channel of each perturbation, [N, C, 1, 1]."""
    order = {"l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm(v, ord=order, dim=(2, 3), keepdim=True)


def refilled(parts: Tensor, whole: Tensor, eps: Tensor, norm: str) -> Tensor:
    """The sizes of parts of a perturbation, [N, C, 1, 1], after each got an equal share of what ``eps`` has left.

    Args:
        whole: [N], the size of the whole perturbation.
        norm: ``l2`` or ``l1``.
    """
    whole, eps = per_image(whole, parts), per_image(eps, parts)
    if norm == "l1":
        return parts + (eps - whole).clamp_min(0) / parts.shape[1]
    return (parts.square() + (eps.square() - whole.square()).clamp_min(0) / parts.shape[1]).sqrt()


def flat(v: Tensor) -> Tensor:
    """Each image as one row, [N, C·H·W]: a view in either memory format; the order inside a row differs."""
    if v.ndim == 4 and not v.is_contiguous() and v.is_contiguous(memory_format=torch.channels_last):
        v = v.permute(0, 2, 3, 1)
    return v.flatten(1)


def extent(v: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of each image, [N] each; NaN where an image holds NaN."""
    rows = flat(v)
    return rows.amin(1), rows.amax(1)  # two vectorised passes; torch.aminmax makes one that is 20 times slower


def distance(x: Tensor, x0: Tensor, norm: str) -> Tensor:
    """How far each image of ``x`` is from ``x0``, [N] float32."""
    return size(x - x0, norm)


def dual_size(gradient: Tensor, norm: str) -> Tensor:
    """The dual norm of each gradient, [N]: how fast the loss can rise per unit of ``norm``."""
    return size(gradient, DUAL[norm])


def farthest_corner(x0: Tensor, norm: str) -> Tensor:
    """The distance [N] from each image to the farthest point of the box: no search needs to look beyond."""
    return size(torch.maximum(x0, 1 - x0), norm)


def project_(x: Tensor, x0: Tensor, eps: Tensor, norm: str) -> Tensor:
    """Bring ``x`` into the ball of ``eps`` around ``x0``, then into the box; changes and returns ``x``.

    Args:
        x, x0: [N, C, H, W].
        eps: [N]; at 0 the result is ``x0`` to the bit.
        norm: ``linf``, ``l2``, ``l1`` (the nearest point of ball and box together) or ``l0`` (the largest changes).
    """
    if norm == "l1":
        return x.copy_(_shrunk(x, x0, eps))
    if norm == "l0":
        x.clamp_(0, 1)
        return keep_(x, x0, eps, worth=(x - x0).abs())
    eps = per_image(eps, x)
    if norm == "linf":
        bound = x0 - eps  # one spare tensor serves both bounds
        torch.maximum(x, bound, out=x)
        torch.minimum(x, torch.add(x0, eps, out=bound), out=x)
        return x.clamp_(0, 1)
    if norm == "l2":
        x.sub_(x0)
        length = torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True, dtype=torch.float64)
        shrink = torch.where(length > eps, eps / length, 1.0)
        return x.mul_(shrink.to(x.dtype)).add_(x0).clamp_(0, 1)
    raise SpecError(f"no projection onto a ball of norm {norm!r}", "projections exist for linf, l2, l1 and l0")


def _shrunk(x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
    """The nearest point to ``x`` that lies in the L1 ball of ``eps`` around ``x0`` and in the box.

    The change of each value loses one and the same amount, but never goes below 0, nor above what the box
    leaves (Croce and Hein, 2021): the amount is found from the side that is inside.
    Values are rounded towards ``x0``, so that a sum over a million of them stays inside too.
    """
    base = x0.double()
    change = x.double() - base
    room = torch.where(change > 0, 1 - base, base)
    change.abs_()
    change.sub_(_threshold(change, room, per_image(eps.double(), change))).clamp_min_(0)
    torch.minimum(change, room, out=change)
    moved = (base + torch.where(x > x0, change, -change)).to(x.dtype)
    outside = (moved.double() - base).abs() > change
    return torch.where(outside, torch.nextafter(moved, x0), moved)


def _threshold(change: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """The least amount by which the changes of each image must shrink so that, cut at ``room``, they sum to ``eps``.

    What is left is piecewise linear in the amount: points where the chord of the bracket meets ``eps`` and
    midpoints take turns. An image whose sum is ``eps`` to 1e-12, from below, moves no more.
    """
    values = tuple(range(1, change.ndim))
    left = torch.minimum(change, room)
    at_low = left.sum(values, keepdim=True)
    exceeds = at_low > eps
    high = torch.where(exceeds, change.amax(values, keepdim=True), 0.0)
    low, at_high = torch.zeros_like(high), torch.zeros_like(high)
    for number in range(ROUNDS):
        open_ = exceeds & (at_high < eps * (1 - 1e-12))
        if not open_.is_cuda and not open_.any():
            break
        chord = (eps * (1 - 5e-13) - at_high) / (at_low - at_high)
        part = torch.where(open_, chord, 0.0) if number % 2 == 0 else 0.5
        middle = high - (high - low) * part
        torch.sub(change, middle, out=left).clamp_min_(0)
        at = torch.minimum(left, room, out=left).sum(values, keepdim=True)
        over, under = open_ & (at > eps), open_ & (at <= eps)
        low, at_low = torch.where(over, middle, low), torch.where(over, at, at_low)
        high, at_high = torch.where(under, middle, high), torch.where(under, at, at_high)
    return high


def stretch_(x: Tensor, x0: Tensor, eps: Tensor, norm: str) -> Tensor:
    """As ``project_``, but under L2 points inside the ball are also moved out to its surface, before the box cuts."""
    if norm != "l2":
        return project_(x, x0, eps, norm)
    x.sub_(x0)
    length = torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True, dtype=torch.float64)
    factor = torch.where(length > 0, per_image(eps, x) / length, 0.0).clamp_max(1e38)
    return x.mul_(factor.to(x.dtype)).add_(x0).clamp_(0, 1)


def project(x: Tensor, x0: Tensor, eps: Tensor, norm: str) -> Tensor:
    """As ``project_``, leaving ``x`` as it is."""
    return project_(x.clone(), x0, eps, norm)


def ascend(x: Tensor, gradient: Tensor, step: Tensor, norm: str) -> Tensor:
    """A new point one step of length ``step`` up the gradient, steepest under ``norm``; not projected.

    Under L1 the steepest step would spend all its length on one value, and mostly leave the box. It is
    the steepest one inside the box (Croce and Hein, 2021): the values of largest slope go to the edge, one
    after the other, until the length is spent.

    Args:
        x, gradient: [N, C, H, W]; the gradient may be broadcast.
        step: [N], length of the step in ``norm``.
        norm: ``linf`` (the sign of the gradient), ``l2`` (its direction) or ``l1`` (``x`` must lie in the box).

    An all-zero gradient leaves its image where it is.
    """
    if norm == "linf":
        return torch.addcmul(x, gradient.sign(), per_image(step, x))
    if norm == "l2":
        # In float64 the squares of the tiniest float32 gradient do not vanish.
        length = torch.linalg.vector_norm(gradient, dim=tuple(range(1, gradient.ndim)), dtype=torch.float64)
        scale = torch.where(length > 0, step / length, 0.0).clamp_max(1e38)
        return torch.addcmul(x, gradient, per_image(scale.to(x.dtype), x))
    if norm == "l1":
        return x + _filled(x, gradient.expand_as(x), step)
    raise SpecError(f"no steepest step for norm {norm!r}", "steps exist for linf, l2 and l1")


def _filled(x: Tensor, gradient: Tensor, step: Tensor) -> Tensor:
    """The change of L1 norm ``step`` inside the box that a linear function of this gradient rises most by."""
    slope, at = gradient.flatten(1), x.flatten(1)
    room = torch.where(slope > 0, 1 - at, at)
    order = slope.abs().argsort(dim=1, descending=True, stable=True)
    room = room.gather(1, order)
    before = room.cumsum(1, dtype=torch.float64).sub_(room)
    taken = torch.minimum(room, (step[:, None] - before).clamp_min_(0).to(x.dtype))
    return torch.zeros_like(at).scatter_(1, order, taken).mul_(slope.sign()).view(x.shape)


def sparse_step(x: Tensor, gradient: Tensor, step: Tensor, values: Tensor) -> Tensor:
    """A new point one step of L1 length ``step`` away, spread evenly over the values of largest slope; not projected.

    Args:
        x, gradient: [N, C, H, W].
        step: [N], length of the step in L1.
        values: [N] int64, at least 1: how many values it moves; more where slopes are equal, fewer where they are 0.
    """
    slopes = flat(gradient).abs().sort(dim=1, descending=True).values
    least = slopes.gather(1, values[:, None] - 1)
    signs = gradient.sign() * (gradient.abs() >= per_image(least, gradient))
    moved = size(signs, "l0").clamp_min(1)
    return torch.addcmul(x, signs, per_image(step.to(x.dtype) / moved.to(x.dtype), x))


def normalised(gradient: Tensor) -> Tensor:
    """Each gradient divided by its L1 norm; an all-zero one stays zero."""
    length = flat(gradient).abs().sum(1, dtype=torch.float64)
    scale = torch.where(length > 0, 1 / length, 0.0).clamp_max(1e38)
    return gradient * per_image(scale.to(gradient.dtype), gradient)


def fewest(x: Tensor, gradient: Tensor, rise: Tensor) -> Tensor:
    """How many values [N] float32 a linear function of this gradient needs at the edge of the box to gain ``rise`` [N].

    All of them where that is not enough.
    """
    room = torch.where(gradient > 0, 1 - x, x)
    gain = flat(gradient.abs() * room).double().sort(dim=1, descending=True).values
    return ((gain.cumsum(1) < rise[:, None]).sum(1) + 1).clamp_max(gain.shape[1]).float()


def last_slope(x: Tensor, gradient: Tensor, rise: Tensor) -> Tensor:
    """The slope's size [N] at the last value moved by the least L1 change that lets a linear function gain ``rise``.

    Values of larger slope go to the edge of the box first. Where all together are not enough: the least slope.
    """
    room = torch.where(gradient > 0, 1 - x, x)
    slopes, order = flat(gradient).abs().sort(dim=1, descending=True)
    gained = (slopes * flat(room).gather(1, order)).cumsum(1, dtype=torch.float64)
    place = (gained < rise[:, None]).sum(1, keepdim=True).clamp_max(slopes.shape[1] - 1)
    return slopes.gather(1, place).squeeze(1)


def keep_(x: Tensor, x0: Tensor, count: Tensor, worth: Tensor) -> Tensor:
    """Put all but ``count`` values of each image back to ``x0``, those of least worth; changes and returns ``x``.

    Args:
        x, x0, worth: [N, C, H, W]; values that do not differ from ``x0`` have no worth.
        count: [N]; of 3.5 values 3 stay.
    """
    worth = flat(torch.where(x != x0, worth, -torch.inf))
    rank = worth.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    back = (rank >= count.floor()[:, None]) | torch.isneginf(worth)
    return x.copy_(torch.where(_unflat(back, x), x0, x))


def _unflat(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of ``flat``."""
    if like.ndim == 4 and not like.is_contiguous() and like.is_contiguous(memory_format=torch.channels_last):
        n, c, h, w = like.shape
        return rows.reshape(n, h, w, c).permute(0, 3, 1, 2)
    return rows.reshape(like.shape)


def uniform_start(x0: Tensor, eps: Tensor, norm: str, streams: Streams, run: int | Tensor = 0) -> Tensor:
    """A point drawn evenly from the ball around each image, clipped to the box.

    Under L2 and L1 the radius is eps · u^(1/d), so that volume, not radius, is drawn evenly; under L1 the
    direction is that of signed exponentials. Each ``run`` of an image, a number or [N], draws anew.
    """
    shape = x0.shape[1:]
    if norm == "linf":
        noise = streams.uniform("start", shape, run).mul_(2).sub_(1)
        return project_(torch.addcmul(x0, noise, per_image(eps, x0)), x0, eps, norm)
    if norm not in ("l2", "l1"):
        raise SpecError(f"no random start for norm {norm!r}", "random starts exist for linf, l2 and l1")
    radius = eps * streams.uniform("start-radius", (), run).pow(1 / shape.numel())
    if norm == "l2":
        return project_(ascend(x0, streams.normal("start", shape, run), radius, norm), x0, eps, norm)
    noise = streams.uniform("start", shape, run).neg_().log1p_() * streams.signs("start-sign", shape, run)
    scale = radius / size(noise, norm).clamp_min(1e-12)
    return project_(torch.addcmul(x0, noise, per_image(scale, x0)), x0, eps, norm)


def surface_start(x0: Tensor, eps: Tensor, norm: str, streams: Streams, run: int | Tensor = 0) -> Tensor:
    """A point drawn from the surface of the ball around each image, clipped to the box.

    Under L∞ even noise is scaled until its largest entry is eps; under L2 the direction is drawn evenly
    (as in AutoAttack: Croce and Hein, 2020); under L1 it is the nearest admissible point to the image with
    standard normal noise (Croce and Hein, 2021). Each ``run`` of an image, a number or [N], draws anew.
    """
    shape = x0.shape[1:]
    if norm == "linf":
        noise = streams.uniform("start", shape, run).mul_(2).sub_(1)
        scale = eps / size(noise, norm).clamp_min(1e-12)
        return project_(torch.addcmul(x0, noise, per_image(scale, x0)), x0, eps, norm)
    if norm == "l2":
        return project_(ascend(x0, streams.normal("start", shape, run), eps, norm), x0, eps, norm)
    if norm == "l1":
        return project_(x0 + streams.normal("start", shape, run), x0, eps, norm)
    raise SpecError(f"no random start for norm {norm!r}", "random starts exist for linf, l2 and l1")


def neighbour(x: Tensor, radius: Tensor, norm: str, streams: Streams, purpose: str, step: int | Tensor = 0) -> Tensor:
    """A point drawn evenly from the ball of ``radius`` [N] around each image; it need not lie in the box."""
    shape = x.shape[1:]
    if norm == "linf":
        noise = streams.uniform(purpose, shape, step).mul_(2).sub_(1)
        return torch.addcmul(x, noise, per_image(radius, x))
    if norm == "l2":
        reach = radius * streams.uniform(f"{purpose}/radius", (), step).pow(1 / shape.numel())
        return ascend(x, streams.normal(purpose, shape, step), reach, norm)
    raise SpecError(f"no neighbours for norm {norm!r}", "neighbours are drawn under linf and l2")


def glide(x: Tensor, direction: Tensor, step: Tensor, norm: str) -> Tensor:
    """A new point moved along ``direction`` as it is, not by its steepest step; not projected.

    The unit is chosen so that a direction of L1 norm 1 whose entries are all equally large moves by ``step`` [N].
    """
    count = x[0].numel()
    longest = {"linf": count, "l2": count**0.5}
    if norm not in longest:
        raise SpecError(f"no look-ahead for norm {norm!r}", "it exists for linf and l2")
    return torch.addcmul(x, direction, per_image(step * longest[norm], x))
