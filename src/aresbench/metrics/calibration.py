"""Calibration: is a model right as often as it is sure?

Confidence is the softmax of the predicted class, of the outputs that took part in the choice (after a mask).
Calibration errors count chance as error: a perfectly calibrated model has a small one on few images, the larger the
fewer the images in a bin. The values here are the estimators as published, so that they can be compared; their
intervals take the part of chance off, and so reach farther down than up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aresbench.metrics.score import Better, Floats, Score, normal_quantile, wilson

BINS = 15
"""Equal-width bins of ``expected_calibration_error``."""
PER_BIN = 100
"""Images in a bin of ``rms_calibration_error``."""
RESAMPLES = 1000
_CELLS = 100_000  # numbers drawn at once: what fits into the fast part of the memory


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bins: int = BINS, level: float = 0.95, seed: int = 0
) -> Score:
    """ECE: the mean gap between confidence and accuracy, over bins of equal width (Guo et al. 2017).

    Bin b holds confidences in ((b − 1)/bins, b/bins]; empty bins count nothing.

    Args:
        confidence: [N] in [0, 1].
        correct: [N] bool.
        bins: number of bins; the value depends on it, so name it if it is not 15.
        level: confidence of the interval.
        seed: of the resampling.

    Raises:
        ValueError: lengths differ, or a confidence is not in [0, 1].
    """
    sure, right = _checked(confidence, correct)
    n = sure.size
    if n == 0:
        return _nothing("lower")
    order = np.argsort(sure, kind="stable")
    sure, right = sure[order], right[order]
    place = np.digitize(sure, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    gap = right - sure
    sums = np.add.reduceat(gap, starts)
    value = float(np.abs(sums).sum() / n)
    # A drawn image stays in its bin, so that drawing it twice is to count its gap twice.
    draws = np.concatenate([np.add.reduceat(gap * times, starts, axis=1) for times in _times_drawn(n, seed)])
    errors = np.abs(draws).sum(axis=1) / n
    # The error is at most the true one plus that of the noise alone (the triangle inequality), and chance raises it.
    low = value - float(np.quantile(np.abs(draws - sums).sum(axis=1) / n, (1 + level) / 2))
    high = value + float(np.quantile(errors, (1 + level) / 2) - errors.mean())
    return _score(value, n, low, max(high, value + (1 - value) * _unseen(n, level)))


def rms_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, per_bin: int = PER_BIN, level: float = 0.95, seed: int = 0
) -> Score:
    """RMS calibration error: root of the mean squared gap, over bins of as many images each (Hendrycks et al. 2021).

    Images are sorted by confidence and cut into bins of ``per_bin``; the last bin takes the rest. ImageNet-A's own code
    leaves its last bin, the surest images, out of the sum; here it counts, so that numbers differ a little from it.

    Args:
        confidence: [N] in [0, 1].
        correct: [N] bool.
        per_bin: images in a bin.
        level: confidence of the interval.
        seed: of the resampling.

    Raises:
        ValueError: lengths differ, or a confidence is not in [0, 1].
    """
    sure, right = _checked(confidence, correct)
    n = sure.size
    if n == 0:
        return _nothing("lower")
    order = np.argsort(sure, kind="stable")
    sure, right = sure[order], right[order]
    starts = np.arange(max(1, n // per_bin)) * per_bin
    sizes = np.diff(np.append(starts, n))
    gap = right - sure
    sums = np.add.reduceat(gap, starts)
    square = float((sums**2 / sizes).sum() / n)
    # What chance adds to it: the variance of each bin's mean, by the gaps within the bin.
    chance = float(((np.add.reduceat(gap**2, starts) / sizes - (sums / sizes) ** 2) / n).sum())
    squares = np.concatenate(
        [
            (np.add.reduceat(_repeated(gap, times), starts, axis=1) ** 2 / sizes).sum(axis=1) / n
            for times in _times_drawn(n, seed)
        ]
    )
    half = normal_quantile(level) * float(squares.std())
    value = math.sqrt(square)
    low = math.sqrt(max(0.0, square - chance - half))
    high = math.sqrt(max(square - chance + half, square + (1 - square) * _unseen(n, level)))
    return _score(value, n, low, high)


def aurra(confidence: ArrayLike, correct: ArrayLike, level: float = 0.95, seed: int = 0) -> Score:
    """AURRA: the mean accuracy on the surest images, over all response rates (Hendrycks et al. 2021).

    Images are answered from the surest on; the curve of accuracy over the share answered has this area. A model that
    knows when it is wrong has a larger one. Images of equal confidence count as their mean, whatever their order.

    Args:
        confidence: [N] any score by which images can be sorted.
        correct: [N] bool.
        level: confidence of the interval; images are resampled.
        seed: of the resampling.

    Raises:
        ValueError: lengths differ, or a confidence is NaN.
    """
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if sure.shape != right.shape or np.isnan(sure).any():
        raise ValueError("each image needs a confidence and a verdict")
    n = sure.size
    if n == 0:
        return _nothing("higher")
    _, group, size = np.unique(-sure, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    shares = (np.bincount(group, weights=right) / size)[group][order]
    asked = np.arange(1, n + 1)
    value = float((np.cumsum(shares) / asked).mean())
    means = np.concatenate(
        [(np.cumsum(_repeated(shares, times), axis=1) / asked).mean(axis=1) for times in _times_drawn(n, seed)]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    unseen = _unseen(n, level)
    return Score(value, n, min(float(low), value * (1 - unseen)), max(float(high), value + (1 - value) * unseen))


def _score(value: float, n: int, low: float, high: float) -> Score:
    return Score(value, n, min(max(0.0, low), value), min(max(high, value), 1.0), "lower")


def _unseen(n: int, level: float) -> float:
    """How large a share images unlike all of these may have: matters where all are alike."""
    return wilson(0, n, level)[1]


def _times_drawn(n: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """[R, n] how often each image was drawn when n were drawn with replacement, in several parts."""
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // n)
    for done in range(0, RESAMPLES, step):
        r = min(step, RESAMPLES - done)
        key = rng.integers(0, n, size=(r, n)) + n * np.arange(r)[:, None]
        yield np.bincount(key.ravel(), minlength=r * n).reshape(r, n)


def _repeated(values: Floats, times: NDArray[np.int64]) -> Floats:
    """[R, n] the drawn images' values, in the order of ``values``."""
    return np.repeat(np.tile(values, len(times)), times.ravel()).reshape(times.shape)


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[Floats, Floats]:
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if sure.shape != right.shape:
        raise ValueError(f"{sure.size} confidences but {right.size} verdicts")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("confidences are probabilities in [0, 1]; take the softmax of logits")
    return sure, right


def _nothing(better: Better) -> Score:
    return Score(math.nan, 0, 0.0, 1.0, better)
