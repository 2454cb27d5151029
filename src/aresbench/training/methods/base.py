"""What a training method is, and what it may ask of one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from aresbench.attacks.base import Loss
from aresbench.ops.random import Streams


class Lesson(Protocol):
    """One batch, as the loop gives it to a method.

    Attributes:
        x: [N, C, H, W] float32 in [0, 1], varied and mixed.
        y: [N] int64, the main label of each image.
        labels: [N, K], what is learned: mixed and smoothed labels.
        norm: of this batch's budget.
        eps: [N], the budget's size now (it may be growing).
        streams: random streams, one per image, of this epoch.
        progress: share of all updates made, in [0, 1).
        replays: how often the batch has been learned from before, for methods that do so several times.
    """

    x: Tensor
    y: Tensor
    labels: Tensor
    norm: str
    eps: Tensor
    streams: Streams
    progress: float

    def forward(self, x: Tensor) -> Tensor:
        """Logits [M, K] in training mode, with a graph: call it once for an update (concatenate)."""
        ...

    def answer(self, x: Tensor) -> Tensor:
        """Logits [M, K] as the attack sees the model, without a graph."""
        ...

    def attack(self, loss: Loss | None = None, start_from: Tensor | None = None) -> Tensor:
        """[N, C, H, W]: the recipe's attack on the images, all steps for all of them.

        Args:
            loss: what is raised; default: cross-entropy to the labels the recipe names.
            start_from: [N, C, H, W], where to begin.
        """
        ...

    def update(self, objective: Callable[[], Tensor]) -> None:
        """Lower ``objective``, which returns one loss per image or their mean, and move the weights.

        It may be called more than once within an update (weight perturbation asks for its slope first).
        """
        ...


@dataclass(frozen=True)
class Method(ABC):
    """Base of all training methods: frozen settings, and what to learn from one batch.

    Class attributes are the card: the ``paper`` to cite, ``choose_when`` in one line, ``passes``: forward and backward
    passes of an update beside the attack's, and ``attacks``: does it use the recipe's attack?
    """

    paper: ClassVar[str]
    choose_when: ClassVar[str]
    attacks: ClassVar[bool] = True

    @abstractmethod
    def learn(self, lesson: Lesson) -> None:
        """Learn from a batch: call ``lesson.update`` once (or more, where the method replays batches)."""
