"""Curves: accuracy over the budget, the attack's steps or queries, and the severity, with their bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aresbench.metrics.bands import clopper_pearson, simultaneous_band
from aresbench.metrics.budgets import Size, as_breaking, as_float
from aresbench.metrics.resample import bootstrap_mean
from aresbench.metrics.score import Floats, Score, wilson_band


@dataclass(frozen=True, eq=False)
class Curve:
    """A share in [0, 1] at each x, with bands. All arrays have one entry per point.

    Args:
        x: budget in [0,1] units, steps, queries, or severity.
        value: share of images still right (of a curve of attack success: share of right images broken).
        low: lower end of the pointwise (Wilson) interval: right for one point looked at alone.
        high: upper end.
        band_low: lower end of the simultaneous band: holds the whole true curve at once.
        band_high: upper end.
        n: images behind each point (int64).
    """

    x: Floats
    value: Floats
    low: Floats
    high: Floats
    band_low: Floats
    band_high: Floats
    n: NDArray[np.int64]


def survival_curve(breaking: ArrayLike, rungs: Sequence[Size], level: float = 0.95, *, success: bool = False) -> Curve:
    """Robust accuracy over the budget: the share of images whose breaking budget exceeds it.

    Falls or stays level by construction. The first point is x = 0, clean accuracy. The simultaneous
    band is ``simultaneous_band``'s.

    Args:
        breaking: [N] breaking budgets (0 clean error, inf resisted every rung).
        rungs: the ladder, rising; 0 is put in front if it is missing.
        level: confidence of both bands.
        success: the attack's success rate instead: the share of the images right at first that broke. It
            rises or stays level, from 0.
    """
    values = as_breaking(breaking)
    return _survival(values, _grid(rungs), level, values > 0 if success else None)


def step_curve(
    first_step: ArrayLike, correct: ArrayLike, steps: int, level: float = 0.95, *, success: bool = False
) -> Curve:
    """Accuracy after step t of a run of ``steps`` steps, at one budget, t = 0 … steps.

    It describes that run: a run planned for t steps has another schedule and may do better at t.

    Args:
        first_step: [N] the step at which each image first broke in a cold run at that budget, NaN
            where it did not (or was never attacked, being wrong from the start).
        correct: [N] bool, right before the attack. Images that are wrong are wrong at t = 0.
        steps: length of the run.
        level: confidence of both bands.
        success: the attack's success rate instead, among the images that were right.
    """
    return query_curve(first_step, correct, range(steps + 1), level, success=success)


def query_curve(
    first_query: ArrayLike,
    correct: ArrayLike,
    queries: Sequence[int],
    level: float = 0.95,
    *,
    success: bool = False,
) -> Curve:
    """Accuracy after q queries of a run, at one budget.

    Args:
        first_query: [N] the query at which each image first broke in a cold run at that budget, NaN
            where it did not.
        correct: [N] bool, right before the attack.
        queries: rising numbers of queries; 0 is put in front if it is missing.
        level: confidence of both bands.
        success: the attack's success rate instead, among the images that were right.
    """
    first = np.asarray(first_query, dtype=np.float64)
    right = np.asarray(correct, dtype=bool)
    if first.shape != right.shape:
        raise ValueError(f"{first.size} first breaks but {right.size} clean verdicts")
    # A break at the very start (step 0) is still a break of an image that was right: x = 0 is the
    # clean accuracy less whatever the starting point already broke.
    wrong_from = np.where(right, np.where(np.isnan(first), np.inf, first), -1.0)
    return _survival(wrong_from, _grid(queries), level, right if success else None)


def earliest(first: Sequence[ArrayLike]) -> Floats:
    """Each image's first break by any of several attacks that run side by side: the worst case after t steps of each.

    Args:
        first: one [N] array per attack, over the same images in the same order; NaN where it did not break one.
    """
    if len({np.shape(values) for values in first}) != 1:
        raise ValueError("every attack must be given on the same images, and there must be one")
    return np.asarray(np.fmin.reduce([np.asarray(values, dtype=np.float64) for values in first]))


def severity_curve(correct: Mapping[int, ArrayLike], level: float = 0.95) -> Curve:
    """Accuracy over the severity of a corruption. Need not fall: harder doses may happen to be easier.

    The simultaneous band is of exact intervals with Bonferroni's rule: each point gets its share of the error.

    Args:
        correct: severity → [N] bool; 0 for the clean images, if wanted.
        level: confidence of both bands.
    """
    x = sorted(correct)
    arrays = [np.asarray(correct[severity], dtype=bool) for severity in x]
    k = np.array([array.sum() for array in arrays], dtype=np.int64)
    n = np.array([array.size for array in arrays], dtype=np.int64)
    low, high = wilson_band(k, n, level)
    band_low, band_high = clopper_pearson(k, n, 1 - (1 - level) / max(len(x), 1))
    value = np.where(n > 0, k / np.maximum(n, 1), np.nan)
    return Curve(np.array(x, dtype=np.float64), value, low, high, band_low, band_high, n)


def curve_area(breaking: ArrayLike, rungs: Sequence[Size], level: float = 0.95, seed: int = 0) -> Score:
    """Area under the robustness curve over the area of a perfect one: the mean robust accuracy of the ladder.

    Between rungs the curve is joined by straight lines (the trapezoid rule), which makes the area a
    mean over images: each gives the share of the ladder below the middle of its last gap. The interval
    resamples images.

    Args:
        breaking: [N] breaking budgets (0 clean error, inf resisted every rung).
        rungs: the ladder, rising.
        level: confidence.
        seed: of the resampling.
    """
    return bootstrap_mean(image_areas(breaking, rungs), (0.0, 1.0), level=level, seed=seed)


def image_areas(breaking: ArrayLike, rungs: Sequence[Size]) -> Floats:
    """[N] each image's share of the area under the curve; their mean is ``curve_area``. For paired tests.

    Args: as for ``curve_area``.
    """
    values = as_breaking(breaking)
    x = _grid(rungs)
    if len(x) < 2:
        raise ValueError("an area needs a rung above 0")
    alive = values[:, None] > x
    areas = ((alive[:, 1:] + alive[:, :-1].astype(np.float64)) / 2 * np.diff(x)).sum(axis=1) / x[-1]
    return np.minimum(areas, 1.0)  # the sum of steps of 0.015 may round to more than their whole


def _grid(points: Sequence[Size]) -> Floats:
    x = np.array([as_float(point) for point in points], dtype=np.float64)
    if x.size == 0 or x[0] > 0:
        x = np.concatenate(([0.0], x))
    if np.isnan(x).any() or np.isinf(x).any() or (np.diff(x) <= 0).any() or x[0] < 0:
        raise ValueError("the points of a curve must be finite, not negative, and rise")
    return x


def _survival(wrong_from: Floats, x: Floats, level: float, attacked: NDArray[np.bool_] | None) -> Curve:
    """Share of images that turn wrong only after x; or, of those ``attacked``, the share that has turned wrong by x."""
    if attacked is not None:
        wrong_from = wrong_from[attacked]
    n = wrong_from.size
    k = (wrong_from[:, None] > x).sum(axis=0)
    if attacked is not None:
        k = n - k
    value = k / n if n else np.full(x.shape, np.nan)
    counts = np.full(x.shape, n, dtype=np.int64)
    return Curve(x, value, *wilson_band(k, n, level), *simultaneous_band(k, n, level), counts)
