"""Which images make which batch: a function of seed and step, so that nothing about it must be saved."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from aresbench.ops.random import key_of


class Order(Sampler[list[tuple[int, int]]]):
    """The batches of one process, from some step on: lists of (epoch, place in the dataset).

    Each epoch is a permutation of the images; the few that fill no batch wait for the next. All processes together
    take the same batches whatever their number.

    Args:
        images: how many there are to learn from.
        batch: images of an update, over all processes.
        epochs: how many.
        seed: of the permutations.
        rank, size: this process among all.
        first: the step to begin with.
    """

    def __init__(self, images: int, batch: int, epochs: int, seed: int, rank: int, size: int, first: int = 0) -> None:
        self.images, self.batch, self.seed, self.rank, self.size = images, batch, seed, rank, size
        self.per_epoch = images // batch
        self.first, self.last = first, epochs * self.per_epoch

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = self.first
        while step < self.last:
            epoch, at = divmod(step, self.per_epoch)
            places = permutation(self.images, self.seed, epoch)
            for k in range(at, self.per_epoch):
                mine = places[k * self.batch : (k + 1) * self.batch][self.rank :: self.size]
                yield [(epoch, int(place)) for place in mine]
                step += 1


def permutation(images: int, seed: int, epoch: int) -> np.ndarray:
    """int64 [images]: the order of one epoch."""
    return np.random.default_rng(key_of(seed, "order", epoch) % 2**63).permutation(images)
