"""How a run is watched: clean and robust accuracy on held-out images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aresbench.data.base import Dataset, load_pictures
from aresbench.engine.attack import attack
from aresbench.models.classifier import Classifier
from aresbench.training.world import World

SHARD = 64  # images attacked together, whichever process does it: the numbers are then those of any other division


@dataclass(frozen=True)
class Measured:
    """Accuracies on n images.

    Args:
        clean, robust: shares.
        n: images.
    """

    clean: float
    robust: float
    n: int


class HeldOut:
    """Images that are not learned from, decoded once; each process measures some shards of them.

    Args:
        data: the images.
        classifier: says how they are resized and cropped.
        world: the processes.
    """

    def __init__(self, data: Dataset, classifier: Classifier, world: World) -> None:
        self.world, self.n = world, len(data)
        shards = [list(range(start, min(start + SHARD, self.n))) for start in range(0, self.n, SHARD)]
        self._shards = [
            (mine[0], load_pictures(data, mine, classifier.preprocessing)[0], torch.from_numpy(data.labels[mine]))
            for mine in shards[world.rank :: world.size]
        ]
        self.ids = data.ids

    def measure(self, classifier: Classifier, spec: str, budget: str, first: int | None = None) -> Measured:
        """Clean accuracy, and what an attack leaves of it, on all or the first images; judged as in an evaluation."""
        n = self.n if first is None else min(first, self.n)
        counts = torch.zeros(3, dtype=torch.int64)
        for start, pictures, labels in self._shards:
            if start >= n:
                break
            x: Tensor = pictures[: n - start].float() / 255
            ids = self.ids[start : start + len(x)]
            out = attack(classifier, x, labels[: len(x)], spec, budget, ids=ids, device=self.world.device)
            counts += torch.tensor([len(x), out.correct.sum(), (out.correct & ~out.broken).sum()])
        total, clean, robust = self.world.sum(counts).tolist()
        return Measured(clean / total, robust / total, total)
