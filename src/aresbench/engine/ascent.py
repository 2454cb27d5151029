"""Attacks for training: all steps for all images, nothing judged, on the very module that is being trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aresbench.attacks.base import Attack, Loss
from aresbench.engine.problem import EngineProblem
from aresbench.ops.random import Streams


@dataclass(frozen=True)
class Ascent:
    """What ``ascend`` found.

    Args:
        x: [N, C, H, W], one point of the ball for each image.
        forwards, backwards: [N] int64, passes made for each image.
    """

    x: Tensor
    forwards: Tensor
    backwards: Tensor


def ascend(
    model: Callable[[Tensor], Tensor],
    attack: Attack,
    x: Tensor,
    y: Tensor,
    *,
    norm: str,
    eps: Tensor,
    streams: Streams,
    num_classes: int,
    loss: Loss | None = None,
    keep: str = "last",
    start_from: Tensor | None = None,
) -> Ascent:
    """Raise a loss inside a budget with any attack of this package (the inner problem of Madry et al., 2018).

    Parameters get no gradient and no process is waited for: ``torch.autograd.grad`` is asked about the images alone.

    Args:
        model: images → logits; ``standing_still`` says how a module in training becomes one.
        attack: a bounded attack.
        x: [N, C, H, W] float32 in [0, 1].
        y: [N] int64 labels.
        norm: ``linf``, ``l2`` or ``l1``.
        eps: [N] float32, the budget's size in [0,1] units.
        streams: random streams, one per image.
        num_classes: number of logits.
        loss: (logits, labels) → [N], what is raised; default: cross-entropy.
        keep: the ``last`` iterate, or the ``best`` of each image by loss (one forward more).
        start_from: [N, C, H, W], where to begin; default: as the attack does.
    """
    problem = EngineProblem(
        model,
        x,
        y,
        eps,
        streams,
        norm=norm,
        goal="maximise",
        num_classes=num_classes,
        rows=torch.arange(len(x), device=x.device),
        start_from=start_from,
        keep=keep,
        loss=loss,
    )
    with torch.no_grad():
        state = attack.start(problem)
        for _ in range(attack.steps_for(problem)):
            state = attack.step(problem, state)
            state.t = problem.t = state.t + 1
        attack.finish(problem, state)
    book = problem.ledger
    return Ascent(book.best.detach(), book.forwards, book.backwards)


@contextmanager
def standing_still(module: nn.Module, batch_norm: str = "eval") -> Iterator[None]:
    """A module as an attack should see it; afterwards every mode and flag is as before.

    Parameters are frozen (their gradients are neither computed nor made room for), dropout and stochastic depth are
    off.

    Args:
        module: what is being trained.
        batch_norm: ``eval``: running statistics; ``train``: those of the batch, while the running ones stay untouched.
    """
    modes = [(part, part.training) for part in module.modules()]
    frozen = [p for p in module.parameters() if p.requires_grad]
    # A batch norm without running statistics takes those of the batch, also outside training. Left in training mode
    # it would write to them, and a synchronised one would wait for other processes.
    hidden = [
        (part, part.running_mean, part.running_var)
        for part, training in modes
        if training and batch_norm == "train" and isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    try:
        module.eval()
        for norm, _, _ in hidden:
            norm.running_mean = norm.running_var = None
        for parameter in frozen:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for norm, mean, var in hidden:
            norm.running_mean, norm.running_var = mean, var
        for part, training in modes:
            part.training = training
