"""What an attack is, and what it may ask of the engine.

An attack is frozen settings plus a batched state machine, in the way an optimiser is: ``start``
makes a state, ``step`` advances it once. It never judges its own success, loops over steps, counts
queries or sweeps budgets: the driver does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from aresbench.ops.random import Streams

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits [N, K], labels [N]) → loss [N]; the attack raises it."""


@dataclass
class State:
    """Tensors whose first dimension is the image; subclasses add their own.

    Every field must be a tensor with one row per image (or ``None``): counters too, because images
    that entered the batch at different times stand at different steps.

    Args:
        t: [N] int64, steps done so far by each image. The driver raises it after each step.
    """

    t: Tensor


S = TypeVar("S", bound=State)


def select(state: S, index: Tensor) -> S:
    """The rows ``index`` of a state."""
    rows: dict[str, Any] = {f.name: _row(getattr(state, f.name), index) for f in fields(state)}
    return replace(state, **rows)


def concat(first: S, second: S) -> S:
    """The rows of two states of one attack, one after the other."""
    merged: dict[str, Any] = {}
    for f in fields(first):
        a, b = getattr(first, f.name), getattr(second, f.name)
        merged[f.name] = None if a is None else torch.cat((a, b))
    return replace(first, **merged)


def _row(value: Tensor | None, index: Tensor) -> Tensor | None:
    return None if value is None else value[index]


class Problem(Protocol):
    """What the driver gives an attack: images, budgets, random streams and the model's answers.

    Attributes:
        x: [N, C, H, W] float32 in [0, 1], the images to attack.
        y: [N] int64, the labels (after the class map).
        target: [N] int64 for a targeted attack, else ``None``.
        eps: [N] float32, each image's budget in [0,1] units; ``inf`` under ``minimise`` where
            nothing bounds the search.
        norm: ``linf``, ``l2``, ``l1`` or ``l0``.
        streams: random streams, one per image.
        num_classes: K, after the class map.
        start_from: [N, C, H, W] or ``None``; where a warm start begins (``None``: cold).
    """

    x: Tensor
    y: Tensor
    target: Tensor | None
    eps: Tensor
    norm: str
    streams: Streams
    num_classes: int
    start_from: Tensor | None

    def query(self, x: Tensor, owner: Tensor | None = None) -> Tensor:
        """Logits [M, K] at ``x`` [M, C, H, W]; each row is counted as one forward of its image.

        Args:
            owner: [M] int64, the image each row belongs to; default: row i is image i.
        """
        ...

    def gradient(
        self, x: Tensor, loss: Loss | None = None, owner: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [M, K], loss [M] and its gradient with respect to ``x``; one forward and one backward each.

        ``loss=None`` takes the problem's own loss (the goal's: cross-entropy, or its negative towards
        the target). A row with a NaN or infinite gradient entry comes back with zeros there, and is
        counted, as is a row whose loss is NaN; so is a row whose gradient is all zero.
        """
        ...

    def differentiable(self, x: Tensor, owner: Tensor | None = None) -> Tensor:
        """Logits [M, K] with a graph back to ``x``: one forward of each row now, one backward at each way back.

        For attacks that need several gradients of one answer, or bring a loss of their own. ``x`` must require a
        gradient. What comes back is counted, and freed of NaN, as by ``gradient``; a model without a path to its
        images gives zeros.
        """
        ...

    def offer(
        self, x: Tensor, logits: Tensor | None = None, owner: Tensor | None = None, step: Tensor | None = None
    ) -> None:
        """Propose candidates, with the logits already asked for at those points.

        Args:
            x: [M, C, H, W] candidates.
            logits: [M, K] the model's answer there; ``None`` leaves it to the engine to ask where
                the goal needs it (used for a last iterate).
            owner: [M] int64, the image each candidate belongs to; default: row i is image i.
            step: [M] int64, updates made before this point was reached; default: the state's ``t``.
        """
        ...

    def give_up(self, which: Tensor) -> None:
        """The search of these images, [N] bool, cannot begin (no starting point was found): they leave the batch.

        Nobody else is concerned; the attempt's verdict is ``no-start``, and the image counts as resisted.
        """
        ...

    def adversarial(self, logits: Tensor, owner: Tensor | None = None) -> Tensor:
        """[M] bool: do these logits reach the goal (misclassified, or the target reached)?

        For attacks whose search depends on it (minimal-norm ones); the engine still judges.
        """
        ...


@dataclass(frozen=True)
class Attack(ABC):
    """Base of all attacks. Subclasses are frozen dataclasses of settings with field-standard defaults.

    Class attributes are the attack's card: ``norms`` it supports, the ``access`` it needs
    (``gradient``, ``score`` or ``label``), its ``kind`` (``bounded``: stays inside eps;
    ``minimal``: looks for the nearest break and is driven under ``minimise``), ``revision``,
    raised only when its numbers change, the ``paper`` to cite, and in ``choose_when`` one line on
    what it is good for. Where nobody judges its offers (``maximise``), ``keeps`` says which of them stands
    for the attack: the ``last`` or the ``best`` by loss.
    """

    norms: ClassVar[tuple[str, ...]]
    access: ClassVar[str]
    kind: ClassVar[str]
    revision: ClassVar[int]
    paper: ClassVar[str]
    choose_when: ClassVar[str]
    keeps: ClassVar[str] = "last"

    @property
    @abstractmethod
    def total_steps(self) -> int:
        """How many times ``step`` is called for an image that never breaks."""

    @property
    def passes(self) -> int:
        """Forward and backward passes, about, for an image that never breaks: what a forecast reckons with."""
        return self.total_steps * (2 if self.access == "gradient" else 1)

    def steps_for(self, problem: Problem) -> int:
        """``total_steps``, or what the problem's norm, classes and target make of it; one number a problem."""
        return self.total_steps

    @abstractmethod
    def start(self, problem: Problem) -> Any:
        """The state before the first step; may query and offer. Its ``t`` is zero everywhere."""

    @abstractmethod
    def step(self, problem: Problem, state: Any) -> Any:
        """The state after one more step. Every model answer at an admissible point should be offered."""

    def finish(self, problem: Problem, state: Any) -> None:  # noqa: B027 - most attacks have nothing left to offer
        """Offer what is left after the last step (an iterate not yet evaluated). Called once per image."""


@dataclass(frozen=True)
class Ensemble(ABC):
    """Base of named lists of attacks whose worst case counts: each sees only what those before left standing.

    Subclasses are frozen dataclasses of settings; class attributes are the card, as of an attack.
    """

    norms: ClassVar[tuple[str, ...]]
    access: ClassVar[str]
    kind: ClassVar[str]
    revision: ClassVar[int]
    paper: ClassVar[str]
    choose_when: ClassVar[str]

    @abstractmethod
    def attacks(self, norm: str) -> tuple[str, ...]:
        """The specs of its attacks under a norm, in order."""
