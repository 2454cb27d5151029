"""Budgets are exact: every text stands for one fraction and comes back as itself."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aresbench.core.budget import format_fraction, parse_budget, parse_fraction
from aresbench.core.errors import SpecError


@given(st.fractions(min_value=0, max_value=300, max_denominator=100_000))
def test_a_size_survives_being_written_down(value):
    assert parse_fraction(format_fraction(value)) == value


@pytest.mark.parametrize(
    ("text", "value", "written"),
    [
        ("4/255", Fraction(4, 255), "4/255"),
        ("3/255", Fraction(3, 255), "3/255"),
        ("1/2/255", Fraction(1, 510), "0.5/255"),
        ("0.5", Fraction(1, 2), "0.5"),
        ("51/255", Fraction(1, 5), "0.2"),
        ("1e-3", Fraction(1, 1000), "0.001"),
        ("1/3", Fraction(1, 3), "85/255"),
        ("0", Fraction(0), "0"),
    ],
)
def test_natural_spellings(text, value, written):
    assert parse_fraction(text) == value
    assert format_fraction(value) == written


@pytest.mark.parametrize(
    "text", ["linf:4/255", "l2:0.5", "linf:[0.0625/255, 0.25/255*, 1/255]", "l2:[0.25, 0.5, 1]", "linf:[0.1*, 0.2*]"]
)
def test_budgets_read_back(text):
    ladder = parse_budget(text)
    assert str(ladder) == text
    assert parse_budget(str(ladder)) == ladder


def test_a_list_is_scaled_and_stars_pin():
    ladder = parse_budget("linf:[1/16,1*,4]/255")
    assert ladder.rungs == (Fraction(1, 16 * 255), Fraction(1, 255), Fraction(4, 255))
    assert ladder.pinned == {Fraction(1, 255)}
    assert parse_budget("linf:4/255").pinned == {Fraction(4, 255)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("linf", "norm:size"),
        ("lnf:4/255", "linf"),
        ("linf:four", "not a budget size"),
        ("linf:-1", "not a budget size"),
        ("linf:1/0", "not a budget size"),
        ("linf:[2,1]/255", "must rise"),
        ("linf:[1,1]", "must rise"),
        ("linf:[1,2", "list of sizes"),
        ("linf:[]", "not a budget size"),
        ("linf:4", "write 4/255"),
    ],
)
def test_bad_budgets_say_what_is_wrong(text, words):
    with pytest.raises(SpecError, match=words):
        parse_budget(text)
