"""What every change of an image promises, be it a corruption with a severity or a filter with a radius."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from aresbench.ops.random import Streams


class Change(ABC):
    """Something that may happen to an image, without an adversary: settings, a record of them, and one call."""

    name: ClassVar[str]
    paper: ClassVar[str]
    revision: ClassVar[int]  # raised only when the numbers change
    eight_bits: ClassVar[bool] = False  # are the results multiples of 1/255?

    @property
    @abstractmethod
    def component(self) -> str:
        """The name under which this change draws: ``Streams(seed, change.component, ids)``."""

    @abstractmethod
    def describe(self, height: int | None = None, width: int | None = None) -> dict[str, object]:
        """The record that goes into a cell's key; with an image size also what it selects."""

    def require(self, height: int | None = None, width: int | None = None) -> None:  # noqa: B027  # most need nothing
        """Say before a run, and not in its middle, what this change lacks for images of this size.

        Raises:
            DataError: something is not installed, or images of this size cannot be changed.
        """

    @abstractmethod
    def __call__(self, x: Tensor, streams: Streams) -> Tensor:
        """Change images [N,3,H,W] in [0,1], each with the draws of its own stream; same shape, dtype and device."""
