"""Paired tests against scipy, against all outcomes of small samples, and against what is wanted of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from aresbench.metrics import images_to_prove, mcnemar, non_inferiority, paired_difference
from aresbench.metrics.paired import LARGEST_EXACT, _signed_root


def verdicts(only_first: int, only_second: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.ones(n, dtype=bool), np.ones(n, dtype=bool)
    second[:only_first] = False
    first[only_first : only_first + only_second] = False
    return first, second


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_scipys_fair_coin(only_first: int, only_second: int) -> None:
    result = mcnemar(*verdicts(only_first, only_second, 100))
    assert (result.only_first, result.only_second, result.n) == (only_first, only_second, 100)
    differ = only_first + only_second
    theirs = stats.binomtest(only_first, differ).pvalue if differ else 1.0
    assert result.p_value == pytest.approx(theirs, abs=1e-12)


def test_difference_is_paired_reproducible_and_near_the_normal_interval() -> None:
    first, second = verdicts(60, 20, 500)
    score = paired_difference(first, second)
    assert score == paired_difference(first, second)
    assert score.value == pytest.approx(40 / 500)
    spread = 1.96 * math.sqrt((80 - 40**2 / 500) / 500**2)
    assert (score.low, score.high) == pytest.approx((0.08 - spread, 0.08 + spread), abs=0.006)


def test_difference_of_twins_is_zero_but_not_certain() -> None:
    score = paired_difference([1, 0, 1] * 10, [1, 0, 1] * 10)
    assert score.value == 0
    assert score.low < 0 < score.high


def test_difference_takes_numbers_of_many_values() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=400), rng.uniform(size=400)
    score = paired_difference(a, b)
    theirs = stats.bootstrap((a - b,), np.mean, random_state=np.random.default_rng(0)).confidence_interval
    assert (score.low, score.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_signed_root_is_the_likelihood_ratio_of_a_numerical_optimum() -> None:
    def log_likelihood(p1: float, p2: float, a: int, b: int, n: int) -> float:
        parts = [(a, p1), (b, p2), (n - a - b, 1 - p1 - p2)]
        return sum(k * math.log(max(p, 1e-300)) for k, p in parts if k)

    n = 50
    for a, b, delta in [(3, 5, -0.1), (3, 5, 0.1), (0, 4, -0.05), (10, 1, 0.02), (0, 0, -0.1), (20, 25, 0.3)]:
        low, high = max(0.0, -delta), (1 - delta) / 2
        best = optimize.minimize_scalar(
            lambda q, a=a, b=b, d=delta: -log_likelihood(q + d, q, a, b, n), bounds=(low, high), method="bounded"
        )
        ratio = 2 * (log_likelihood(a / n, b / n, a, b, n) + best.fun)
        expected = math.copysign(math.sqrt(max(ratio, 0)), a - b - n * delta)
        assert _signed_root(np.array([a]), np.array([b]), n, delta)[0] == pytest.approx(expected, abs=2e-2)


@pytest.mark.parametrize("margin", [0.05, 0.15])
def test_non_inferiority_errs_no_more_often_than_it_says(margin: float) -> None:
    """Every outcome of 18 images, at rates of disagreement that are not on the test's grid."""
    n = 18
    outcomes = [(a, b) for a in range(n + 1) for b in range(n + 1 - a)]
    results = [non_inferiority(*verdicts(a, b, n), margin) for a, b in outcomes]
    counts = np.array([(a, b, n - a - b) for a, b in outcomes])
    for q in (0.0, 0.0137, 0.1234, 0.2718, 0.42):
        worse = stats.multinomial.pmf(counts, n, [q, q + margin, 1 - 2 * q - margin])
        for p_values in ([r.p_not_inferior for r in results], [r.p_inferior for r in results]):
            for alpha in (0.01, 0.05, 0.2):
                assert worse[np.array(p_values) <= alpha].sum() <= alpha + 1e-4


def test_perfect_agreement_proves_one_point_from_459_images_on() -> None:
    assert images_to_prove(0.01, 0.01) == 459
    for n, proven in ((300, False), (458, False), (459, True)):
        both = np.ones(n, dtype=bool)
        result = non_inferiority(both, both)
        assert result.p_not_inferior == pytest.approx(0.99**n, rel=1e-6)
        assert (result.p_not_inferior <= 0.01) is proven
        assert result.p_inferior > 0.99


def test_a_worse_attack_is_found_out_at_300_images() -> None:
    assert non_inferiority(*verdicts(0, 10, 300)).p_inferior <= 0.01
    assert non_inferiority(*verdicts(0, 5, 300)).p_inferior > 0.01
    assert non_inferiority(*verdicts(4, 0, 300)).p_not_inferior <= 0.01


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12))
def test_one_more_loss_never_speaks_for_ours(only_ours: int, only_reference: int) -> None:
    before = non_inferiority(*verdicts(only_ours, only_reference, 40), 0.05)
    after = non_inferiority(*verdicts(only_ours, only_reference + 1, 40), 0.05)
    assert after.p_not_inferior >= before.p_not_inferior - 1e-9
    assert after.p_inferior <= before.p_inferior + 1e-9


def test_bad_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="same images"):
        mcnemar([True], [True, False])
    with pytest.raises(ValueError, match="margin"):
        non_inferiority([True], [True], 0)
    with pytest.raises(ValueError, match="paired_difference"):
        non_inferiority(np.ones(LARGEST_EXACT + 1), np.ones(LARGEST_EXACT + 1))
    with pytest.raises(ValueError, match="lie in"):
        paired_difference([3.0], [0.0])


@pytest.mark.parametrize("n", [8, 20, 300])
def test_a_difference_reads_the_same_from_both_sides(n):
    rng = np.random.default_rng(n)
    a, b = rng.random(n) < 0.7, rng.random(n) < 0.5
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    same = paired_difference(a, a)
    assert same.value == 0
    assert same.low == pytest.approx(-same.high)
