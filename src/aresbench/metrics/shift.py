"""Natural shifts: does a model lose less on a shifted dataset than others of its accuracy do?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aresbench.metrics.baselines import Line, stretched, unstretched
from aresbench.metrics.paired import paired_difference
from aresbench.metrics.resample import RESAMPLES
from aresbench.metrics.score import Floats, Score, normal_quantile

INSIDE = "inside-the-scatter"
"""Flag: no farther off the line than ordinary models lie by themselves; no finding."""
NO_BAND = "scatter-not-known"
"""Flag: the baseline's scatter was not published, so nothing can be said about how unusual the number is."""
BELOW = "below-the-baseline-models"
"""Flag: the model's parent accuracy lies below that of every model of the baseline; the line is a guess there."""


def effective_robustness(
    shifted: ArrayLike, parent: ArrayLike, line: Line, *, paired: bool = False, level: float = 0.95, seed: int = 0
) -> Score:
    """ρ = accuracy on the shift − what the line expects of the parent accuracy (Taori et al. 2020).

    Above 0: the model loses less than others of its accuracy. The interval accounts for both accuracies (images are
    resampled), not for the line. Read it with the flags: a number within the scatter of the baseline's own models
    is no finding, however narrow its interval.

    Args:
        shifted: [M] bool, right on each image of the shift.
        parent: [N] bool, right on each image of the line's parent (for ImageNet-A and -R: ImageNet's photographs of
            their 200 classes, under the same mask).
        line: the named baseline: ``line("timm-2026-in1k", "imagenet-r")``, or of ``refit``.
        paired: are the images the same, in the same order (ImageNet-C, Stylized, ReaL)? Then they are resampled in
            pairs, which narrows the interval.
        level: confidence; also the share of ordinary models inside the scatter (normal distances).
        seed: of the resampling.

    Returns:
        a difference of shares, n the images of the shift; flags ``INSIDE``, ``NO_BAND``, ``BELOW``.

    Raises:
        ValueError: paired images that differ in number.
    """
    ours, theirs = np.asarray(shifted, dtype=bool), np.asarray(parent, dtype=bool)
    if paired and ours.shape != theirs.shape:
        raise ValueError(f"{ours.size} images of the shift cannot be paired with {theirs.size} of its parent")
    if not ours.size or not theirs.size:
        return Score(math.nan, 0, -1.0, 1.0)
    value = float(ours.mean() - line.expected(theirs.mean()))
    draws = _paired(ours, theirs, seed) if paired else _independent(ours, theirs, seed)
    resampled = draws[0] - line.expected(draws[1])
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    flags = []
    if line.residual_sd is None:
        flags.append(NO_BAND)
    elif abs(value) <= normal_quantile(level) * line.residual_sd:
        flags.append(INSIDE)
    if theirs.mean() < line.lowest:
        flags.append(BELOW)
    return Score(value, ours.size, min(float(low), value), max(float(high), value), flags=tuple(flags))


def relative_robustness(intervention: ArrayLike, twin: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Score:
    """τ = accuracy on the shift of a model with an intervention, less that of its twin without (Taori et al. 2020).

    An intervention helps where both τ and effective robustness are above 0: τ alone also rises with plain accuracy.

    Args:
        intervention: [N] bool, right on each image of the shift.
        twin: [N] bool, of the same model trained without the intervention, on the same images in the same order.
        level: confidence; images are resampled in pairs.
        seed: of the resampling.
    """
    return paired_difference(intervention, twin, level=level, seed=seed)


@dataclass(frozen=True)
class Refit:
    """A line through models of one's own, and how far it can be trusted.

    Args:
        line: with its R² and residual standard deviation; a baseline like the named ones.
        slope: its interval, models resampled.
        intercept: likewise.
        left_out: models at accuracy 0 or 1 on either axis, which have no place on the stretched scale.
    """

    line: Line
    slope: tuple[float, float]
    intercept: tuple[float, float]
    left_out: int


def refit(
    parent: ArrayLike,
    shifted: ArrayLike,
    link: Literal["logit", "probit"] = "logit",
    *,
    name: str = "refit",
    shift: str = "",
    parent_name: str = "",
    level: float = 0.95,
    seed: int = 0,
) -> Refit:
    """Fit the line of ordinary models to one's own: least squares on the logit or probit scale.

    The models should be ordinary ones, trained alike in kind, over a range of accuracies; those whose effective
    robustness is in question should not be among them.

    Args:
        parent: [M] accuracy of each model on the parent, shares.
        shifted: [M] accuracy of each on the shift, the same models in the same order.
        link: the stretched scale.
        name: under which numbers against the line are quoted.
        shift: the shifted dataset.
        parent_name: the parent dataset.
        level: confidence of the intervals.
        seed: of the resampling of models.

    Raises:
        ValueError: shares outside [0, 1], lengths that differ, fewer than three models, or all of one accuracy.
    """
    x, y = np.asarray(parent, dtype=np.float64), np.asarray(shifted, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"{x.size} accuracies on the parent but {y.size} on the shift")
    if not ((x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)).all():
        raise ValueError("accuracies are shares in [0, 1]; divide percentages by 100")
    inside = (x > 0) & (x < 1) & (y > 0) & (y < 1)
    x, y = x[inside], y[inside]
    if len(np.unique(x)) < 3:
        raise ValueError(f"a line wants three models of different accuracy between 0 and 1, got {len(np.unique(x))}")
    u, v = stretched(x, link), stretched(y, link)
    slope, intercept = (float(part[0]) for part in _least_squares(u[None], v[None]))
    residual = v - slope * u - intercept
    total = float(((v - v.mean()) ** 2).sum())
    line = Line(
        name,
        shift,
        parent_name,
        slope,
        intercept,
        link,
        1 - float((residual**2).sum()) / total if total else math.nan,
        float(np.std(y - unstretched(slope * u + intercept, link))),
        len(x),
        float(x.min()),
        "fitted to models of one's own",
    )
    places = np.random.default_rng(seed).integers(0, len(x), size=(RESAMPLES, len(x)))
    places = places[np.ptp(u[places], axis=1) > 0]  # a draw of one model over and over has no line
    ends = [np.quantile(part, [(1 - level) / 2, (1 + level) / 2]) for part in _least_squares(u[places], v[places])]
    (a, b), (c, d) = ((float(low), float(high)) for low, high in ends)
    return Refit(line, (a, b), (c, d), int((~inside).sum()))


def _least_squares(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """[R] slopes and intercepts of the lines through each row of points."""
    du, dv = u - u.mean(axis=1, keepdims=True), v - v.mean(axis=1, keepdims=True)
    slope = (du * dv).sum(axis=1) / (du**2).sum(axis=1)
    return slope, v.mean(axis=1) - slope * u.mean(axis=1)


def _independent(shifted: NDArray[np.bool_], parent: NDArray[np.bool_], seed: int) -> tuple[Floats, Floats]:
    """Resampled accuracies of two unrelated sets of images; one right and one wrong image join each pool."""
    rng = np.random.default_rng(seed)
    return tuple(rng.binomial(a.size, (a.sum() + 1) / (a.size + 2), RESAMPLES) / a.size for a in (shifted, parent))  # type: ignore[return-value]


def _paired(shifted: NDArray[np.bool_], parent: NDArray[np.bool_], seed: int) -> tuple[Floats, Floats]:
    """Resampled accuracies of the same images under two conditions; half an image joins each of the four outcomes."""
    kinds = np.bincount(2 * shifted + parent, minlength=4) + 0.5
    drawn = np.random.default_rng(seed).multinomial(shifted.size, kinds / kinds.sum(), size=RESAMPLES) / shifted.size
    return drawn[:, 2] + drawn[:, 3], drawn[:, 1] + drawn[:, 3]
