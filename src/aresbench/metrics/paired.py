"""Two models, or two attacks, on the same images: is one better, and by how much?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aresbench.metrics.binomial import cdf, log_factorials
from aresbench.metrics.resample import bootstrap_mean
from aresbench.metrics.score import Floats, Score

LARGEST_EXACT = 4000
"""Images up to which ``non_inferiority`` sums all outcomes (a few seconds there)."""


@dataclass(frozen=True)
class McNemar:
    """How often two verdicts differ on the same images.

    Args:
        only_first: images where only the first is true.
        only_second: images where only the second is true.
        n: all images.
        p_value: exact, two-sided: how often a fair coin divides the differing images at least as unevenly.
    """

    only_first: int
    only_second: int
    n: int
    p_value: float


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Exact test whether two verdicts are true equally often (McNemar 1947), on the same images.

    Args:
        first: [N] bool, e.g. which images the first model gets right.
        second: [N] bool, the same images in the same order.
    """
    only_first, only_second, n = _discordant(first, second)
    differ = only_first + only_second
    p_value = min(1.0, 2 * float(cdf(differ, 0.5)[min(only_first, only_second)]))
    return McNemar(only_first, only_second, n, p_value)


def paired_difference(
    first: ArrayLike, second: ArrayLike, largest: float = 1.0, *, level: float = 0.95, seed: int = 0, unit: str = "%"
) -> Score:
    """Mean of first − second over the same images, with an interval that resamples images in pairs.

    Args:
        first: [N] bools or numbers, e.g. right or wrong, or ``image_areas``.
        second: [N] the same images in the same order.
        largest: the largest difference one image can make (1 for shares).
        level: confidence.
        seed: of the resampling.
        unit: see ``Score``.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    _check_pairs(a, b)
    forth = bootstrap_mean(a - b, (-largest, largest), level=level, seed=seed, unit=unit)
    back = bootstrap_mean(b - a, (-largest, largest), level=level, seed=seed, unit=unit)
    # On few images the resampled means lie on a coarse lattice: the wider end of both ways keeps the sides alike.
    return replace(forth, low=min(forth.low, -back.high), high=max(forth.high, -back.low))


@dataclass(frozen=True)
class NonInferiority:
    """What the images say about "ours is worse than the reference by more than a margin".

    Args:
        only_ours: images where only ours succeeded.
        only_reference: images where only the reference did.
        n: all images.
        margin: the difference that would matter, as a share.
        p_not_inferior: p-value of the hypothesis that ours IS worse by the margin or more. Small:
            ours is proven not to be. Few images cannot prove it, however well ours does: see
            ``images_to_prove``.
        p_inferior: p-value of the hypothesis that ours is worse by the margin at most. Small: ours
            is proven worse by more than the margin.
    """

    only_ours: int
    only_reference: int
    n: int
    margin: float
    p_not_inferior: float
    p_inferior: float


def non_inferiority(ours: ArrayLike, reference: ArrayLike, margin: float = 0.01) -> NonInferiority:
    """Exact one-sided paired tests whether ours succeeds less often than a reference by more than a margin.

    McNemar's coin flip is exact only for margin 0. For a margin, this is the exact *unconditional*
    test: outcomes (only ours, only reference) are ordered by the signed root of the likelihood ratio
    at "worse by exactly the margin", and the p-value is the largest probability, over all rates of
    disagreement, of an outcome at least as extreme (the principle of Barnard 1945; Lloyd and Moldovan
    2008 for pairs). The likelihood ratio, unlike the difference itself, lets agreement count as evidence.

    Args:
        ours: [N] bool, success on each image (for two attacks: broken).
        reference: [N] bool, the same images in the same order.
        margin: share in (0, 1); 0.01 is one point.

    Raises:
        ValueError: lengths differ, no images, or more than ``LARGEST_EXACT``.
    """
    only_ours, only_reference, n = _discordant(ours, reference)
    if not 0 < margin < 1:
        raise ValueError(f"the margin must lie in (0, 1), got {margin}")
    if not 0 < n <= LARGEST_EXACT:
        raise ValueError(f"the exact test takes 1 to {LARGEST_EXACT} images, got {n}; use paired_difference")
    return NonInferiority(
        only_ours,
        only_reference,
        n,
        margin,
        p_not_inferior=_exact_p(only_ours, only_reference, n, -margin),
        p_inferior=_exact_p(only_reference, only_ours, n, margin),
    )


def images_to_prove(margin: float = 0.01, alpha: float = 0.01) -> int:
    """Fewest images on which perfect agreement proves non-inferiority: (1 − margin)^n ≤ alpha.

    459 for one point at alpha 0.01; with fewer, ours must do better than the reference to prove it.
    """
    return math.ceil(math.log(alpha) / math.log1p(-margin))


def _exact_p(more: int, less: int, n: int, delta: float) -> float:
    """p-value of the hypothesis P(only first) − P(only second) ≤ delta, given ``more`` and ``less``."""
    first, second = np.divmod(np.arange((n + 1) ** 2), n + 1)
    inside = first + second <= n
    first, second = first[inside], second[inside]
    observed = _signed_root(np.array([more]), np.array([less]), n, delta)[0]
    extreme = _signed_root(first, second, n, delta) >= observed - 1e-9
    first, second = first[extreme], second[extreme]
    logs = log_factorials(n)
    ways = logs[n] - logs[first] - logs[second] - logs[n - first - second]
    # At the edge of the hypothesis P(only first) = q + delta and P(only second) = q. The probability
    # is smooth in q; the grid is denser where disagreement is rare and it changes fastest.
    lowest, highest = max(0.0, -delta), (1 - delta) / 2
    grid = lowest + (highest - lowest) * np.linspace(0, 1, 201) ** 3
    return min(1.0, max(_probability(ways, first, second, n, q + delta, q) for q in grid))


def _probability(
    ways: Floats, first: NDArray[np.int64], second: NDArray[np.int64], n: int, p1: float, p2: float
) -> float:
    return float(np.exp(ways + _log_likelihood(first, second, n, p1, p2)).sum())


def _log_likelihood(first: ArrayLike, second: ArrayLike, n: int, p1: ArrayLike, p2: ArrayLike) -> Floats:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return _xlogy(a, p1) + _xlogy(b, p2) + _xlogy(n - a - b, 1.0 - np.asarray(p1) - np.asarray(p2))


def _xlogy(x: Floats, y: ArrayLike) -> Floats:
    """x log y with 0 log 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x == 0, 0.0, x * np.log(np.maximum(y, 0.0)))


def _signed_root(first: NDArray[np.int64], second: NDArray[np.int64], n: int, delta: float) -> Floats:
    """Signed root of the likelihood ratio against P(only first) − P(only second) = delta; large: above it."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    # The likeliest rates with p1 = q + delta, p2 = q: 2n q² − linear q − b delta (1 − delta) = 0.
    linear = (a + b) * (1 - delta) - 2 * delta * (n - a)
    root = np.sqrt(np.maximum(linear**2 + 8 * n * b * delta * (1 - delta), 0.0))
    q = np.clip((linear + root) / (4 * n), max(0.0, -delta), (1 - delta) / 2)
    ratio = _log_likelihood(a, b, n, a / n, b / n) - _log_likelihood(a, b, n, q + delta, q)
    return np.sign(a - b - n * delta) * np.sqrt(np.maximum(2 * ratio, 0.0))


def _discordant(first: ArrayLike, second: ArrayLike) -> tuple[int, int, int]:
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    _check_pairs(a, b)
    return int((a & ~b).sum()), int((b & ~a).sum()), a.size


def _check_pairs(a: NDArray[np.generic], b: NDArray[np.generic]) -> None:
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"pairs need the same images in the same order; got shapes {a.shape} and {b.shape}")
