"""Calibration errors against their written-out formulas, and what their intervals promise."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from aresbench.metrics import aurra, expected_calibration_error, rms_calibration_error


def sample(n, seed, off=0.0):
    """Confidences, and verdicts that are right with a probability ``off`` below them."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.3, 1.0, n)
    return sure, rng.random(n) < sure - off


def ece_by_hand(sure, right, bins=15):
    total = 0.0
    for b in range(bins):
        inside = [k for k in range(len(sure)) if b / bins < sure[k] <= (b + 1) / bins or (b == 0 and sure[k] == 0)]
        if inside:
            gap = np.mean([right[k] for k in inside]) - np.mean([sure[k] for k in inside])
            total += len(inside) / len(sure) * abs(gap)
    return total


def rms_by_hand(sure, right, per_bin=100):
    order = sorted(range(len(sure)), key=lambda k: sure[k])
    cuts = [k * per_bin for k in range(max(1, len(sure) // per_bin))] + [len(sure)]
    total = 0.0
    for first, last in pairwise(cuts):
        part = order[first:last]
        gap = np.mean([right[k] for k in part]) - np.mean([sure[k] for k in part])
        total += len(part) / len(sure) * gap**2
    return math.sqrt(total)


def aurra_by_hand(sure, right):
    order = sorted(range(len(sure)), key=lambda k: -sure[k])
    return np.mean([np.mean([right[k] for k in order[: m + 1]]) for m in range(len(order))])


@pytest.mark.parametrize("n", [1, 7, 99, 100, 199, 200, 457])
def test_values_are_the_written_formulas(n):
    sure, right = sample(n, n, 0.1)
    assert expected_calibration_error(sure, right).value == pytest.approx(ece_by_hand(sure, right))
    assert rms_calibration_error(sure, right).value == pytest.approx(rms_by_hand(sure, right))
    assert aurra(sure, right).value == pytest.approx(aurra_by_hand(sure, right))
    assert expected_calibration_error(sure, right, bins=4).value == pytest.approx(ece_by_hand(sure, right, 4))
    assert rms_calibration_error(sure, right, per_bin=13).value == pytest.approx(rms_by_hand(sure, right, 13))


def test_ece_is_sklearns_reliability_curve_weighted():
    sure, right = sample(900, 0, 0.05)
    accuracy, confidence = calibration_curve(right, sure, n_bins=15)
    counts = np.histogram(sure, bins=np.linspace(0, 1, 16))[0]
    expected = (np.abs(accuracy - confidence) * counts[counts > 0]).sum() / 900
    assert expected_calibration_error(sure, right).value == pytest.approx(expected)


def test_hand_made_rows():
    # Two bins: .55 (half right, gap .05) and .95 (all right, gap .05); .2 is alone and wrong.
    sure, right = [0.55, 0.55, 0.95, 0.95, 0.2], [1, 0, 1, 1, 0]
    assert expected_calibration_error(sure, right).value == pytest.approx((2 * 0.05 + 2 * 0.05 + 0.2) / 5)
    # An edge belongs to the bin below: 0.2 = 3/15 lies in the third bin with 0.15, 0.21 does not.
    assert expected_calibration_error([0.2, 0.15], [1, 0]).value == pytest.approx(abs(1 - 0.35) / 2)
    assert expected_calibration_error([0.2, 0.21], [1, 0]).value == pytest.approx((0.8 + 0.21) / 2)
    # Answered from the surest on: 1, 1/2, 2/3.
    assert aurra([0.9, 0.8, 0.1], [1, 0, 1]).value == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)


def test_the_surest_images_count():
    """ImageNet-A's own code leaves its last bin out; here a model that errs only where it is surest is found out."""
    sure = np.concatenate([np.full(300, 0.5), np.full(100, 1.0)])
    right = np.concatenate([np.arange(300) % 2 == 0, np.zeros(100, dtype=bool)])
    assert rms_calibration_error(sure, right).value == pytest.approx(math.sqrt(100 / 400))


def test_equal_confidences_count_as_their_mean_in_any_order():
    forth, back = aurra([0.5] * 4, [1, 1, 0, 0]), aurra([0.5] * 4, [0, 0, 1, 1])
    assert forth.value == back.value == pytest.approx(0.5)
    assert aurra([0.9, 0.5, 0.5], [1, 1, 0]).value == pytest.approx((1 + 0.75 + 2 / 3) / 3)


def test_directions_counts_and_what_is_missing():
    sure, right = sample(50, 1)
    for metric, better in ((expected_calibration_error, "lower"), (rms_calibration_error, "lower"), (aurra, "higher")):
        score = metric(sure, right)
        assert (score.n, score.better) == (50, better)
        assert 0 <= score.low <= score.value <= score.high <= 1
        assert score == metric(sure, right)
        assert metric([], []).missing
        with pytest.raises(ValueError, match=r"verdict"):
            metric(sure, right[:-1])
    for metric in (expected_calibration_error, rms_calibration_error):
        with pytest.raises(ValueError, match="softmax"):
            metric([1.5], [True])
        with pytest.raises(ValueError, match="softmax"):
            metric([math.nan], [True])
    with pytest.raises(ValueError, match="verdict"):
        aurra([math.nan], [True])


def test_twenty_sure_and_right_images_prove_no_perfection():
    for metric in (expected_calibration_error, rms_calibration_error):
        score = metric([1.0] * 20, [True] * 20)
        assert score.value == 0
        assert score.high > 0.1
    score = aurra([1.0] * 20, [True] * 20)
    assert score.value == 1
    assert score.low < 0.9


@pytest.mark.parametrize("off", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("n", [200, 700])
def test_intervals_hold_the_true_calibration_error_as_often_as_they_say(n, off):
    """Every gap is ``off``, so is the true error of either kind."""
    held, trials = np.zeros(2), 120
    for seed in range(trials):
        sure, right = sample(n, 1000 + seed, off)
        for k, metric in enumerate((expected_calibration_error, rms_calibration_error)):
            score = metric(sure, right)
            held[k] += score.low <= off <= score.high
    assert (held / trials).min() >= 0.92, held / trials


def test_chance_is_no_finding_in_many_bins():
    """3,000 images of a perfectly calibrated model: RMS is about 4 % by its thirty bins of 100, and 0 in truth."""
    scores = [rms_calibration_error(*sample(3000, seed)) for seed in range(12)]
    assert min(score.value for score in scores) > 0.02
    assert sum(score.low > 0 for score in scores) <= 1
    wide = [rms_calibration_error(*sample(3000, seed, 0.1)) for seed in range(6)]
    assert all(score.low < 0.1 < score.high and score.high - score.low < 0.05 for score in wide)


def test_intervals_of_aurra_hold_the_truth():
    sure, right = sample(400_000, 5)
    truth = aurra_by_rank(sure, right)
    held, trials = 0, 200
    for seed in range(trials):
        score = aurra(*sample(300, 2000 + seed))
        held += score.low <= truth <= score.high
    assert 0.91 <= held / trials <= 0.99


def aurra_by_rank(sure, right):
    ranked = right[np.argsort(-sure)]
    return (np.cumsum(ranked) / np.arange(1, len(ranked) + 1)).mean()
