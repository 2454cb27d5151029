"""What a training would take, seen on its first updates."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from aresbench.core.words import duration
from aresbench.training.images import batches, random_states_kept
from aresbench.training.learner import make_learner
from aresbench.training.loop import datasets, learn
from aresbench.training.recipe import Recipe
from aresbench.training.world import joined

UPDATES = 2  # the first one warms up, the others are timed


@dataclass(frozen=True)
class Forecast:
    """What a training would take.

    Args:
        images: to learn from.
        updates: of all epochs.
        gradients: image gradients of one update (attack and learning together).
        seconds_an_update: on this device, without reading the images.
        device: which.
    """

    images: int
    updates: int
    gradients: int
    seconds_an_update: float
    device: str

    def __str__(self) -> str:
        return (
            f"{self.images:,} images to learn from · {self.updates:,} updates of {self.gradients:,} image gradients · "
            f"about {duration(self.updates * self.seconds_an_update)} on {self.device}, if reading keeps up"
        )


def forecast(recipe: Recipe, device: str | None = None) -> Forecast:
    """Make the learner and a few updates, leaving nothing behind.

    Raises:
        SpecError, DataError, ModelError: as ``train``.
    """
    with joined(device) as world, random_states_kept():
        learned, _ = datasets(recipe)
        learner = make_learner(recipe, learned.classes, len(learned), world)
        seconds, gradients = 0.0, 0
        for batch, _ in zip(batches(learned, recipe, world, 0), range(1 + UPDATES), strict=False):
            began = time.monotonic()
            gradients = sum(int(lesson.gradients) for lesson in learn(learner, batch))
            if world.device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.monotonic() - began
        where = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else str(world.device)
        return Forecast(len(learned), learner.total, gradients * world.size, seconds, where)
