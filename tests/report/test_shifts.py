"""Natural shifts: the parent beside the shift, and effective robustness by named baselines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aresbench.metrics import Score
from aresbench.metrics.baselines import line
from aresbench.metrics.shift import INSIDE
from aresbench.report.figures import shift_figures
from aresbench.report.shifts import ShiftRow, finding, independent_drop
from aresbench.report.summary import Summary, summarise


@pytest.fixture(scope="module")
def summary(derived_store) -> Summary:
    return summarise(derived_store.cells())


def one(summary: Summary, shift: str, model: str = "timm:first") -> ShiftRow:
    return next(r for r in summary.shifts if (r.shift, r.model) == (shift, model))


def test_every_shift_stands_beside_its_parent(summary):
    assert {(r.shift, r.parent) for r in summary.shifts} == {
        ("imagenet-v2-matched-frequency", "imagenet"),
        ("imagenet-real", "imagenet"),
        ("imagenet-r", "imagenet-r-clean"),
        ("imagenet-a-1000-way", "imagenet-a-clean"),
        ("imagenet-sketch", "imagenet"),
    }
    row = one(summary, "imagenet-r")
    assert row.before.n == 100 and row.accuracy.n == 120
    assert row.drop.value == pytest.approx(row.before.value - row.accuracy.value)
    assert row.drop.low < row.drop.value < row.drop.high


def test_effective_robustness_is_measured_from_the_named_line(summary):
    row = one(summary, "imagenet-r")
    assert list(row.effective) == ["testbed-2020", "timm-2026-in1k", "timm-2026-all"]
    for name, score in row.effective.items():
        expected = float(line(name, "imagenet-r").expected(row.before.value))
        assert score.value == pytest.approx(row.accuracy.value - expected)
    assert one(summary, "imagenet-a-1000-way").effective == {}  # no line for that class rule


def test_another_class_rule_is_no_drop_and_says_so(summary):
    row = one(summary, "imagenet-a-1000-way")
    assert row.before is not None and row.drop is None
    assert row.why == "class rule: full here, subset on imagenet-a-clean"


def test_the_same_images_are_paired(summary):
    row = one(summary, "imagenet-real")
    apart = independent_drop(row.before, row.accuracy)
    assert row.drop.value == pytest.approx(apart.value)
    assert row.drop.high - row.drop.low < 0.8 * (apart.high - apart.low)


def test_what_is_not_measured_on_the_parent_says_so(maker):
    made = replace(maker.derived_models[0], dataset="imagenet-sketch", n=30)
    right = np.arange(30) % 2 == 0
    maker.verdicts(made, right, data={"parent": "imagenet"})
    other = replace(made, dataset="imagenet", model="timm:other")
    maker.verdicts(other, right)
    (row,) = summarise(maker.store.cells()).shifts
    assert row.before is None and row.drop is None and row.why == "not measured on imagenet"
    maker.verdicts(replace(made, dataset="imagenet", seed=7), right)
    (row,) = summarise(maker.store.cells()).shifts
    assert row.before is None and row.why == "seed: 0 here, 7 on imagenet"


def test_a_part_of_the_parent_is_found(maker):
    right = np.arange(30) % 2 == 0
    made = replace(maker.derived_models[0], n=30)
    maker.classes("imagenet-part-0123abcd", "imagenet-sketch-part-89abcdef")
    maker.verdicts(replace(made, dataset="imagenet-part-0123abcd"), right)
    maker.verdicts(replace(made, dataset="imagenet-sketch-part-89abcdef"), ~right, data={"parent": "imagenet"})
    (row,) = summarise(maker.store.cells()).shifts
    assert row.before.value == 0.5 and list(row.effective) == ["testbed-2020", "timm-2026-in1k", "timm-2026-all"]


def test_corrupted_files_are_no_natural_shift(maker):
    made = maker.derived_models[0]
    maker.published(made, "fog", 1, np.ones(4, bool), "imagenet-c")
    assert summarise(maker.store.cells()).shifts == ()


def test_the_difference_of_independent_shares_is_newcombes():
    # Newcombe (1998), example (a): 56/70 − 48/80 = 0.20 [0.0524, 0.3339]
    from aresbench.metrics import share

    drop = independent_drop(share(56, 70), share(48, 80))
    assert drop.value == pytest.approx(0.2)
    assert (drop.low, drop.high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


def test_findings_in_words():
    assert "no finding" in finding(Score(0.01, 500, 0.002, 0.03, flags=(INSIDE,)))
    assert "holds 0" in finding(Score(0.01, 500, -0.01, 0.03))
    assert finding(Score(0.2, 500, 0.1, 0.3)) == ""


def test_figures_hold_points_lines_and_bands(summary):
    figures, specs = shift_figures(summary.shifts, "shifts", summary.models)
    assert len(figures) == len(specs) == 5
    of_r = next(specs[f["id"]] for f in figures if "imagenet-r" in f["alt"] and "clean" in f["alt"])
    marks = [layer["mark"]["type"] for layer in of_r["layer"]]
    assert marks == ["area", "line", "rule", "rule", "point"]
    area = of_r["layer"][0]["data"]["values"]
    assert {r["baseline"] for r in area} == {"timm-2026-in1k", "timm-2026-all"}  # the testbed published no scatter
    assert all(r["low"] <= r["expected"] <= r["high"] for r in area)
    assert len(of_r["layer"][-1]["data"]["values"]) == 3
