"""The two step rules of Auto-PGD: steps of one length with momentum under L∞ and L2, sparse steps under L1."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from aresbench.attacks import geometry
from aresbench.attacks.base import State

MOMENTUM = 0.75  # weight of the new step against the last displacement


@dataclass
class APGDState(State):
    """One row per image; everything that decides its step is its own.

    Args:
        x: [N, C, H, W], the next point to ask about.
        best, best_gradient: [N, C, H, W], the point of highest loss so far and its gradient.
        best_loss: [N], its loss.
        length: [N], length of a step.
        targets: [N, T] int64, the classes that the runs are driven to; ``None`` where any will do.
    """

    x: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    length: Tensor
    targets: Tensor | None = field(default=None, kw_only=True)


@dataclass
class DenseState(APGDState):
    """Under L∞ and L2.

    Args:
        previous: [N, C, H, W], the iterate before ``x``.
        loss: [N], the loss at the last iterate (0 before the first update).
        rises: [N] int64, steps since the last check after which the loss had risen.
        window: [N] int64, steps between the last check and the next.
        next_check: [N] int64, the step of the next check.
        halved: [N] bool, was the length halved at the last check?
        best_at_check: [N], ``best_loss`` at the last check.
    """

    previous: Tensor
    loss: Tensor
    rises: Tensor
    window: Tensor
    next_check: Tensor
    halved: Tensor
    best_at_check: Tensor


@dataclass
class SparseState(APGDState):
    """Under L1.

    Args:
        spread: [N], how many values differed from the image: at the start, later at the best point of the last check.
    """

    spread: Tensor


def begin_dense(x: Tensor, eps: Tensor, t: Tensor, steps: int) -> DenseState:
    """The state of a run of ``steps`` updates that begins at ``x`` [N, C, H, W]; ``t`` [N] int64 is zero."""
    window = torch.full_like(t, max(int(0.22 * steps), 1))
    return DenseState(
        t,
        x=x,
        previous=x,
        best=x,
        best_gradient=torch.zeros_like(x),
        best_loss=torch.full_like(eps, -torch.inf),
        loss=torch.zeros_like(eps),
        length=2 * eps,
        rises=t,
        window=window,
        next_check=window,
        halved=torch.ones_like(t, dtype=torch.bool),
        best_at_check=torch.full_like(eps, -torch.inf),
    )


def begin_sparse(x: Tensor, x0: Tensor, eps: Tensor, t: Tensor) -> SparseState:
    """The state of a leg that begins at ``x`` [N, C, H, W]; ``t`` [N] int64 is zero."""
    return SparseState(
        t,
        x=x,
        best=x,
        best_gradient=torch.zeros_like(x),
        best_loss=torch.full_like(eps, -torch.inf),
        length=eps,
        spread=geometry.distance(x, x0, "l0"),
    )


def step_dense(
    s: DenseState,
    loss: Tensor,
    gradient: Tensor,
    x0: Tensor,
    eps: Tensor,
    norm: str,
    done: Tensor,
    steps: int,
    rho: float,
) -> DenseState:
    """One update under L∞ or L2.

    Args:
        loss, gradient: the answer at ``s.x``, [N] and [N, C, H, W].
        x0, eps, norm: the ball.
        done: [N] int64, updates made so far in this run of ``steps``.
        rho: share of rising steps that is needed to keep the step length.
    """
    # What this answer changes. The loss of the start is a best loss, but no step yet.
    first = done == 0
    best, best_gradient, best_loss = _better(s, loss, gradient, first)
    rises = s.rises + ((loss > s.loss) & ~first)
    loss = torch.where(first, s.loss, loss)

    # Checkpoints.
    due = done == s.next_check
    stuck = ~s.halved & (s.best_at_check >= best_loss)
    halve = due & ((rises <= rho * s.window) | stuck)
    length = torch.where(halve, s.length / 2, s.length)
    wide = geometry.per_image(halve, s.x)
    x = torch.where(wide, best, s.x)
    gradient = torch.where(wide, best_gradient, gradient)
    shorter = (s.window - max(int(0.03 * steps), 1)).clamp_min(max(int(0.06 * steps), 1))
    window = torch.where(due, shorter, s.window)

    # The step: a projected ascent, mixed with the last displacement from the second step on.
    fresh = geometry.per_image(torch.where(first, 1.0, MOMENTUM).to(x.dtype), x)
    moved = geometry.project_(geometry.ascend(x, gradient, length, norm), x0, eps, norm)
    moved.sub_(x).mul_(fresh).add_(x).addcmul_(x - s.previous, 1 - fresh)
    return replace(
        s,
        x=geometry.project_(moved, x0, eps, norm),
        previous=x,
        best=best,
        best_gradient=best_gradient,
        best_loss=best_loss,
        loss=loss,
        length=length,
        rises=torch.where(due, 0, rises),
        window=window,
        next_check=torch.where(due, done + window, s.next_check),
        halved=torch.where(due, halve, s.halved),
        best_at_check=torch.where(due, best_loss, s.best_at_check),
    )


def step_sparse(
    s: SparseState, loss: Tensor, gradient: Tensor, x0: Tensor, eps: Tensor, done: Tensor, steps: Tensor
) -> SparseState:
    """One update under L1 (Croce and Hein, "Mind the box", 2021); see ``step_dense``, with [N] ``steps`` of the leg.

    A step moves two thirds as many values as the best point has changed. Where that became sparser by
    more than 5 % since the last check, the step is ``eps`` long again and begins at the best point; where not,
    it is shortened by a third, down to a tenth of ``eps``.
    """
    best, best_gradient, best_loss = _better(s, loss, gradient, done == 0)

    window = (steps * 4 // 100).clamp_min(1)
    due = (done > 0) & (done % window == 0)
    spread = torch.where(due, geometry.distance(best, x0, "l0"), s.spread)
    sparser = due & (spread / s.spread < 0.95)
    shorter = torch.maximum(s.length / 1.5, eps / 10)
    length = torch.where(sparser, eps, torch.where(due, shorter, s.length))
    wide = geometry.per_image(sparser, s.x)
    x = torch.where(wide, best, s.x)
    gradient = torch.where(wide, best_gradient, gradient)

    size = x0[0].numel()
    values = size - ((1 - spread / size / 1.5) * size).long().clamp(0, size - 1)
    moved = geometry.sparse_step(x, gradient, length, values)
    return replace(
        s,
        x=geometry.project_(moved, x0, eps, "l1"),
        best=best,
        best_gradient=best_gradient,
        best_loss=best_loss,
        length=length,
        spread=spread,
    )


def _better(s: APGDState, loss: Tensor, gradient: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best point so far, its gradient and its loss, now that ``s.x`` has been asked about."""
    improved = loss > s.best_loss
    wide = geometry.per_image(improved | first, s.x)
    best, best_gradient = torch.where(wide, s.x, s.best), torch.where(wide, gradient, s.best_gradient)
    return best, best_gradient, torch.where(improved, loss, s.best_loss)
