"""What a training method is, and what it may ask of one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor, nn

from aresbench.attacks.base import Loss
from aresbench.ops.random import Streams


class Lesson(Protocol):
    """One batch, as the loop gives it to a method.

    Attributes:
        x: [N, C, H, W] float32 in [0, 1], varied and mixed.
        y: [N] int64, the main label of each image.
        labels: [N, K], what is learned: mixed and smoothed labels.
        norm: of this batch's budget (where the worst of several counts: of one of them, drawn).
        eps: [N], the budget's size now (it may be growing).
        streams: random streams, one per image, of this epoch.
        progress: share of all updates made, in [0, 1).
        carried: what a method hands from batch to batch, [N, C, H, W]; checkpoints hold it. ``None`` at first.
    """

    x: Tensor
    y: Tensor
    labels: Tensor
    norm: str
    eps: Tensor
    streams: Streams
    progress: float
    carried: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Logits [M, K] in training mode, with a graph: call it once for an update (concatenate)."""
        ...

    def answer(self, x: Tensor) -> Tensor:
        """Logits [M, K] as the attack sees the model, without a graph."""
        ...

    def attack(
        self, loss: Loss | None = None, start_from: Tensor | None = None, around: Tensor | None = None
    ) -> Tensor:
        """[N, C, H, W]: the recipe's attack on the images, all steps for all of them.

        Args:
            loss: what is raised; default: cross-entropy to the labels the recipe names.
            start_from: [N, C, H, W], where to begin.
            around: [N, C, H, W] in [0, 1], what the budget is measured from; default: the images.
        """
        ...

    def update(self, objective: Callable[[], Tensor]) -> None:
        """Lower ``objective``, which returns one loss per image or their mean, and move the weights.

        ``objective`` may be called twice (weight perturbation asks for its slope first). A method that replays its
        batch calls ``update`` once for each replay.
        """
        ...


@dataclass(frozen=True)
class Method(ABC):
    """Base of all training methods: frozen settings, and what to learn from one batch.

    Class attributes are the card: the ``paper`` to cite, ``choose_when`` in one line, and:

    attacks: does an adversary take part?
    robust: is accuracy under attack its aim? Then the best weights are chosen by it, and its collapse is looked for.
    single_step: the attack the method is made of, where that is no choice; the recipe must name it.
    whole: must a batch be learned from at once, under one budget (no accumulation, no worst of several)?
    compiles: can torch compile its training pass? (Not where gradients are derived once more.)
    """

    paper: ClassVar[str]
    choose_when: ClassVar[str]
    attacks: ClassVar[bool] = True
    robust: ClassVar[bool] = True
    single_step: ClassVar[str] = ""
    whole: ClassVar[bool] = False
    compiles: ClassVar[bool] = True

    @abstractmethod
    def learn(self, lesson: Lesson) -> None:
        """Learn from a batch: call ``lesson.update`` once (or more, where the method replays batches)."""

    def prepare(self, module: nn.Module) -> nn.Module:
        """The module with what the method needs beside it in training; called before the first update."""
        return module
