"""A number that is never lonely: with n, an interval, its direction and reasons to doubt it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Better = Literal["higher", "lower"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """One number about n images, with its interval.

    Args:
        value: the number; NaN where there is nothing to say (shown as ``–``, never as 0).
        n: number of images behind it.
        low: lower end of the interval.
        high: upper end.
        better: the direction that is good for the model.
        unit: ``"%"`` means that value, low and high are shares in [0, 1], *shown* in percent;
            any other text is shown behind the plain number.
        flags: names of reasons to doubt it.
    """

    value: float
    n: int
    low: float
    high: float
    better: Better = "higher"
    unit: str = "%"
    flags: tuple[str, ...] = ()

    @property
    def missing(self) -> bool:
        return math.isnan(self.value)

    def __str__(self) -> str:
        """``71.3 % [66.0, 76.1] n=300``; ``–`` where the value is missing."""
        if self.missing:
            return "–"
        scale, digits = (100.0, ".1f") if self.unit == "%" else (1.0, ".4g")
        value, low, high = (format(scale * v, digits) for v in (self.value, self.low, self.high))
        unit = f" {self.unit}" if self.unit else ""
        return f"{value}{unit} [{low}, {high}] n={self.n}"

    def with_flags(self, flags: Sequence[str]) -> Score:
        """The same number with more reasons to doubt it."""
        return replace(self, flags=tuple(dict.fromkeys((*self.flags, *flags))))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is missing or infinite is ``None``."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {
            **{name: value if math.isfinite(value) else None for name, value in ends.items()},
            "n": self.n,
            "better": self.better,
            "unit": self.unit,
            "flags": list(self.flags),
        }


def wilson_band(k: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """Wilson's interval (Wilson 1927) for many shares k / n at once; [0, 1] where n = 0.

    Args:
        k: successes, any shape.
        n: trials, broadcast against k.
        level: confidence, in (0, 1).
    """
    k, n = np.broadcast_arrays(np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64))
    if np.any(k < 0) or np.any(k > n):
        raise ValueError("successes must lie between 0 and the number of trials")
    z2 = normal_quantile(level) ** 2
    total = np.where(n > 0, n, 1.0)
    centre = (k + z2 / 2) / (total + z2)
    half = np.sqrt(z2 * (k * (total - k) / total + z2 / 4)) / (total + z2)
    # At k = 0 and k = n the ends are 0 and 1 exactly; say so instead of leaving rounding noise.
    low = np.where((k == 0) | (n == 0), 0.0, np.clip(centre - half, 0.0, 1.0))
    high = np.where((k == n) | (n == 0), 1.0, np.clip(centre + half, 0.0, 1.0))
    return low, high


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval (Wilson 1927) for a share k / n: honest at 0, at 1 and for small n."""
    low, high = wilson_band(k, n, level)
    return float(low), float(high)


def normal_quantile(level: float) -> float:
    """z such that a standard normal number lies within ±z with probability ``level``."""
    if not 0 < level < 1:
        raise ValueError(f"the confidence level must lie in (0, 1), got {level}")
    return NormalDist().inv_cdf((1 + level) / 2)


def share(k: int, n: int, better: Better = "higher", level: float = 0.95) -> Score:
    """k of n as a score with Wilson's interval; missing where n = 0."""
    low, high = wilson(k, n, level)
    return Score(k / n if n else math.nan, n, low, high, better)
