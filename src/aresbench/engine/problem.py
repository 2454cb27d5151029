"""What an attack sees of the engine: images, budgets, random streams, the model's counted answers, and the judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Loss
from aresbench.ops.random import Streams

GOALS = ("break", "minimise", "maximise")
NOISE = 1e-6  # of the largest logit: what float32 sums differ by when the batch or the layout changes


@dataclass
class Ledger:
    """What is known of each image's attempt, [N] each: the judge's findings and the costs."""

    row: Tensor  # place of the image in the caller's list
    broken: Tensor
    distance: Tensor  # of the best confirmed-by-rule offer, inf where none
    best: Tensor  # [N, C, H, W], the offer kept
    best_loss: Tensor  # only under maximise with the best iterate
    prediction: Tensor  # of the offer kept
    first_step: Tensor
    first_query: Tensor
    forwards: Tensor
    backwards: Tensor
    zero_gradients: Tensor
    nan_gradients: Tensor
    rejected: Tensor
    confirmed: Tensor  # the model itself, asked once more, was fooled too
    doubted: Tensor  # it was not, at least once
    margin: Tensor  # of its answer
    rounded: Tensor  # distance of the kept offer in 8-bit values, where that fools the model too; else inf
    lost: Tensor  # the search could not begin

    @classmethod
    def blank(cls, rows: Tensor, x: Tensor) -> Ledger:
        """A ledger in which nothing has happened yet; ``best`` begins at the images themselves."""
        n, device = len(rows), x.device

        def whole(value: int) -> Tensor:
            return torch.full((n,), value, dtype=torch.int64, device=device)

        return cls(
            row=rows,
            broken=torch.zeros(n, dtype=torch.bool, device=device),
            distance=torch.full((n,), torch.inf, device=device),
            best=x.clone(),
            best_loss=torch.full((n,), -torch.inf, device=device),
            prediction=whole(-1),
            first_step=whole(-1),
            first_query=whole(-1),
            forwards=whole(0),
            backwards=whole(0),
            zero_gradients=whole(0),
            nan_gradients=whole(0),
            rejected=whole(0),
            confirmed=torch.zeros(n, dtype=torch.bool, device=device),
            doubted=torch.zeros(n, dtype=torch.bool, device=device),
            margin=torch.full((n,), torch.nan, device=device),
            rounded=torch.full((n,), torch.inf, device=device),
            lost=torch.zeros(n, dtype=torch.bool, device=device),
        )

    def withdraw(self, which: Tensor) -> None:
        """Take back claims [N] bool, so that the search goes on."""
        self.broken = self.broken & ~which
        self.distance = torch.where(which, torch.inf, self.distance)
        for name in ("prediction", "first_step", "first_query"):
            setattr(self, name, torch.where(which, -1, getattr(self, name)))

    def select(self, index: Tensor) -> Ledger:
        return Ledger(*(getattr(self, f.name)[index] for f in fields(self)))

    def concat(self, other: Ledger) -> Ledger:
        return Ledger(*(torch.cat((getattr(self, f.name), getattr(other, f.name))) for f in fields(self)))


class EngineProblem:
    """The engine's side of ``attacks.base.Problem``: asks the model, counts, judges.

    Args:
        model: images → logits, frozen.
        x, y, eps, streams, target, start_from: as in ``Problem``.
        norm: the budget's norm.
        goal: ``break``, ``minimise`` or ``maximise``.
        num_classes: number of logits.
        rows: [N] int64, the caller's numbering of the images.
        enough: [N], under ``minimise``: nobody looks for a break nearer than this; default: 0.
        keep: under ``maximise``, which iterate is kept: ``last`` or ``best`` (by loss).
        loss: the loss an attack gets when it names none; default: cross-entropy.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        eps: Tensor,
        streams: Streams,
        *,
        norm: str,
        goal: str,
        num_classes: int,
        rows: Tensor,
        target: Tensor | None = None,
        start_from: Tensor | None = None,
        keep: str = "last",
        loss: Loss | None = None,
        enough: Tensor | None = None,
    ) -> None:
        self.model, self.norm, self.goal, self.keep, self.num_classes = model, norm, goal, keep, num_classes
        self.x, self.y, self.eps, self.streams, self.target = x, y, eps, streams, target
        self.start_from = start_from
        self.loss = loss
        self.enough = torch.zeros_like(eps) if enough is None else enough
        self.t = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.ledger = Ledger.blank(rows, x)

    def __len__(self) -> int:
        return len(self.x)

    def select(self, index: Tensor) -> EngineProblem:
        """The problem of some of the images, with what is known of them."""
        part = EngineProblem.__new__(EngineProblem)
        part.__dict__.update(self.__dict__)
        for name in ("x", "y", "eps", "enough", "t"):
            setattr(part, name, getattr(self, name)[index])
        part.target = None if self.target is None else self.target[index]
        part.start_from = None if self.start_from is None else self.start_from[index]
        part.streams = self.streams.select(index)
        part.ledger = self.ledger.select(index)
        return part

    def concat(self, other: EngineProblem) -> EngineProblem:
        """Both problems' images, one after the other."""
        both = EngineProblem.__new__(EngineProblem)
        both.__dict__.update(self.__dict__)
        for name in ("x", "y", "eps", "enough", "t"):
            setattr(both, name, torch.cat((getattr(self, name), getattr(other, name))))
        if self.target is not None and other.target is not None:
            both.target = torch.cat((self.target, other.target))
        if self.start_from is not None and other.start_from is not None:
            both.start_from = torch.cat((self.start_from, other.start_from))
        both.streams = Streams.from_keys(torch.cat((self.streams.keys, other.streams.keys)))
        both.ledger = self.ledger.concat(other.ledger)
        return both

    # -- asking the model ---------------------------------------------------------------------

    def query(self, x: Tensor, owner: Tensor | None = None) -> Tensor:
        self._count(self.ledger.forwards, owner)
        with torch.no_grad():
            return self.model(x).float()

    def gradient(
        self, x: Tensor, loss: Loss | None = None, owner: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        self._count(self.ledger.forwards, owner)
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self.model(x).float()
            value = self._loss(logits, owner) if loss is None else loss(logits, self._own(self.y, owner))
            gradient = _input_gradient(value, x)
        gradient = self._came_back(gradient, torch.isnan(value.detach()), owner)
        return logits.detach(), value.detach(), gradient

    def differentiable(self, x: Tensor, owner: Tensor | None = None) -> Tensor:
        self._count(self.ledger.forwards, owner)
        with torch.enable_grad():
            door = x.view_as(x)  # what comes back passes here, also where the caller made ``x`` of other things
            logits = self.model(door).float()
            if not logits.requires_grad:
                logits = logits + 0 * door.flatten(1).sum(1, keepdim=True)
            nonsense = ~torch.isfinite(logits.detach()).all(1)
            door.register_hook(lambda gradient: self._came_back(gradient, nonsense, owner))
        return logits

    def _came_back(self, gradient: Tensor, nonsense: Tensor, owner: Tensor | None) -> Tensor:
        """Count a backward pass and what is wrong with its gradients; the gradients with zeros for NaN.

        Args:
            nonsense: [M] bool, rows whose loss or logits are no numbers: their slope may be 0 all the same.
        """
        book = self.ledger
        self._count(book.backwards, owner)
        # One pass tells both kinds of trouble: the largest entry is 0, or not finite.
        peak = geometry.size(gradient, "linf")
        bad = ~torch.isfinite(peak) | nonsense
        self._count(book.zero_gradients, owner, (peak == 0) & ~bad)
        self._count(book.nan_gradients, owner, bad)
        if gradient.is_cuda or bad.any():
            gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        return gradient

    def _loss(self, logits: Tensor, owner: Tensor | None) -> Tensor:
        if self.loss is not None:
            return self.loss(logits, self._own(self.y, owner))
        if self.target is not None:
            return -losses.cross_entropy(logits, self._own(self.target, owner))
        return losses.cross_entropy(logits, self._own(self.y, owner))

    def give_up(self, which: Tensor) -> None:
        self.ledger.lost = self.ledger.lost | which

    # -- judging ------------------------------------------------------------------------------

    def adversarial(self, logits: Tensor, owner: Tensor | None = None) -> Tensor:
        predicted = logits.argmax(1)
        if self.target is not None:
            reached = predicted == self._own(self.target, owner)
        else:
            reached = predicted != self._own(self.y, owner)
        # An answer of NaN proves nothing, and neither does a lead that another batch or layout would undo.
        return reached & (self._lead(logits) > NOISE * logits.abs().amax(1))

    @staticmethod
    def _lead(logits: Tensor) -> Tensor:
        """By how much the best logit beats the second, [N]; NaN where a logit is not finite."""
        top = logits.topk(2, dim=1).values
        return torch.where(torch.isfinite(logits).all(1), top[:, 0] - top[:, 1], torch.nan)

    def offer(
        self, x: Tensor, logits: Tensor | None = None, owner: Tensor | None = None, step: Tensor | None = None
    ) -> None:
        if self.goal == "maximise":
            self._keep_iterate(x, logits, owner)
            return
        if logits is None:
            logits = self.query(x, owner)
        reached = self.adversarial(logits, owner)
        if not reached.is_cuda and not reached.any():
            return
        if owner is not None:
            x, logits, step, reached = self._best_of_each(x, logits, owner, step, reached)
        if self.goal == "break":
            reached = reached & ~self.ledger.broken  # the first break decides; the image then leaves
        if reached.is_cuda:
            self._enter(slice(None), reached, x, logits, self.t if step is None else step)
        else:  # few images break at any one step: the rest need not be looked at
            at = reached.nonzero().squeeze(1)
            self._enter(at, reached[at], x[at], logits[at], (self.t if step is None else step)[at])

    def _enter(self, at: Tensor | slice, reached: Tensor, x: Tensor, logits: Tensor, step: Tensor) -> None:
        """Judge candidates of the images ``at`` and write the good ones into the ledger."""
        book = self.ledger
        distance = geometry.distance(x, self.x[at], self.norm)
        low, high = geometry.extent(x)
        valid = reached & (low >= 0) & (high <= 1) & (distance <= geometry.allowance(self.eps[at]))
        book.rejected[at] += (reached & ~valid).long()
        better = valid & (distance < book.distance[at])
        first = better & ~book.broken[at]
        for column, condition, value in (
            (book.first_step, first, step),
            (book.first_query, first, book.forwards[at]),
            (book.distance, better, distance),
            (book.prediction, better, logits.argmax(1)),
            (book.best, better[:, None, None, None], x),
        ):
            column[at] = torch.where(condition, value, column[at])
        book.broken[at] = book.broken[at] | better

    def _best_of_each(
        self, x: Tensor, logits: Tensor, owner: Tensor, step: Tensor | None, reached: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """One candidate per image: the nearest that reaches the goal; images without one keep their own x."""
        distance = geometry.distance(x, self.x[owner], self.norm)
        distance = torch.where(reached, distance, torch.inf)
        order = torch.argsort(distance, descending=True, stable=True)  # the nearest is written last
        place = torch.full((len(self.x),), -1, dtype=torch.int64, device=x.device)
        for k in order.tolist():
            place[owner[k]] = k
        has = place >= 0
        at = place.clamp_min(0)
        chosen = torch.where(has[:, None, None, None], x[at], self.x)
        return chosen, logits[at], None if step is None else step[at], has & reached[at]

    def _keep_iterate(self, x: Tensor, logits: Tensor | None, owner: Tensor | None) -> None:
        """Under ``maximise`` nothing is judged: the last iterate is kept, or the one of highest loss."""
        if owner is not None:
            raise ValueError("candidates of several owners cannot be kept under the goal 'maximise'")
        book = self.ledger
        if self.keep == "last":
            book.best = x
            return
        if logits is None:
            logits = self.query(x)
        value = self._loss(logits, None)
        better = value >= book.best_loss
        book.best_loss = torch.where(better, value, book.best_loss)
        book.best = torch.where(better[:, None, None, None], x, book.best)

    # -- small helpers ------------------------------------------------------------------------

    @staticmethod
    def _own(values: Tensor, owner: Tensor | None) -> Tensor:
        return values if owner is None else values[owner]

    @staticmethod
    def _count(counter: Tensor, owner: Tensor | None, which: Tensor | None = None) -> None:
        if owner is None:
            counter += 1 if which is None else which.long()
        else:
            counter.index_add_(0, owner, torch.ones_like(owner) if which is None else which.long())


def _input_gradient(value: Tensor, x: Tensor) -> Tensor:
    """Gradient of the summed losses with respect to the images only; zero where there is no path to them."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient.detach()


def streams_for(seed: int, attack: str, labels: Sequence[str], ids: Sequence[str], device: torch.device) -> Streams:
    """One stream per (image, budget): the same image at another rung draws other numbers."""
    return Streams(seed, attack, [f"{label}|{image_id}" for label, image_id in zip(labels, ids, strict=True)], device)
