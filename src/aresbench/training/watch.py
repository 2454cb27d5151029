"""How a run is watched: clean and robust accuracy on held-out images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aresbench.data.base import Dataset, load_pictures
from aresbench.engine.attack import attack
from aresbench.models.classifier import Classifier
from aresbench.training.world import World

AT_ONCE = 256  # images held as float32 at a time


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
    """Images that are not learned from, decoded once; each process measures its share of them.

    Args:
        data: the images.
        classifier: says how they are resized and cropped.
        world: the processes.
    """

    def __init__(self, data: Dataset, classifier: Classifier, world: World) -> None:
        self.world, self.n = world, len(data)
        mine = list(range(world.rank, len(data), world.size))
        self.x, kept, _ = load_pictures(data, mine, classifier.preprocessing)
        self.y = torch.from_numpy(data.labels[kept])
        self.ids = [data.ids[k] for k in kept]

    def measure(self, classifier: Classifier, spec: str, budget: str, first: int | None = None) -> Measured:
        """Clean accuracy, and what an attack leaves of it, on all or the first images; judged as in an evaluation."""
        mine = len(self.x) if first is None else max(1, first // self.world.size)
        counts = torch.zeros(3, dtype=torch.float64)
        for start in range(0, min(mine, len(self.x)), AT_ONCE):
            part = slice(start, min(start + AT_ONCE, mine))
            x: Tensor = self.x[part].float() / 255
            out = attack(classifier, x, self.y[part], spec, budget, ids=self.ids[part], device=self.world.device)
            robust = out.correct & ~out.broken
            counts += torch.tensor([len(x), out.correct.sum(), robust.sum()], dtype=torch.float64)
        n, clean, robust_count = self.world.sum(counts.to(torch.float32)).tolist()
        return Measured(clean / n, robust_count / n, int(n))
