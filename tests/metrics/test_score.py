"""Wilson's interval and shares against scipy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aresbench.metrics import Score, accuracy, attack_success_rate, median_breaking_distance, robust_accuracy, wilson
from aresbench.metrics.binomial import cdf, pmf
from aresbench.metrics.score import wilson_band

counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy_and_contains_the_share(pair: tuple[int, int], level: float) -> None:
    k, n = pair
    low, high = wilson(k, n, level)
    theirs = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= low <= k / n <= high <= 1


def test_wilson_closed_form_when_nothing_succeeds() -> None:
    z2 = 1.959963984540054**2
    assert wilson(0, 20) == (0.0, pytest.approx(z2 / (20 + z2)))
    assert wilson(20, 20) == (pytest.approx(20 / (20 + z2)), 1.0)
    assert wilson(0, 0) == (0.0, 1.0)


def test_wilson_refuses_impossible_counts_and_levels() -> None:
    with pytest.raises(ValueError, match="between 0"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="level"):
        wilson(1, 2, 95)


def test_wilson_band_is_wilson_point_by_point() -> None:
    low, high = wilson_band([0, 3, 7], [7, 7, 7])
    assert list(zip(low, high, strict=True)) == [wilson(k, 7) for k in (0, 3, 7)]


def test_accuracy_of_the_photographs() -> None:
    score = accuracy([True] * 18 + [False] * 2)
    assert (score.value, score.n, score.better) == (0.9, 20, "higher")
    assert str(score) == "90.0 % [69.9, 97.2] n=20"


def test_missing_is_a_dash_never_zero() -> None:
    score = accuracy([])
    assert score.missing
    assert str(score) == "–"
    assert score.to_dict()["value"] is None
    assert score.to_dict()["n"] == 0


def test_flags_are_kept_once_and_in_order() -> None:
    score = Score(0.5, 2, 0.1, 0.9).with_flags(["b", "a"]).with_flags(["a", "c"])
    assert score.flags == ("b", "a", "c")
    assert score.to_dict()["flags"] == ["b", "a", "c"]


def test_unit_says_how_the_number_is_shown() -> None:
    assert str(Score(0.01234, 5, 0.01, 0.02, unit="l2")) == "0.01234 l2 [0.01, 0.02] n=5"


def test_robust_accuracy_and_success_rate_count_a_break_at_the_budget_itself() -> None:
    breaking = [0.0, 1 / 255, 4 / 255, np.inf]
    assert robust_accuracy(breaking, "1/255").value == 0.5
    assert robust_accuracy(breaking, "1/2/255").value == 0.75
    assert robust_accuracy(breaking, 0).value == 0.75  # clean accuracy
    success = attack_success_rate(breaking, "4/255")
    assert (success.value, success.n, success.better) == (pytest.approx(2 / 3), 3, "lower")
    assert attack_success_rate([0.0, 0.0], 1).missing


@pytest.mark.parametrize("bad", [[-1.0], [np.nan]])
def test_impossible_breaking_budgets_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="clean error"):
        robust_accuracy(bad, 1)


@given(st.integers(0, 60), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_binomial_equals_scipy(n: int, p: float) -> None:
    k = np.arange(n + 1)
    np.testing.assert_allclose(pmf(n, p), stats.binom.pmf(k, n, p), atol=1e-12)
    np.testing.assert_allclose(cdf(n, p), stats.binom.cdf(k, n, p), atol=1e-12)


@given(st.lists(st.one_of(st.just(0.0), st.just(np.inf), st.floats(0, 10)), min_size=1, max_size=80))
def test_median_lies_in_its_interval_which_scipy_agrees_with(distance: list[float]) -> None:
    score = median_breaking_distance(distance)
    assert score.low <= score.value <= score.high
    finite = np.nan_to_num(distance, posinf=1e9)
    theirs = stats.quantile_test(finite, p=0.5).confidence_interval(0.95)
    if not math.isnan(theirs.low):
        assert score.low == np.nan_to_num(theirs.low) or theirs.low >= 1e9
    if not math.isnan(theirs.high):
        assert score.high == theirs.high or theirs.high >= 1e9


def test_median_is_infinite_when_most_images_resist() -> None:
    score = median_breaking_distance([0.1, np.inf, np.inf])
    assert score.value == np.inf
    assert score.to_dict()["value"] is None
    assert median_breaking_distance([]).missing
