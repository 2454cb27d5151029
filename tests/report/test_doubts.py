"""The best known attack beside AutoAttack's, and models that nobody checked, wherever their numbers stand."""

import re

import pytest

from aresbench.report.page import build_report
from aresbench.report.reading import Reading, card_flags
from aresbench.report.summary import summarise

DOUBTED, KNOWN = "zoo:resnet152_fd", "samples:digits-robust"


@pytest.fixture(scope="module")
def section(doubtful_store):
    (only,) = summarise(doubtful_store.cells()).sections
    return only


def scores(section, model):
    return next(row.scores for row in section.rows if row.model == model)


def test_best_known_stands_beside_autoattacks_number(section):
    assert [c.label for c in section.columns] == ["Clean", "AutoAttack L∞ 8/255", "Best known L∞ 8/255"]
    auto, best = (scores(section, KNOWN)[f"{kind} linf 8/255"] for kind in ("autoattack", "robust"))
    assert (auto.value, best.value) == (0.45, 0.35) and auto.n == best.n == 40
    assert best.low < best.value < best.high and auto.low < auto.value < auto.high
    for row in section.rows:
        assert row.scores["robust linf 8/255"].value <= row.scores["autoattack linf 8/255"].value
    (told,) = [note for note in section.notes if "submissions" in note]
    assert told == (
        f"{KNOWN}: Of 40 images, beyond everything measured at L∞ 8/255, verified submissions: "
        "“me” broke 3 images, “you” broke 2 images."
    )


def test_a_budget_without_autoattack_or_submissions_is_one_plain_column(full_store):
    labels = [c.label for s in summarise(full_store.cells()).sections for c in s.columns]
    assert "L∞ 8/255" in labels and not any("known" in label or "AutoAttack" in label for label in labels)


def test_on_fewer_images_autoattack_and_best_known_speak_of_the_same_ones(section):
    half = frozenset(f"test/{i:05d}" for i in range(20, 40))
    readings = [Reading(r.cell, half if "autoattack" in r.name else None) for r in section.models[KNOWN]]
    found = summarise(readings).sections[0].rows[0].scores
    auto, best = found["autoattack linf 8/255"], found["robust linf 8/255"]
    assert auto.n == best.n == 20 and auto.value == 18 / 20 and best.value == 14 / 20


def test_a_card_that_doubts_itself_flags_every_number(section):
    assert all("unverified" in s.flags for s in scores(section, DOUBTED).values() if s)
    assert all("unverified" not in s.flags for s in scores(section, KNOWN).values() if s)
    (flag,) = [f for f in section.flags if f.name == "unverified"]
    assert flag.models == (DOUBTED,) and flag.level == "warning" and "published" in flag.remedy
    assert "Written from the paper. Never run with the authors' weights." in flag.message


def test_notes_of_a_verified_card_are_no_reason_to_doubt():
    assert card_flags({"verified": True, "notes": []}) == card_flags({}) == []
    (note,) = card_flags({"verified": True, "notes": ["which MoCo is not stated"]})
    assert (note["level"], note["message"]) == ("info", "Which MoCo is not stated.")


def test_the_report_marks_the_model_wherever_it_stands(doubtful_store, tmp_path):
    html = build_report(doubtful_store.cells(), tmp_path / "report.html").read_text("utf-8")
    page = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    places = page.split("zoo:<wbr>resnet152_<wbr>fd")[1:]
    assert len(places) >= 6  # bars, models, calibration, tasks, cells, gallery
    assert all(re.match(r'\s*<span class="doubt">⚑ unverified', place) for place in places)
    assert page.count("⚑ unverified") >= len(places)
    groups = re.findall(r'<div class="box">(?:(?!<div class="box">).)*?<figure class="figure', page, re.DOTALL)
    assert groups and all("In these figures: zoo:<wbr>resnet152" in group for group in groups)
    row = re.search(r'<tr><th[^>]*><i[^>]*></i><span class="name">zoo:<wbr>resnet152.*?</tr>', page, re.DOTALL)[0]
    assert row.count('class="flagged"') == 3
    assert "⚑ zoo:resnet152_fd is unverified" in page and "samples:<wbr>digits-<wbr>robust <span" not in page
