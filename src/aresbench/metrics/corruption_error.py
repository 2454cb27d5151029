"""Corruption error: how much a model errs on ImageNet-C, in units of AlexNet's errors (Hendrycks and Dietterich 2019).

Rows come as ``{corruption: {severity: [N] right?}}``, every condition over the same images in the same order. Each
number is a mean over images of one figure per image in which all its conditions meet, so that an interval that
resamples images resamples all 75 conditions of an image together. Shares are in [0, 1]: an mCE of 76.7 is 0.767.

A mean over other conditions is another number: where one of the baseline's corruptions or severities is missing, the
functions refuse, and ``corruption_summary`` leaves the number missing; both name what lacks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from aresbench.core.errors import DataError, did_you_mean
from aresbench.metrics.baselines import CORRUPTIONS, error_baseline
from aresbench.metrics.curve import Curve
from aresbench.metrics.paired import paired_difference
from aresbench.metrics.resample import bootstrap_mean
from aresbench.metrics.score import Better, Floats, Score

Rows = Mapping[str, Mapping[int, ArrayLike]]
"""corruption → severity → [N] bool, right on each image."""

SEVERITIES = (1, 2, 3, 4, 5)


# -- error rates in, plain numbers out ------------------------------------------------------------


def ce_of_errors(
    error: Mapping[str, float | Sequence[float]], baseline: str = "alexnet-50k", clean: float | None = None
) -> dict[str, float]:
    """Corruption error (CE) of each corruption of the baseline, from error rates: the sum of errors over AlexNet's.

    Args:
        error: corruption → error, a share: its mean over severities 1–5, or the five errors.
        baseline: by whose errors they are divided, see ``ERROR_BASELINES``.
        clean: the model's error on clean images, for *relative* CE: how much errors grow, over how much AlexNet's grow.

    Returns:
        corruption → CE, where 1 is AlexNet's (shown as 100).

    Raises:
        DataError: a corruption of the baseline is missing, or has not five severities.
    """
    reference = error_baseline(baseline)
    _refuse([name for name in reference.error if name not in error], error, baseline)
    means = {name: _mean_error(name, error[name]) for name in reference.error}
    if clean is None:
        return {name: means[name] / theirs for name, theirs in reference.error.items()}
    return {name: (means[name] - clean) / (theirs - reference.clean) for name, theirs in reference.error.items()}


def mce_of_errors(
    error: Mapping[str, float | Sequence[float]], baseline: str = "alexnet-50k", clean: float | None = None
) -> float:
    """Mean corruption error (mCE), or with ``clean`` relative mCE, from error rates; AlexNet's own is exactly 1.

    Args: as for ``ce_of_errors``.
    """
    values = ce_of_errors(error, baseline, clean).values()
    return math.fsum(values) / len(values)


def _mean_error(name: str, error: float | Sequence[float]) -> float:
    values = np.atleast_1d(np.asarray(error, dtype=np.float64))
    if values.size not in (1, len(SEVERITIES)):
        raise DataError(f"{name} has errors at {values.size} severities", "give the five errors, or their mean")
    return math.fsum(values) / values.size


# -- rows in, scores out --------------------------------------------------------------------------


def missing_conditions(
    correct: Rows, corruptions: Sequence[str] = CORRUPTIONS, severities: Sequence[int] = SEVERITIES
) -> tuple[str, ...]:
    """The conditions that a mean over ``corruptions`` × ``severities`` needs and that are not there (``fog/3``)."""
    return tuple(f"{c}/{s}" for c in corruptions for s in severities if s not in correct.get(c, {}))


def mean_corruption_accuracy(
    correct: Rows,
    severities: Sequence[int] = SEVERITIES,
    corruptions: Sequence[str] = CORRUPTIONS,
    level: float = 0.95,
    seed: int = 0,
) -> Score:
    """Mean accuracy over corruptions and severities, each counting alike (what RobustBench and CIFAR-10-C report).

    Args:
        correct: see ``Rows``.
        severities: ``(5,)`` for the mean at severity 5 alone, another number that is in use.
        corruptions: the fifteen, unless the number is named otherwise.
        level: confidence; images are resampled.
        seed: of the resampling.

    Raises:
        DataError: conditions are missing.
    """
    wrong = _wrong(correct, corruptions, severities)
    # Divide whole counts, so that images with as many right conditions are equal and resampled together.
    right = (len(severities) * len(corruptions) - wrong.sum(axis=1)) / (len(severities) * len(corruptions))
    return bootstrap_mean(right, (0.0, 1.0), level=level, seed=seed)


def image_corruption_errors(correct: Rows, baseline: str = "alexnet-50k", clean: ArrayLike | None = None) -> Floats:
    """[N] each image's part of mCE, or with ``clean`` of relative mCE; their mean is the number. For paired tests.

    Args:
        correct: see ``Rows``.
        baseline: see ``ERROR_BASELINES``; the mean runs over its corruptions.
        clean: [N] bool, right on the clean image, for relative mCE.

    Raises:
        DataError: conditions are missing.
    """
    weights, below = _weights(baseline, clean is not None)
    counts = _wrong(correct, tuple(error_baseline(baseline).error))
    low, high = _bounds(weights, below)
    return np.clip((counts - below * _clean_errors(clean, len(counts))) @ weights, low, high)


def mean_corruption_error(
    correct: Rows,
    baseline: str = "alexnet-50k",
    clean: ArrayLike | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Score:
    """mCE: the mean over the fifteen corruptions of CE, errors summed over severities and divided by AlexNet's.

    With ``clean``, relative mCE: the growth of errors from clean images, over AlexNet's growth. The interval is of the
    model's images; AlexNet's errors are constants.

    Args:
        correct: see ``Rows``; corruptions that are not the baseline's (the extras) take no part.
        baseline: by whose errors they are divided; part of the number's name.
        clean: [N] bool, right on the clean image, for relative mCE.
        level: confidence.
        seed: of the resampling.

    Returns:
        1 is AlexNet's (shown as 100 %); lower is better.

    Raises:
        DataError: conditions are missing.
    """
    bounds = _bounds(*_weights(baseline, clean is not None))
    parts = image_corruption_errors(correct, baseline, clean)
    return bootstrap_mean(parts, bounds, level=level, seed=seed, better="lower")


def mce_difference(
    first: Rows,
    second: Rows,
    baseline: str = "alexnet-50k",
    clean: tuple[ArrayLike, ArrayLike] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Score:
    """mCE of the first model less that of the second, paired by image: below 0 the first is better.

    Args:
        first: see ``Rows``.
        second: of the other model, over the same images in the same order.
        baseline: see ``ERROR_BASELINES``.
        clean: both models' verdicts on the clean images, for the difference of relative mCE.
        level: confidence.
        seed: of the resampling.

    Raises:
        DataError: conditions are missing.
    """
    ours, theirs = clean or (None, None)
    low, high = _bounds(*_weights(baseline, clean is not None))
    a, b = image_corruption_errors(first, baseline, ours), image_corruption_errors(second, baseline, theirs)
    difference = paired_difference(a, b, high - low, level=level, seed=seed)
    return Score(difference.value, difference.n, difference.low, difference.high, "lower")


def corruption_errors(
    correct: Rows,
    baseline: str = "alexnet-50k",
    clean: ArrayLike | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    """CE, or with ``clean`` relative CE, of each corruption of the baseline that has all five severities.

    Args: as for ``mean_corruption_error``.
    """
    reference = error_baseline(baseline)
    scores = {}
    for name, theirs in reference.error.items():
        if missing_conditions(correct, (name,)):
            continue
        counts = _wrong(correct, (name,))[:, 0]
        below, better = (0.0, 0.0) if clean is None else (len(SEVERITIES), reference.clean)
        weight = 1 / (len(SEVERITIES) * (theirs - better))
        parts = (counts - below * _clean_errors(clean, len(counts))[:, 0]) * weight
        bounds = (-below * weight, len(SEVERITIES) * weight)
        scores[name] = bootstrap_mean(np.clip(parts, *bounds), bounds, level=level, seed=seed, better="lower")
    return scores


def severity_means(
    correct: Rows,
    clean: ArrayLike | None = None,
    corruptions: Sequence[str] = CORRUPTIONS,
    level: float = 0.95,
    seed: int = 0,
) -> Curve:
    """Mean accuracy over the corruptions at each severity, from the clean image (0) where it is given.

    One corruption's curve is ``severity_curve``; those of ``UNORDERED`` may rise. The simultaneous band gives each
    point its share of the error (Bonferroni).

    Args:
        correct: see ``Rows``.
        clean: [N] bool, right on the clean image.
        corruptions: over which the mean runs, each severity over all of them.
        level: confidence of both bands; images are resampled.
        seed: of the resampling.

    Raises:
        DataError: conditions are missing.
    """
    _refuse(missing_conditions(correct, corruptions), correct)
    shares = {s: 1 - _wrong(correct, corruptions, (s,)).sum(axis=1) / len(corruptions) for s in SEVERITIES}
    if clean is not None:
        shares = {0: np.asarray(clean, dtype=np.float64), **shares}
    together = 1 - (1 - level) / len(shares)
    points = [bootstrap_mean(values, (0.0, 1.0), level=level, seed=seed) for values in shares.values()]
    bands = [bootstrap_mean(values, (0.0, 1.0), level=together, seed=seed) for values in shares.values()]
    return Curve(
        np.array(list(shares), dtype=np.float64),
        np.array([point.value for point in points]),
        np.array([point.low for point in points]),
        np.array([point.high for point in points]),
        np.array([band.low for band in bands]),
        np.array([band.high for band in bands]),
        np.array([point.n for point in points], dtype=np.int64),
    )


@dataclass(frozen=True)
class CorruptionSummary:
    """All numbers of a model's corruption rows under one baseline, and what lacks for those that are missing.

    Args:
        baseline: by whose errors they are divided; to be named with every CE.
        accuracy: mean corruption accuracy over the baseline's corruptions.
        mce: mean corruption error.
        relative_mce: missing also where the clean verdicts were not given.
        ce: corruption → CE, of those with all five severities.
        relative_ce: corruption → relative CE, likewise.
        lacking: the conditions (``fog/3``) for want of which the means are missing.
    """

    baseline: str
    accuracy: Score
    mce: Score
    relative_mce: Score
    ce: dict[str, Score]
    relative_ce: dict[str, Score]
    lacking: tuple[str, ...]


def corruption_summary(
    correct: Rows,
    clean: ArrayLike | None = None,
    baseline: str = "alexnet-50k",
    level: float = 0.95,
    seed: int = 0,
) -> CorruptionSummary:
    """Every number of this file that the rows allow; for a report.

    Args: as for ``mean_corruption_error``.
    """
    corruptions = tuple(error_baseline(baseline).error)
    lacking = missing_conditions(correct, corruptions)
    relative = clean is not None
    settings = (level, seed)
    return CorruptionSummary(
        baseline,
        _missing() if lacking else mean_corruption_accuracy(correct, SEVERITIES, corruptions, *settings),
        _missing("lower") if lacking else mean_corruption_error(correct, baseline, None, *settings),
        _missing("lower") if lacking or not relative else mean_corruption_error(correct, baseline, clean, *settings),
        corruption_errors(correct, baseline, None, *settings),
        corruption_errors(correct, baseline, clean, *settings) if relative else {},
        lacking,
    )


def _missing(better: Better = "higher") -> Score:
    return Score(math.nan, 0, 0.0, math.inf if better == "lower" else 1.0, better)


def _wrong(correct: Rows, corruptions: Sequence[str], severities: Sequence[int] = SEVERITIES) -> Floats:
    """[N, corruptions] at how many severities each image is wrong.

    Raises:
        DataError: conditions are missing.
        ValueError: conditions differ in their number of images.
    """
    _refuse(missing_conditions(correct, corruptions, severities), correct)
    columns = [[np.asarray(correct[name][severity], dtype=bool) for severity in severities] for name in corruptions]
    if len({array.shape for column in columns for array in column}) != 1:
        raise ValueError("every corruption and severity must be given on the same images")
    return np.stack([np.sum(np.logical_not(column), axis=0, dtype=np.float64) for column in columns], axis=1)


def _weights(baseline: str, relative: bool) -> tuple[Floats, float]:
    """[corruptions] what one wrong severity adds to an image's part, and how many of them a clean error takes off."""
    reference = error_baseline(baseline)
    theirs = np.array(list(reference.error.values())) - (reference.clean if relative else 0.0)
    return 1 / (len(SEVERITIES) * len(theirs) * theirs), float(len(SEVERITIES)) if relative else 0.0


def _bounds(weights: Floats, below: float) -> tuple[float, float]:
    """Smallest and largest part of an image: right everywhere but on the clean image, wrong everywhere but there."""
    return -below * float(weights.sum()), len(SEVERITIES) * float(weights.sum())


def _clean_errors(clean: ArrayLike | None, n: int) -> Floats:
    """[N, 1] wrong on the clean image; zeros where that takes no part."""
    if clean is None:
        return np.zeros((n, 1))
    right = np.asarray(clean, dtype=bool)
    if right.shape != (n,):
        raise ValueError(f"{right.size} clean verdicts for {n} images under corruptions")
    return np.logical_not(right).astype(np.float64)[:, None]


def _refuse(lacking: Sequence[str], given: Mapping[str, object], baseline: str = "") -> None:
    if not lacking:
        return
    few = ", ".join(lacking[:6]) + (f" and {len(lacking) - 6} more" if len(lacking) > 6 else "")
    name = lacking[0].partition("/")[0]
    hint = did_you_mean(name, [word for word in given if word not in CORRUPTIONS]) if name not in given else ""
    raise DataError(
        f"a mean over corruptions{f' against {baseline}' if baseline else ''} lacks {few}",
        hint or "evaluate what lacks: a mean over other conditions is another number",
    )
