"""Classes are matched by name, and refused where names do not say who is who."""

from __future__ import annotations

import pytest

from aresbench.core.classes import Classes, match_classes
from aresbench.core.errors import DataError

MODEL = Classes(("tench, Tinca tinca", "goldfish", "great white shark, white shark", "hen"), ("n1", "n2", "n3", "n4"))


def test_ids_win_over_order_and_text():
    data = Classes(("poule", "poisson rouge"), ("n4", "n2"))
    found = match_classes(data, MODEL)
    assert found.target == (3, 1)
    assert found.rule == "full"


def test_folder_names_that_are_wnids_are_found():
    assert match_classes(Classes(("n3", "n1")), MODEL).target == (2, 0)


def test_synonyms_and_spelling():
    assert match_classes(Classes(("White_Shark", "tinca tinca")), MODEL).target == (2, 0)


def test_same_order_is_the_identity():
    found = match_classes(MODEL, MODEL)
    assert found.rule == "identity"
    assert found.outputs == ()


def test_a_subset_can_restrict_the_model():
    found = match_classes(Classes(("hen", "goldfish")), MODEL, subset=True)
    assert found.outputs == ((3,), (1,))
    assert found.target == (0, 1)
    assert found.describe() != match_classes(Classes(("goldfish", "hen")), MODEL, subset=True).describe()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("goldfsh",), "goldfish"),
        (("hen", "n4"), "two classes of the data"),
    ],
)
def test_what_cannot_be_matched_is_refused(names, words):
    with pytest.raises(DataError, match=words):
        match_classes(Classes(names), MODEL)


def test_an_ambiguous_name_is_refused():
    model = Classes(("crane, bird", "crane, machine"))
    with pytest.raises(DataError, match="2 of the model's classes"):
        match_classes(Classes(("crane",)), model)
    assert match_classes(Classes(("crane, machine", "crane, bird")), model).target == (1, 0)


def test_what_matches_nothing_is_told_what_the_model_knows():
    with pytest.raises(DataError, match="goldfish"):
        match_classes(Classes(("zzzzzz",)), MODEL)


WIDE = Classes(
    ("water bird", "fish", "unknown thing"),
    members=(Classes(("hen", "white shark"), ("n4", "n3")), Classes(("goldfish",), ("n2",)), Classes((), ())),
)


def test_a_wide_class_takes_several_outputs():
    found = match_classes(WIDE, MODEL, subset=True)
    assert found.target == (0, 1, 2)
    assert found.outputs == ((3, 2), (1,), ())
    assert found.rule == "subset"


def test_outputs_that_no_wide_class_takes_stay_by_themselves():
    found = match_classes(WIDE, MODEL)
    assert found.outputs == ((3, 2), (1,), (), (0,))
    assert found.rule == "full"
    assert found.describe() != match_classes(WIDE, MODEL, subset=True).describe()


def test_members_are_counted():
    with pytest.raises(DataError, match="members of 1 classes"):
        Classes(("a", "b"), members=(Classes(("hen",)),))
