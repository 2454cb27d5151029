"""Specs inside specs: lists of components with settings of their own read back as they were written."""

from __future__ import annotations

import pytest

from aresbench.core.spec import Call, format_value, parse_call, parse_value, split_top

PARTS = ["di(prob=0.5)", "ti", "admix(mixes=3, portion=0.2)", "vmi(samples=20, beta=1.5)"]


def test_a_list_of_components_is_one_setting():
    text = "mim(steps=3, parts=[di(prob=0.5), ti, admix(mixes=3, portion=0.2), vmi(samples=20, beta=1.5)])"
    call = parse_call(text)
    assert call == Call("mim", (), {"steps": "3", "parts": "[" + ", ".join(PARTS) + "]"})
    assert parse_value(call.kwargs["parts"]) == PARTS
    assert format_value(PARTS) == call.kwargs["parts"]
    assert [parse_call(part).name for part in PARTS] == ["di", "ti", "admix", "vmi"]


@pytest.mark.parametrize("value", [PARTS, [], ["ti"], [PARTS, "si"], [0.5, "di(prob=0.5)", True, None, 3]])
def test_values_read_back(value):
    assert parse_value(format_value(value)) == value


def test_brackets_hide_separators_at_every_depth():
    assert split_top("a(b=[c(d, e), f]), g + h", ",") == ["a(b=[c(d, e), f])", "g + h"]
    assert parse_call("x(y=[a(b=1), c(d=[e(f=2)])])").kwargs == {"y": "[a(b=1), c(d=[e(f=2)])]"}
