"""Verdicts from counts: what speaks up, what stays quiet, and with which figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from aresbench.metrics import reliability
from aresbench.metrics.reliability import VERDICTS, black_box, blind_gradients, chance, counted, repeatable, rises


@pytest.mark.parametrize(("count", "n"), [(1, 8), (3, 8), (4, 16), (16, 16), (9, 300), (30, 300)])
def test_the_chance_is_the_binomial_tail(count, n):
    assert chance(count, n) == pytest.approx(binom.sf(count - 1, n, reliability.TOLERATED), rel=1e-9)


def test_nothing_seen_and_nobody_asked_are_no_doubt():
    assert chance(0, 8) == chance(0, 0) == 1.0
    assert not counted("starts-disagree", 0, 0, "{count} of {n}").doubt


@pytest.mark.parametrize(("count", "n", "doubt"), [(2, 8, False), (3, 8, True), (3, 16, False), (4, 16, True)])
def test_an_attack_may_miss_a_few(count, n, doubt):
    verdict = counted("starts-disagree", count, n, "breaks {count} of {n}", seed=1)
    assert verdict.doubt is doubt
    assert verdict.message.startswith(f"breaks {count} of {n} (p ")
    assert verdict.evidence["p"] == chance(count, n) and verdict.evidence["seed"] == 1
    assert verdict.question and verdict.remedy


def test_shares_of_blind_gradients():
    zero, nan = blind_gradients([3, 0], [0, 0], [100, 100])
    assert zero.name == "zero-gradients" and zero.doubt and zero.evidence["share"] == 0.015
    assert nan.name == "nan-gradients" and not nan.doubt
    assert not any(v.doubt for v in blind_gradients([2], [2], [200])), "one in a hundred is tolerated"
    assert not any(v.doubt for v in blind_gradients([0], [0], [0])), "no gradient was asked for"


def test_rules_that_attacks_break():
    rejected, unsure = reliability.rule_breaks([0, 2], ["broken", "unconfirmed"])
    assert (rejected.doubt, rejected.level, rejected.evidence["count"]) == (True, "error", 2)
    assert (unsure.doubt, unsure.level) == (True, "warning")
    _, few = reliability.rule_breaks([0] * 300, ["unconfirmed", *["resisted"] * 299])
    assert (few.doubt, few.level) == (True, "info")
    assert not any(v.doubt for v in reliability.rule_breaks([0], ["resisted"]))


def test_a_black_box_counts_only_images_that_both_kinds_attacked_in_the_same_budget():
    rows = [  # image, budget, sees no gradient, broke it
        ("a", "0.1", False, False), ("a", "0.1", True, True),
        ("b", "0.1", False, False), ("b", "0.1", True, False),
        ("c", "0.1", False, True),
        ("d", "0.1", True, True),
        ("e", "0.1", False, True), ("e", "0.1", True, True),
        ("f", "", False, False), ("f", "0.1", True, True),
        ("a", "0.2", False, False), ("a", "0.2", True, False),
    ]  # fmt: skip
    assert black_box(*map(list, zip(*rows, strict=True))) == (1, 2, "0.1")
    assert black_box(["a"], ["0.1"], [False], [False]) is None


def test_a_second_gradient_attack_that_succeeds_takes_the_image_off_the_list():
    rows = [("a", "1", False, False), ("a", "1", False, True), ("a", "1", True, True)]
    assert black_box(*map(list, zip(*rows, strict=True))) is None


def test_steps_must_gain_more_than_luck():
    risen = rises([-1.0, -1.0, -1.0, -1.0], [0.5, -0.5, -2.0, -1.0], [0.0, -0.4, -3.0, -1.0])
    assert risen.tolist() == [True, False, False, False]


def test_two_passes():
    logits = np.array([[10.0, 0.0], [0.0, 10.0]])
    assert not repeatable(logits, logits + 1e-6).doubt
    other = repeatable(logits, logits[::-1])
    assert other.doubt and other.evidence["flipped"] == 2
    assert not repeatable([[np.nan, 1.0]], [[np.nan, 1.0]]).doubt


def test_every_verdict_says_what_it_asks_and_what_to_do_and_stands_in_the_guide():
    page = Path(__file__).parents[2] / "docs" / "how-to" / "when-to-doubt-a-number.md"
    guide = page.read_text("utf-8")
    for name, (question, remedy) in VERDICTS.items():
        assert name == name.lower() and question.endswith("?") and remedy
        assert f"| `{name}` |" in guide
