"""Shares of images: clean accuracy, robust accuracy, attack success, and the typical breaking distance."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike

from aresbench.metrics.binomial import cdf
from aresbench.metrics.budgets import Size, as_breaking, as_float
from aresbench.metrics.score import Score, share


def accuracy(correct: ArrayLike, level: float = 0.95) -> Score:
    """Share of images the model gets right.

    Args:
        correct: [N] bool.
        level: confidence of Wilson's interval.
    """
    right = np.asarray(correct, dtype=bool)
    return share(int(right.sum()), right.size, level=level)


def robust_accuracy(breaking: ArrayLike, eps: Size, level: float = 0.95) -> Score:
    """Share of images that are right and stay right under every confirmed offer within ``eps``.

    It is an upper bound: a stronger attack can only lower it.

    Args:
        breaking: [N] breaking budgets (0 clean error, inf resisted).
        eps: the budget, as Fraction, text or float.
        level: confidence of Wilson's interval.
    """
    values = as_breaking(breaking)
    return share(int((values > as_float(eps)).sum()), values.size, level=level)


def union_accuracy(robust: Sequence[ArrayLike], level: float = 0.95) -> Score:
    """Share of images that are right under every one of several threats, e.g. budgets of several norms.

    An image that is wrong without any attack is wrong under all of them, and so counts once.

    Args:
        robust: one [N] bool array per threat, over the same images in the same order: right under it?
        level: confidence of Wilson's interval.
    """
    if len({np.shape(values) for values in robust}) != 1:
        raise ValueError("every threat must be given on the same images, and there must be one")
    return accuracy(np.logical_and.reduce([np.asarray(values, dtype=bool) for values in robust]), level)


def real_accuracy(prediction: ArrayLike, accepted: Sequence[Collection[int]], level: float = 0.95) -> Score:
    """Share of images whose prediction is among their labels, over the images that have any (Beyer et al. 2020).

    ImageNet's reassessed labels (ReaL) give an image all its true classes, and 3,163 images none: those are left out.

    Args:
        prediction: [N] class chosen for each image.
        accepted: for each image the classes that count as right.
        level: confidence of Wilson's interval.

    Raises:
        ValueError: the numbers of images differ.
    """
    chosen = np.asarray(prediction, dtype=np.int64)
    if chosen.size != len(accepted):
        raise ValueError(f"{chosen.size} predictions but labels of {len(accepted)} images")
    right = [int(choice) in labels for choice, labels in zip(chosen, accepted, strict=True) if len(labels)]
    return share(sum(right), len(right), level=level)


def attack_success_rate(breaking: ArrayLike, eps: Size, level: float = 0.95) -> Score:
    """Share of the initially right images that broke within ``eps``; low is good for the model.

    Args: as for ``robust_accuracy``.
    """
    values = as_breaking(breaking)
    attacked = values[values > 0]
    return share(int((attacked <= as_float(eps)).sum()), attacked.size, "lower", level)


def median_breaking_distance(distance: ArrayLike, level: float = 0.95, unit: str = "") -> Score:
    """Median distance at which images break, with an interval from order statistics (no bell curve assumed).

    Args:
        distance: [N] smallest confirmed distances in [0,1]-image units of the norm; 0 for a clean
            error (the field counts them), inf for an image that never broke.
        level: confidence; the interval covers with at least this probability.
        unit: shown behind the number.
    """
    values = np.sort(as_breaking(distance))
    n = values.size
    if n == 0:
        return Score(math.nan, 0, 0.0, math.inf, "higher", unit)
    # The number of images below the median is Binomial(n, 1/2): take the widest ends still needed.
    tail = cdf(n, 0.5)
    outside = int(np.searchsorted(tail, (1 - level) / 2, side="right"))  # ends may each skip this many
    low = values[outside - 1] if outside else 0.0
    high = values[n - outside] if outside else math.inf
    return Score(float((values[(n - 1) // 2] + values[n // 2]) / 2), n, float(low), float(high), "higher", unit)
