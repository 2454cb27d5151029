"""Curves fall by construction, bands hold what they promise, areas are means over images."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aresbench.metrics import (
    attack_success_rate,
    breaking_values,
    curve_area,
    earliest,
    image_areas,
    query_curve,
    robust_accuracy,
    severity_curve,
    step_curve,
    survival_curve,
    union_accuracy,
    wilson,
    worst_case,
)

RUNGS = ["1/16/255", "1/4/255", "1/255", "4/255"]
SIZES = [0.0, *breaking_values(RUNGS), np.inf]
breaking = st.lists(st.sampled_from(SIZES), min_size=1, max_size=60)


@given(breaking)
def test_a_curve_falls_and_lies_in_its_bands(values: list[float]) -> None:
    curve = survival_curve(values, RUNGS)
    assert np.all(np.diff(curve.value) <= 0)
    assert curve.x[0] == 0
    assert np.all((curve.low <= curve.value) & (curve.value <= curve.high))
    assert np.all((curve.band_low <= curve.value) & (curve.value <= curve.band_high))
    assert np.all(curve.n == len(values))


@given(breaking, st.data())
def test_more_evidence_only_lowers(values: list[float], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.sampled_from(SIZES), min_size=len(values), max_size=len(values)))
    both = worst_case([values, other])
    assert both.tolist() == [min(pair) for pair in zip(values, other, strict=True)]
    assert np.all(survival_curve(both, RUNGS).value <= survival_curve(values, RUNGS).value)
    assert curve_area(both, RUNGS).value <= curve_area(values, RUNGS).value + 1e-12


@given(breaking)
def test_a_curve_is_robust_accuracy_at_each_rung(values: list[float]) -> None:
    curve = survival_curve(values, RUNGS)
    for i, rung in enumerate(RUNGS, start=1):
        score = robust_accuracy(values, rung)
        assert (score.value, score.low, score.high) == (curve.value[i], curve.low[i], curve.high[i])


def test_fractions_texts_and_floats_mean_the_same_budget() -> None:
    exact = [Fraction(0), Fraction(1, 255), Fraction(4, 255)]
    for size in ("4/255", Fraction(4, 255), 4 / 255):
        assert robust_accuracy(exact, size).value == 0
        assert robust_accuracy(breaking_values(["0", "1/255", "4/255"]), size).value == 0
    assert breaking_values([None, "0", float("nan")]).tolist() == [np.inf, 0, np.inf]  # type: ignore[list-item]


def test_area_is_the_trapezoid_under_the_curve() -> None:
    values = [0.0, SIZES[1], SIZES[3], np.inf, np.inf, SIZES[2]]
    curve = survival_curve(values, RUNGS)
    expected = np.trapezoid(curve.value, curve.x) / curve.x[-1]
    assert curve_area(values, RUNGS).value == pytest.approx(expected, rel=1e-12)
    assert image_areas([0.0, np.inf], RUNGS).tolist() == [0.0, 1.0]


def test_area_is_reproducible_and_contains_its_value() -> None:
    rng = np.random.default_rng(3)
    values = rng.choice(SIZES, size=200)
    first, again = curve_area(values, RUNGS), curve_area(values, RUNGS)
    assert first == again
    assert first.low < first.value < first.high
    assert curve_area(values, RUNGS, seed=1) != first


@pytest.mark.parametrize("value", [0.0, np.inf])
def test_images_all_alike_do_not_give_an_interval_of_no_width(value: float) -> None:
    score = curve_area([value] * 20, RUNGS)
    low, high = wilson(0 if value == 0 else 20, 20)
    assert score.high - score.low == pytest.approx(high - low, abs=0.05)


def test_area_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    chances = [0.2, 0.15, 0.1, 0.25, 0.1, 0.2]
    truth = float(np.dot(image_areas(SIZES, RUNGS), chances))
    hits = 0
    for _ in range(200):
        score = curve_area(rng.choice(SIZES, size=60, p=chances), RUNGS)
        hits += score.low <= truth <= score.high
    assert 180 <= hits <= 200  # 95 % of 200 is 190; 180 would be a 4-sigma miss


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.one_of(st.just(np.nan), st.integers(1, 20).map(float))), min_size=1))
def test_step_and_query_curves_fall_and_end_at_the_resisting(rows: list[tuple[bool, float]]) -> None:
    correct = np.array([right for right, _ in rows])
    first = np.array([step if right else np.nan for right, step in rows])
    curve = step_curve(first, correct, 20)
    assert len(curve.x) == 21
    assert np.all(np.diff(curve.value) <= 0)
    assert curve.value[0] == pytest.approx(correct.mean())
    assert curve.value[-1] == pytest.approx((correct & np.isnan(first)).mean())
    np.testing.assert_array_equal(query_curve(first, correct, [5, 10]).value, curve.value[[0, 5, 10]])


def test_a_clean_error_is_never_repaired_by_an_attack() -> None:
    curve = step_curve([3.0, np.nan], [False, True], 5)
    assert curve.value.tolist() == [0.5] * 6


def test_severity_curve_need_not_fall_and_its_band_is_wider() -> None:
    curve = severity_curve({3: [1, 1, 0], 1: [1, 0, 0], 0: [1, 1, 1, 1]})
    assert curve.x.tolist() == [0, 1, 3]
    assert curve.n.tolist() == [4, 3, 3]
    assert curve.value.tolist() == [1, pytest.approx(1 / 3), pytest.approx(2 / 3)]
    assert np.all(curve.band_low <= curve.low)
    assert np.all(curve.band_high >= curve.high)
    assert np.isnan(severity_curve({1: []}).value[0])


def test_a_curve_of_no_images_is_missing() -> None:
    curve = survival_curve([], RUNGS)
    assert np.isnan(curve.value).all()
    assert (curve.low == 0).all() and (curve.high == 1).all()
    assert curve_area([], RUNGS).missing


@pytest.mark.parametrize("points", [[2.0, 1.0], [1.0, 1.0], [np.inf], [-1.0, 1.0]])
def test_points_must_rise(points: list[float]) -> None:
    with pytest.raises(ValueError, match="rise"):
        survival_curve([0.5], points)


def test_mismatched_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="same images"):
        worst_case([[1.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match="no attack"):
        worst_case([])
    with pytest.raises(ValueError, match="clean verdicts"):
        step_curve([1.0], [True, False], 3)
    with pytest.raises(ValueError, match="above 0"):
        curve_area([0.5], [0])


@pytest.mark.parametrize("step", [Fraction(3, 200), Fraction(1, 255), Fraction(1, 30)])
def test_an_area_never_rounds_beyond_one(step):
    rungs = [step * k for k in range(1, 17)]
    assert image_areas([np.inf] * 3, rungs).max() <= 1.0
    assert curve_area([np.inf] * 3, rungs).value == pytest.approx(1.0)


@given(breaking)
def test_attack_success_is_the_share_of_right_images_that_broke(values: list[float]) -> None:
    curve = survival_curve(values, RUNGS, success=True)
    right = sum(value > 0 for value in values)
    assert np.all(curve.n == right)
    if not right:
        assert np.isnan(curve.value).all()
        return
    assert curve.value[0] == 0 and np.all(np.diff(curve.value) >= 0)
    for i, rung in enumerate(RUNGS, start=1):
        score = attack_success_rate(values, rung)
        assert (score.value, score.low, score.high) == (curve.value[i], curve.low[i], curve.high[i])
    accuracy = survival_curve(values, RUNGS).value
    np.testing.assert_allclose(accuracy, accuracy[0] * (1 - curve.value))
    assert np.all((curve.band_low <= curve.value) & (curve.value <= curve.band_high))


def test_success_over_steps_leaves_clean_errors_out() -> None:
    first, correct = [3.0, 1.0, np.nan, np.nan], [True, True, True, False]
    curve = step_curve(first, correct, 4, success=True)
    assert curve.value.tolist() == [0, 1 / 3, 1 / 3, pytest.approx(2 / 3), pytest.approx(2 / 3)]
    assert set(curve.n) == {3}


@given(st.lists(st.lists(st.one_of(st.just(np.nan), st.integers(0, 9).map(float)), min_size=5, max_size=5), min_size=1))
def test_the_worst_case_over_steps_lies_below_every_attack(runs: list[list[float]]) -> None:
    correct = np.array([True, True, False, True, True])
    first = earliest(runs)
    worst = step_curve(first, correct, 9).value
    each = [step_curve(run, correct, 9).value for run in runs]
    assert np.all(worst <= np.min(each, axis=0))
    assert worst[-1] == np.mean([right and np.isnan([run[k] for run in runs]).all() for k, right in enumerate(correct)])


def test_the_union_counts_a_clean_error_once_and_a_break_under_any_threat() -> None:
    linf, l2 = [0, 1, 1, 0, 1], [0, 1, 0, 1, 1]  # image 0 is wrong without attack
    score = union_accuracy([linf, l2])
    assert (score.value, score.n) == (2 / 5, 5)
    assert union_accuracy([linf]) == union_accuracy([linf, linf])
    for robust in ([], [[1, 0], [1]]):
        with pytest.raises(ValueError, match="same images"):
            union_accuracy(robust)
