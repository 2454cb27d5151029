"""Numbers over corruption tasks: which cells may meet in one, and which may not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aresbench.metrics.baselines import CORRUPTIONS
from aresbench.metrics.corruption_error import mean_corruption_error
from aresbench.report.compare import compare
from aresbench.report.corruptions import unlike_alexnet
from aresbench.report.gallery import contact_sheet
from aresbench.report.page import build_report
from aresbench.report.points import curve_points
from aresbench.report.reading import read
from aresbench.report.summary import Section, summarise

RNG = np.random.default_rng(0)


def section(store, dataset: str = "imagenet") -> Section:
    return next(s for s in summarise(store.cells()).sections if s.dataset == dataset)


def row(part: Section, model: str):
    return next(r for r in part.rows if r.model == model)


def right(n: int = 40, share: float = 0.5) -> np.ndarray:
    return RNG.random(n) < share


@pytest.fixture(scope="module")
def imagenet(derived_store) -> Section:
    return section(derived_store)


def test_mce_is_what_the_rows_say(derived_store, imagenet):
    cells = [r for r in read(derived_store.cells()) if r.model == "timm:first" and r.dataset == "imagenet"]
    rows: dict[str, dict[int, np.ndarray]] = {}
    for r in cells:
        if r.kind == "corruption" and r.mode == "memory" and r.task["corruption"] in CORRUPTIONS:
            rows.setdefault(r.task["corruption"], {})[r.task["severity"]] = r.correct.to_numpy(bool)
    clean = next(r for r in cells if r.kind == "clean").correct.to_numpy(bool)
    scores = row(imagenet, "timm:first").scores
    assert scores["mce memory"] == mean_corruption_error(rows)
    assert scores["relative-mce memory"] == mean_corruption_error(rows, clean=clean)
    assert scores["mce memory"].better == "lower" and scores["mce memory"].n == 200
    mean = np.mean([values.mean() for by_severity in rows.values() for values in by_severity.values()])
    assert scores["corruptions memory"].value == pytest.approx(mean)


def test_each_mode_has_its_own_columns(imagenet):
    heads = {c.key: c.label for c in imagenet.columns}
    assert heads["corruptions memory"] == "Corruptions (memory)" and heads["corruptions disk"] == "Corruptions (disk)"
    assert "mce memory" in heads and "mce disk" not in heads  # three of 75 conditions make no mCE
    assert "alexnet-50k" in heads["mce memory"] and "↓" in heads["mce memory"]
    assert any("disk" in note and "memory" in note for note in imagenet.notes)


def test_extras_are_no_part_of_the_mean(imagenet):
    scores = row(imagenet, "timm:first").scores
    hint = next(c.hint for c in imagenet.columns if c.key == "corruptions memory")
    assert "75 tasks (15 corruptions)" in hint
    assert scores["extras memory"].value != scores["corruptions memory"].value


def test_a_model_with_fewer_conditions_has_no_mean_and_says_why(imagenet):
    large = row(imagenet, "timm:large")
    assert large.scores["corruptions memory"] is None and "5 of 75" in large.why["corruptions memory"]
    assert large.scores["mce memory"] is None and "70 of 75" in large.why["mce memory"]
    assert large.scores["corruptions disk"] is not None
    assert "timm:large" not in imagenet.severity["mean (memory)"]
    assert any("224 and 299" in note for note in imagenet.notes)


def test_one_mode_alone_needs_no_name(maker):
    made = replace(maker.derived_models[0], n=40)
    for severity in (1, 2):
        maker.dose(made, "fog", severity, right())
    part = section(maker.store)
    assert [c.label for c in part.columns] == ["Clean", "Corruptions"] and list(part.severity) == ["fog"]


def test_mce_needs_every_condition(maker):
    missing = ("snow", 5)
    made = replace(maker.derived_models[0], n=40)
    for name in CORRUPTIONS:
        for severity in range(1, 6):
            if (name, severity) != missing:
                maker.dose(made, name, severity, right())
    assert not any(c.key.startswith("mce") for c in section(maker.store).columns)
    maker.dose(made, *missing, right(), mode="disk")  # of another mode: no replacement
    assert not any(c.key.startswith("mce") for c in section(maker.store).columns)
    maker.dose(made, *missing, right(30))  # on the 30 images that all have
    score = row(section(maker.store), made.model).scores["mce memory"]
    assert score is not None and score.n == 30


def test_alexnet_is_a_yardstick_for_its_own_task_alone(maker):
    first, large = maker.derived_models[0], maker.derived_models[2]
    maker.dose(replace(first, n=4), "fog", 1, right(4))
    maker.dose(replace(large, n=4), "fog", 1, right(4))
    maker.dose(maker.models[0], "fog", 1, right(4))
    maker.published(first, "fog", 1, right(4), "imagenet-c")
    maker.published(first, "sparkles", 1, right(4), "imagenet-c-bar")
    told = {(r.model, r.dataset): unlike_alexnet(r) for r in read(maker.store.cells())}
    assert told["timm:first", "imagenet"] == "" and told["timm:first", "imagenet-c/fog/1"] == ""
    assert "299 pixels" in told["timm:large", "imagenet"]
    assert "1000 classes" in told["samples:digits-robust", "digits"]
    assert "imagenet-c-bar" in told["timm:first", "imagenet-c-bar/sparkles/1"]


def test_published_files_stand_with_their_parent_in_a_mode_of_their_own(maker):
    made = replace(maker.derived_models[0], n=40)
    clean = right()
    maker.verdicts(made, clean)
    for severity in (1, 3, 5):
        maker.dose(made, "fog", severity, right(share=0.9))
        maker.published(made, "fog", severity, right(share=0.2), "imagenet-c")
        maker.published(made, "sparkles", severity, right(share=0.2), "imagenet-c-bar")
    (part,) = summarise(maker.store.cells()).sections
    assert part.dataset == "imagenet" and [r.model for r in part.rows] == [made.model]
    scores = part.rows[0].scores
    assert scores["corruptions memory"].value > 0.7 > 0.4 > scores["corruptions files of imagenet-c"].value
    assert scores["clean"].value == clean.mean()
    assert "corruptions files of imagenet-c-bar" in scores
    assert "fog 3 (files of imagenet-c)" in {t.name for t in part.tasks} and "fog 3" in {t.name for t in part.tasks}
    assert set(part.severity) >= {"fog (memory)", "fog (files of imagenet-c)", "sparkles (files of imagenet-c-bar)"}
    curve = part.severity["fog (files of imagenet-c)"][made.model]
    assert curve.x.tolist() == [0, 1, 3, 5] and curve.value[0] == clean.mean()


def test_an_adversary_on_published_files_is_none_on_the_clean_images(maker):
    made = maker.derived_models[0]
    own = replace(made, dataset="imagenet-c/fog/3")
    task = {"kind": "adversary", "norm": "linf", "rungs": ["4/255"], "pinned": ["4/255"], "attacks": ["fgsm"]}
    maker.verdicts(made, right())
    maker.published(made, "fog", 3, right(), "imagenet-c")
    data = {"parent": "imagenet", "corruption": ["fog", 3]}
    maker.verdicts(own, right(), "adversary(linf, 4/255*, fgsm)", data, **task)
    (part,) = summarise(maker.store.cells()).sections
    assert not any(c.key.startswith("robust") for c in part.columns)
    assert any("on fog 3 (files of imagenet-c)" in t.name for t in part.tasks)


def test_heat_map(imagenet):
    heat = next(h for h in imagenet.heat if (h.model, h.mode) == ("timm:first", "memory"))
    assert heat.severities == (1, 2, 3, 4, 5) and [r.corruption for r in heat.rows][:15] == list(CORRUPTIONS)
    snow, speckle = (next(r for r in heat.rows if r.corruption == n) for n in ("snow", "speckle_noise"))
    assert not snow.ordered and snow.error is not None and all(snow.scores)
    assert speckle.ordered and speckle.error is None and speckle.mean is None and speckle.scores[1] is None
    assert snow.mean.value == pytest.approx(np.mean([s.value for s in snow.scores]))


def test_frequency_filters_are_curves_over_the_radius(imagenet):
    assert set(imagenet.filters) == {"lowpass", "highpass"}
    low = imagenet.filters["lowpass"]["timm:first"]
    assert low.x.tolist() == [4, 16, 48, 110] and low.value[0] < low.value[-1]
    assert not any("lowpass" in c.key for c in imagenet.columns)


def test_curves_as_a_table(derived_store, imagenet):
    points = curve_points(derived_store.cells())
    low = points[(points["axis"] == "radius") & (points["curve"] == "lowpass") & (points["model"] == "timm:first")]
    assert low["x"].tolist() == [4, 16, 48, 110]
    fog = points[(points["curve"] == "fog (disk)") & (points["model"] == "timm:first")]
    assert fog["value"].tolist() == imagenet.severity["fog (disk)"]["timm:first"].value.tolist()
    assert set(fog["axis"]) == {"severity"} and set(fog["measure"]) == {"accuracy"}


def test_contact_sheet_holds_one_image(derived_store, imagenet):
    sheet = contact_sheet(imagenet.models)
    assert sheet.model == "timm:first" and sheet.mode == "memory" and sheet.image == "test/00000"
    assert list(sheet.rows)[:15] == list(CORRUPTIONS) and set(sheet.rows["fog"]) == {1, 2, 3, 4, 5}


def test_compare_pairs_the_means(derived_store):
    cells = derived_store.cells()
    sides = [
        [c for c in cells if c.description["identity"]["model"]["name"] == n] for n in ("timm:first", "timm:second")
    ]
    found = {(p.task, p.measure): p for p in compare(*sides).pairs}
    mean = found["75 corruption tasks (memory)", "mean accuracy"]
    mce = found["75 corruption tasks (memory)", "mCE ↓ (alexnet-50k)"]
    assert mean.difference.value == pytest.approx(mean.first.value - mean.second.value)
    assert mce.difference.value == pytest.approx(mce.first.value - mce.second.value) and mce.difference.value < 0
    assert mce.difference.low < mce.difference.value < mce.difference.high
    # paired on the same images: narrower than both intervals side by side
    assert mce.difference.high - mce.difference.low < (mce.first.high - mce.first.low) + (
        mce.second.high - mce.second.low
    )
    assert ("75 corruption tasks (memory)", "relative mCE ↓ (alexnet-50k)") in found
    assert ("3 corruption tasks (disk)", "mean accuracy") in found
    assert not any("75" in task and "disk" in task for task, _ in found)


def test_compare_says_when_only_the_modes_differ(maker):
    first, second = (replace(made, n=40) for made in maker.derived_models[:2])
    for made, mode in ((first, "memory"), (second, "disk")):
        maker.verdicts(made, right())
        for severity in (1, 2):
            maker.dose(made, "fog", severity, right(), mode)
    cells = maker.store.cells()
    sides = [[c for c in cells if c.description["identity"]["model"]["name"] == m.model] for m in (first, second)]
    told = compare(*sides)
    assert [p.task for p in told.pairs] == ["clean"]
    assert any("different modes (memory and disk)" in note for note in told.notes)


def test_the_page_tells_it_all(derived_store, browser, tmp_path):
    page = build_report(derived_store.cells(), tmp_path / "report.html")
    html = page.read_text("utf-8")
    for text in (
        "Corruption by corruption", "One image through every corruption", "Is it right as often as it is sure?",
        "Accuracy against frequency", "mCE ↓ alexnet-50k (memory)", "severities not ordered by harm",
        "Effective robustness, timm-2026-in1k", "class rule: full here, subset on imagenet-a-clean",
    ):  # fmt: skip
        assert text in html, text
    assert html.count("data:image/webp") < 130  # one sheet, not one a model
    browser.open(page, width=390)
    browser.until(lambda: browser.script("return document.documentElement.dataset.ready"), 60)
    assert browser.script("return document.documentElement.scrollWidth") <= 390
    assert len(browser.all("#shifts .chart svg.marks")) == 5
    assert browser.console_errors() == [] and browser.requests() == []
