"""Like whom does a model err? Error consistency of two classifiers, and shape against texture."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from aresbench.metrics.resample import RESAMPLES
from aresbench.metrics.score import Floats, Score, share


def error_consistency(first: ArrayLike, second: ArrayLike, level: float = 0.95, seed: int = 0) -> Score:
    """κ: do two classifiers err on the same images more often than their accuracies alone would make them?

    (observed − expected) / (1 − expected), where observed is the share of images on which both are right or both
    wrong, and expected p₁p₂ + (1 − p₁)(1 − p₂) that of two independent classifiers (Geirhos et al. 2020). 1: they err
    on the same images; 0: as independent ones; below 0: on other images.

    Args:
        first: [N] bool, right on each image.
        second: [N] bool, another model or a person, on the same images in the same order.
        level: confidence; images are resampled.
        seed: of the resampling.

    Returns:
        κ in [−1, 1]; missing where both are right everywhere or both wrong everywhere.

    Raises:
        ValueError: the numbers of images differ.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} verdicts cannot be paired with {b.size}: give the same images in the same order")
    if not a.size:
        return Score(math.nan, 0, -1.0, 1.0, unit="")
    counts = np.bincount(2 * a + b, minlength=4)
    value = float(_kappa(counts[None] / a.size)[0])
    # Half an image joins each of the four outcomes: few images that agree do not prove that all do.
    pool = (counts + 0.5) / (a.size + 2)
    drawn = np.random.default_rng(seed).multinomial(a.size, pool, size=RESAMPLES) / a.size
    low, high = np.nanquantile(_kappa(drawn), [(1 - level) / 2, (1 + level) / 2])
    if math.isnan(value):
        return Score(value, a.size, -1.0, 1.0, unit="")
    return Score(value, a.size, min(float(low), value), max(float(high), value), unit="")


def _kappa(shares: Floats) -> Floats:
    """κ of [R, 4] shares: both wrong, only second right, only first right, both right; NaN where nothing differs."""
    p, q = shares[:, 2] + shares[:, 3], shares[:, 1] + shares[:, 3]
    room = p * (1 - q) + q * (1 - p)  # 1 − expected
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = np.clip(1 - (shares[:, 1] + shares[:, 2]) / room, -1.0, 1.0)
    return np.where(room > 0, kappa, np.nan)


def shape_bias(decision: ArrayLike, shape: ArrayLike, texture: ArrayLike, level: float = 0.95) -> Score:
    """Of the decisions for an image's shape or its texture, the share for its shape (Geirhos et al. 2019).

    Decisions for a third class take no part, nor do images whose shape and texture are of the same class.

    Args:
        decision: [N] the class chosen for each cue-conflict image.
        shape: [N] the class of its outline.
        texture: [N] the class of its texture.
        level: confidence of Wilson's interval.

    Returns:
        a share; n is the number of decisions for either. ``share(shape_decisions, shape_decisions +
        texture_decisions)`` gives the same from counts.

    Raises:
        ValueError: the numbers of images differ.
    """
    chosen, outline, surface = (np.asarray(values) for values in (decision, shape, texture))
    if not chosen.shape == outline.shape == surface.shape:
        raise ValueError("decisions, shapes and textures must be given on the same images")
    conflict = outline != surface
    by_shape = int((conflict & (chosen == outline)).sum())
    by_texture = int((conflict & (chosen == surface)).sum())
    return share(by_shape, by_shape + by_texture, level=level)
