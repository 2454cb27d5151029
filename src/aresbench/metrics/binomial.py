"""Exact binomial probabilities in numpy."""

from __future__ import annotations

import math

import numpy as np

from aresbench.metrics.score import Floats


def log_factorials(n: int) -> Floats:
    """log k! for k = 0 … n."""
    return np.array([math.lgamma(k + 1) for k in range(n + 1)])


def pmf(n: int, p: float) -> Floats:
    """[n + 1] probabilities of 0 … n successes in n trials."""
    k = np.arange(n + 1)
    if p in (0.0, 1.0):
        return (k == n * p).astype(np.float64)
    logs = log_factorials(n)
    log_pmf: Floats = logs[n] - logs - logs[::-1] + k * math.log(p) + (n - k) * math.log1p(-p)
    return np.exp(log_pmf)


def cdf(n: int, p: float) -> Floats:
    """[n + 1] probabilities of at most 0 … n successes in n trials."""
    return np.minimum(np.cumsum(pmf(n, p)), 1.0)
