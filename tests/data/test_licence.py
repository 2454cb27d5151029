"""The gate for commercial use."""

from __future__ import annotations

from typing import Any

import pytest

from aresbench.core.errors import DataError
from aresbench.core.registry import TABLES, card
from aresbench.data.digits import Digits
from aresbench.data.licence import REASONS, commercial, refuse_unless_commercial
from aresbench.data.load import load_dataset
from aresbench.data.samples import Samples


def test_the_classes_of_terms() -> None:
    assert [terms for terms in REASONS if commercial(terms)] == ["free", "attribution"]
    assert not commercial("") and not commercial("MIT")


@pytest.mark.parametrize("name", TABLES["datasets"])
def test_every_dataset_says_its_terms(name: str) -> None:
    assert card("datasets", name).facts.get("terms") in REASONS


def test_free_data_pass() -> None:
    refuse_unless_commercial(load_dataset("digits"))


def test_others_are_refused_by_name_with_licence_and_reason() -> None:
    with pytest.raises(DataError, match="samples is refused") as caught:
        refuse_unless_commercial(load_dataset("samples"))
    for part in (Samples.title, Samples.licence, "nothing says that commercial use is allowed"):
        assert part in caught.value.problem
    assert "--commercial" in caught.value.remedy and "folder:/path" in caught.value.remedy


def test_non_commercial_data_are_refused_for_another_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Digits, "terms", "non-commercial")
    with pytest.raises(DataError, match="its terms forbid commercial use"):
        refuse_unless_commercial(load_dataset("digits"))
    monkeypatch.setattr(Digits, "terms", "whatever")  # a class of one's own with a word of its own
    with pytest.raises(DataError, match="nothing says"):
        refuse_unless_commercial(load_dataset("digits"))


def test_a_view_is_refused_as_the_whole() -> None:
    view: Any = load_dataset("samples")[:3]
    with pytest.raises(DataError, match="refused"):
        refuse_unless_commercial(view)
