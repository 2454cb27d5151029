"""Error consistency and shape bias against scikit-learn, scipy and hand-made tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from aresbench.metrics import error_consistency, real_accuracy, shape_bias, wilson


def verdicts(neither, second, first, both):
    a = [0] * neither + [0] * second + [1] * first + [1] * both
    b = [0] * neither + [1] * second + [0] * first + [1] * both
    return np.array(a, dtype=bool), np.array(b, dtype=bool)


@given(st.tuples(st.integers(0, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 40)))
def test_kappa_is_cohens_of_the_two_verdicts(counts):
    a, b = verdicts(*counts)
    score = error_consistency(a, b)
    assert score.value == pytest.approx(cohen_kappa_score(a, b))
    assert -1 <= score.low <= score.value <= score.high <= 1
    assert score.n == len(a)


def test_kappa_by_hand():
    # both right on 60, both wrong on 20, each alone on 10: p = q = .7, observed .8, expected .58
    assert error_consistency(*verdicts(20, 10, 10, 60)).value == pytest.approx((0.8 - 0.58) / (1 - 0.58))
    same = np.arange(50) < 30
    assert error_consistency(same, same).value == 1
    assert error_consistency(same, ~same).value == pytest.approx((0 - 0.48) / 0.52)
    independent = error_consistency(*verdicts(24, 36, 16, 24))
    assert independent.value == pytest.approx(0, abs=1e-12)
    assert independent.low < 0 < independent.high


def test_kappa_is_missing_where_nothing_differs():
    assert error_consistency([True] * 5, [True] * 5).missing
    assert error_consistency([False] * 5, [False] * 5).missing
    assert error_consistency([], []).missing
    with pytest.raises(ValueError, match="same images"):
        error_consistency([True], [True, False])


@pytest.mark.parametrize(("n", "shared"), [(100, 0.3), (1000, 0.6)])
def test_the_interval_of_kappa_holds_the_truth_as_often_as_it_says(n, shared):
    rng = np.random.default_rng(0)
    p, trials, held = 0.7, 400, 0
    for _ in range(trials):
        a = rng.random(n) < p
        b = np.where(rng.random(n) < shared, a, rng.random(n) < p)
        score = error_consistency(a, b)
        held += score.low <= shared <= score.high  # κ of copies and independent verdicts is the share of copies
    assert 0.925 <= held / trials <= 0.99


def test_shape_bias_counts_decisions_for_either_cue():
    shape, texture = [0, 0, 1, 2, 3], [1, 1, 0, 2, 1]
    score = shape_bias([0, 1, 1, 2, 5], shape, texture)  # shape, texture, shape, no conflict, neither
    assert (score.value, score.n) == (pytest.approx(2 / 3), 3)
    assert (score.low, score.high) == wilson(2, 3)
    theirs = stats.binomtest(2, 3).proportion_ci(method="wilson")
    assert (score.low, score.high) == pytest.approx((theirs.low, theirs.high))
    assert shape_bias(["cat"], ["cat"], ["clock"]).value == 1
    assert shape_bias([4], [0], [1]).missing
    with pytest.raises(ValueError, match="same images"):
        shape_bias([1], [1, 2], [1, 2])


def test_real_accuracy_leaves_out_images_without_labels():
    score = real_accuracy([3, 5, 7, 9], [[3], [4, 5], [8], []])
    assert (score.value, score.n) == (pytest.approx(2 / 3), 3)
    assert (score.low, score.high) == wilson(2, 3)
    assert real_accuracy([1], [[]]).missing
    with pytest.raises(ValueError, match="predictions"):
        real_accuracy([1, 2], [[1]])
