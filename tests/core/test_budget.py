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


PAPER = "linf:search(2/255, doublings=5, bisections=10)"


@pytest.mark.parametrize("text", [PAPER, "l2:search(0.5, multiples=4, bisections=3)", "linf:search(1, bisections=14)"])
def test_a_search_is_every_size_that_it_can_return(text):
    ladder = parse_budget(text)
    assert parse_budget(str(ladder)) == ladder
    search = ladder.search
    assert len(search) == len(search.coarse) * 2**search.bisections
    assert set(search.marks) <= set(search) and len(search.marks) <= 64
    listed = list(search)[:: max(1, len(search) // 500)]
    assert listed == sorted(set(listed))
    for place in (0, 1, len(search) // 3, len(search) - 1):
        assert search.index(search[place]) == place and search[place] in search
    assert search[-1] == search.coarse[-1]
    for size in (Fraction(0), search[0] / 2, search[0] * Fraction(3, 2), search[-1] * 2):
        assert size not in search
    assert len(str(ladder)) < 60  # thousands of sizes are never written down


def test_the_papers_search_doubles_from_two_grey_levels_to_sixty_four():
    search = parse_budget(PAPER).search
    assert [size * 255 for size in search.coarse] == [2, 4, 8, 16, 32, 64]
    assert search[0] == Fraction(2, 255 * 1024)
    assert search[1024] == Fraction(2, 255) + Fraction(2, 255 * 1024)  # the resolution halves with each doubling
    assert search[-2] == Fraction(64, 255) - Fraction(32, 255 * 1024)
    assert Fraction(4, 255) in parse_budget(PAPER).marks


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
        ("linf:search(0)", "above 0"),
        ("linf:search(2/255, doubling=5)", "doublings"),
        ("linf:search(2/255, doublings=5, multiples=3)", "not by both"),
        ("linf:search(2/255, doublings=-1)", "whole number"),
        ("linf:search(2/255, doublings=99)", "0 to 16"),
        ("linf:search(doublings=5)", "start from"),
        ("linf:search(2/255, doublings=7)", "whole range"),
    ],
)
def test_bad_budgets_say_what_is_wrong(text, words):
    with pytest.raises(SpecError, match=words):
        parse_budget(text)
