"""Training without an adversary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aresbench.training.losses import soft_cross_entropy
from aresbench.training.methods.base import Lesson, Method


@dataclass(frozen=True)
class Standard(Method):
    """Cross-entropy on the images as they are, CE(f(x), y): what robust training is compared with.

    An update costs one training pass.
    """

    paper: ClassVar[str] = ""
    choose_when: ClassVar[str] = "you want the twin that a robust model is compared with"
    attacks: ClassVar[bool] = False
    robust: ClassVar[bool] = False

    def learn(self, lesson: Lesson) -> None:
        lesson.update(lambda: soft_cross_entropy(lesson.forward(lesson.x), lesson.labels))
