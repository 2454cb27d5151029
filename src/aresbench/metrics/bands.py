"""Bands that hold a whole curve at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from aresbench.metrics.score import Floats

# The error that Clopper-Pearson intervals may have each, for all n places of an empirical distribution function to
# hold at once with 95 %, whatever the distribution. By simulation (2,000 to 40,000 samples of n uniform numbers), less
# two of its standard errors. It falls with n: between two entries the larger n's holds.
_EQUAL_ERRORS = (
    (1, 0.0479), (2, 0.0259), (5, 0.01175), (10, 0.00704), (20, 0.00461), (50, 0.00284), (100, 0.00197),
    (200, 0.00157), (500, 0.00112), (1000, 0.00100), (2000, 0.000867), (5000, 0.000708),
    (10_000, 0.00059),
)  # fmt: skip


def clopper_pearson(k: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """The exact interval (Clopper and Pearson 1934) for many shares k / n at once; [0, 1] where n = 0.

    Wilson's covers a little less than it says for some shares, this one never does.

    Args:
        k: successes, any shape.
        n: trials, broadcast against k.
        level: confidence, in (0, 1).
    """
    from scipy.special import betaincinv  # comes with scikit-learn; wanted only where curves are drawn

    k, n = np.broadcast_arrays(np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64))
    tail = (1 - level) / 2
    low = np.where(k > 0, betaincinv(np.maximum(k, 1), np.maximum(n - k, 0) + 1, tail), 0.0)
    high = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - tail), 1.0)
    return low, high


def simultaneous_band(k: ArrayLike, n: int, level: float = 0.95) -> tuple[Floats, Floats]:
    """A band that holds the true survival curve at all its points at once, never less often than it says.

    Exact intervals of one and the same error at each point, so that the band is narrow where the curve is near 0
    or 1 (the band of Dvoretzky, Kiefer and Wolfowitz is as wide there as in the middle). That error is the
    larger of two that are both enough: an equal part for each point (Bonferroni), or the error at which all n
    steps of an empirical distribution function hold at once (equal local levels: Berk and Jones 1979,
    Aldor-Noiman et al. 2013), which many points share.

    Args:
        k: images that still stand at each point, of ``n``.
        n: images.
        level: confidence that the whole curve lies inside.
    """
    points = np.asarray(k)
    error = (1 - level) / max(points.size, 1)
    if level == 0.95:  # the level for which the simulation was made
        error = max(error, next((shared for size, shared in _EQUAL_ERRORS if size >= n), 0.0))
    return clopper_pearson(points, n, 1 - error)
