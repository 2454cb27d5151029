"""Intervals by resampling images (the bootstrap), reproducible to the bit."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from aresbench.metrics.score import Better, Floats, Score

RESAMPLES = 2000
_CELLS = 100_000  # numbers drawn at once: what fits into the fast part of the memory


def bootstrap_mean(
    values: ArrayLike,
    bounds: tuple[float, float],
    *,
    level: float = 0.95,
    seed: int = 0,
    better: Better = "higher",
    unit: str = "%",
) -> Score:
    """Mean over images with a bootstrap interval (Efron 1979) that is honest for images all alike.

    Two imaginary images, one at each bound, join the pool that is drawn from (not the value itself):
    twenty images that all broke at once do not prove that every image does. It is the idea by which
    Agresti and Coull (1998) mend the interval of a share.

    Args:
        values: [N] one number per image.
        bounds: smallest and largest number an image can have.
        level: confidence.
        seed: of the resampling.
        better: direction that is good for the model.
        unit: see ``Score``.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return Score(math.nan, 0, *bounds, better, unit)
    if np.isnan(array).any() or array.min() < bounds[0] or array.max() > bounds[1]:
        raise ValueError(f"every value must lie in [{bounds[0]}, {bounds[1]}]")
    value = float(array.mean())
    means = _resampled_means(np.concatenate((array, bounds)), array.size, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Score(value, array.size, min(float(low), value), max(float(high), value), better, unit)


def _resampled_means(pool: Floats, n: int, seed: int) -> Floats:
    """[RESAMPLES] means of n draws from the pool.

    Equal values are drawn together, by the count of each: budgets of a ladder take few values, and
    50,000 images then cost no more than 50.
    """
    rng = np.random.default_rng(seed)
    distinct, counts = np.unique(pool, return_counts=True)
    if len(distinct) <= 256:
        return rng.multinomial(n, counts / counts.sum(), size=RESAMPLES) @ distinct / n
    rows = max(1, _CELLS // n)
    means = [
        pool.take(rng.integers(0, pool.size, size=(min(rows, RESAMPLES - done), n))).mean(axis=1)
        for done in range(0, RESAMPLES, rows)
    ]
    return np.concatenate(means)
