"""Bands hold the whole truth as often as they say, found by drawing images from curves that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aresbench.metrics import clopper_pearson, simultaneous_band, survival_curve
from aresbench.metrics.bands import _EQUAL_ERRORS


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.999]))
def test_the_exact_interval_is_scipys(pair: tuple[int, int], level: float) -> None:
    low, high = clopper_pearson(*pair, level)
    theirs = stats.binomtest(*pair).proportion_ci(level, method="exact")
    assert (float(low), float(high)) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_no_images_say_nothing() -> None:
    assert [end.tolist() for end in clopper_pearson(0, 0)] == [0.0, 1.0]
    assert [end.tolist() for end in simultaneous_band([0, 0], 0)] == [[0.0, 0.0], [1.0, 1.0]]


def _cover(truth: np.ndarray, n: int, draws: int = 1500, level: float = 0.95) -> float:
    """How often the band of n images holds a survival curve known at its points."""
    rng = np.random.default_rng(7)
    chances = -np.diff(truth, prepend=1.0, append=0.0)  # of breaking at each point, and of never breaking
    held = 0
    for counts in rng.multinomial(n, chances, size=draws):
        low, high = simultaneous_band(n - np.cumsum(counts)[:-1], n, level)
        held += bool(np.all((low <= truth) & (truth <= high)))
    return held / draws


CURVES = {
    "even": np.linspace(0.95, 0.05, 12),
    "a cliff": np.array([0.95, 0.6, 0.2, 0.03, 0.004, 0.001, 0.0005]),
    "a plateau": np.repeat([0.9, 0.5, 0.45], 4),
    "many points": np.linspace(0.98, 0.02, 200),
    "one point": np.array([0.7]),
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("n", [20, 300])
def test_the_whole_curve_lies_in_the_band_as_often_as_it_says(name: str, n: int) -> None:
    assert _cover(CURVES[name], n) >= 0.95 - 3 * 0.0056  # three standard errors of 1,500 draws


def test_many_points_share_their_error() -> None:
    """With Bonferroni's rule alone the band of 1,000 points would be needlessly wide; pointwise ones miss the curve."""
    truth = CURVES["many points"]
    assert _cover(truth, 300) <= 0.985
    k = np.round(300 * truth)
    wide = np.ptp(clopper_pearson(k, 300, 1 - 0.05 / len(k)), axis=0)
    assert np.all(np.ptp(simultaneous_band(k, 300), axis=0) < wide)
    assert _cover(truth, 300, level=0.9) >= 0.88  # another level than the simulated one


def test_the_band_is_narrow_where_nearly_all_images_break() -> None:
    curve = survival_curve([0.5] * 290 + [np.inf] * 10, ["0.5"])
    flat = 2 * np.sqrt(np.log(2 / 0.05) / (2 * 300))  # Dvoretzky, Kiefer and Wolfowitz
    assert curve.band_high[1] - curve.band_low[1] < flat / 2
    assert curve.band_low[1] <= curve.low[1] <= curve.high[1] <= curve.band_high[1]


@pytest.mark.parametrize("n", [5, 50])
def test_the_shared_errors_are_those_of_uniform_samples(n: int) -> None:
    rng = np.random.default_rng(3)
    place = np.arange(1, n + 1)
    p = stats.beta.cdf(np.sort(rng.uniform(size=(6000, n)), axis=1), place, n - place + 1)
    missed = np.mean(2 * np.minimum(p, 1 - p).min(axis=1) < dict(_EQUAL_ERRORS)[n])
    assert 0.04 < missed < 0.056
