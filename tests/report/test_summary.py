import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aresbench.core.errors import StoreError
from aresbench.report.breakers import CLEAN, RESISTED
from aresbench.report.gallery import amplified, class_name, gallery
from aresbench.report.reading import Reading, read
from aresbench.report.summary import Section, Summary, frame, summarise
from aresbench.store import Store


def section(summary: Summary | Store, dataset: str = "digits") -> Section:
    found = summary if isinstance(summary, Summary) else summarise(summary.cells())
    return next(s for s in found.sections if s.dataset == dataset)


@pytest.fixture(scope="module")
def summary(full_store: Store) -> Summary:
    return summarise(full_store.cells())


def images(store: Store, model: str, task: str) -> pd.DataFrame:
    return next(r for r in read(store.cells()) if r.model == model and r.name == task).images


def test_datasets_never_share_a_table(summary):
    assert [(s.dataset, len(s.rows)) for s in summary.sections] == [("digits", 2), ("samples", 3)]
    assert all(row.model.startswith("samples:digits") for row in summary.sections[0].rows)


def test_scores_are_counts_of_rows(full_store, summary):
    row = next(r for r in section(summary).rows if r.model == "samples:digits-plain")
    clean = images(full_store, row.model, "clean")
    assert row.scores["clean"].value == clean["correct"].mean() and row.scores["clean"].n == 300
    broken = [
        set(table.index[table["breaking_budget"].isin(within)])
        for table, within in (
            (images(full_store, row.model, "APGD-CE-50"), ["0", "8/255"]),
            (images(full_store, row.model, "PGD-20 ladder"), ["0", "1/255", "2/255", "4/255", "6/255", "8/255"]),
        )
    ]
    score = row.scores["robust linf 8/255"]
    assert score.value == pytest.approx(1 - len(broken[0] | broken[1]) / 300)
    assert score.low < score.value < score.high


def test_more_evidence_only_lowers_a_curve(summary):
    for part in summary.sections:
        joined = next(c for c in part.curves if c.joined)
        for single in (c for c in part.curves if not c.joined):
            for model, curve in single.curves.items():
                at = [joined.budgets.index(b) for b in single.budgets]
                assert (joined.curves[model].value[at] <= curve.value + 1e-12).all()
        for model, curve in joined.curves.items():
            assert (np.diff(curve.value) <= 0).all()
            scores = next(r for r in part.rows if r.model == model).scores
            for eps in joined.pinned:  # a table and a figure must not tell two stories
                assert curve.value[joined.budgets.index(eps)] == scores[f"robust linf {eps}"].value


def test_the_best_model_stands_first(summary):
    assert section(summary).rows[0].model == "samples:digits-robust"


def test_what_is_missing_is_missing_and_says_why(maker):
    from_conftest = maker.models
    robust, plain = from_conftest[:2]
    maker.everything(robust)
    labels, right = np.zeros(300, dtype=int), np.ones(300, dtype=bool)
    maker.corruption(plain, "fog", 1, labels, right, np.random.default_rng(0))
    row = next(r for r in section(maker.store).rows if r.model == plain.model)
    assert row.scores["robust linf 8/255"] is None and row.scores["area linf"] is None and row.scores["clean"] is None
    assert row.scores["corruptions"] is None  # a mean over one corruption answers another question than one over five
    assert row.why["corruptions"] == "1 of 15 corruption tasks measured"
    assert section(maker.store).severity["fog"].keys() == {robust.model, plain.model}


def test_other_seeds_are_other_sections_and_other_weights_other_models(maker):
    made = maker.models[0]
    maker.clean(made, np.zeros(40, dtype=int), np.ones(40, dtype=bool))
    maker.clean(replace(made, seed=1), np.zeros(40, dtype=int), np.zeros(40, dtype=bool))
    sections = summarise(maker.store.cells()).sections
    assert sorted(s.rows[0].scores["clean"].value for s in sections) == [0.0, 1.0]
    assert any("seed" in s.title for s in sections)


def test_one_name_with_two_preprocessings_is_two_models(maker):
    made = maker.models[0]
    maker.clean(made, np.zeros(40, dtype=int), np.ones(40, dtype=bool))
    maker.clean(replace(made, resize=36), np.zeros(40, dtype=int), np.zeros(40, dtype=bool))
    (only,) = summarise(maker.store.cells()).sections
    assert {row.model for row in only.rows} == {f"{made.model} [resize={r}]" for r in (32, 36)}


def test_an_empty_store_is_refused_with_a_remedy(maker):
    with pytest.raises(StoreError, match="aresbench run"):
        summarise(maker.store.cells())


def test_severity_starts_at_the_clean_image(summary):
    part = section(summary)
    for curves in part.severity.values():
        for model, curve in curves.items():
            clean = next(r for r in part.rows if r.model == model).scores["clean"]
            assert list(curve.x) == [0, 1, 3, 5] and curve.value[0] == clean.value
    mean = part.severity["mean"]["samples:digits-plain"].value
    singles = [c["samples:digits-plain"].value for name, c in part.severity.items() if name != "mean"]
    assert mean == pytest.approx(np.mean(singles, axis=0))


def test_steps_end_at_the_number_in_the_table(summary):
    part = section(summary)
    for steps in part.steps:
        for model, curve in steps.curves.items():
            reading = next(r for r in part.models[model] if r.name == "APGD-CE-50")
            alive = (reading.breaking > [8 / 255, 32 / 255][steps.eps == "32/255"]).mean()
            assert curve.value[-1] == pytest.approx(alive) and len(curve.x) == 51


def test_every_image_has_one_fate(summary):
    for part in summary.sections:
        for outcome in part.broke:
            assert sum(outcome.counts.values()) == outcome.n
            scores = next(r for r in part.rows if r.model == outcome.model).scores
            assert outcome.counts.get(RESISTED, 0) / outcome.n == scores[f"robust {outcome.norm} {outcome.eps}"].value
            assert max(outcome.broken_by.values(), default=0) <= sum(outcome.counts.values()) - outcome.counts[CLEAN]
            assert 1 - outcome.counts.get(CLEAN, 0) / outcome.n == pytest.approx(scores["clean"].value)


def test_flags_are_told_once_and_mark_the_number(summary):
    part = section(summary)
    names = [f.name for f in part.flags]
    assert names == ["clean-accuracy", "nondeterministic"] and part.flags[0].remedy
    plain = next(r for r in part.rows if r.model == "samples:digits-plain")
    assert plain.scores["clean"].flags == ("clean-accuracy",)
    assert section(summary).rows[0].scores["clean"].flags == ()  # an info is no reason to doubt


def test_frame_has_one_row_per_cell(full_store):
    table = frame(full_store.cells())
    assert len(table) == len(full_store.cells()) and table["key"].is_unique
    clean = table[(table["task"] == "clean") & (table["model"] == "samples:digits-plain")].iloc[0]
    assert clean["n"] == 300 and clean["low"] < clean["value"] < clean["high"]
    assert math.isnan(clean["accuracy at L∞ 8/255"])
    assert table[table["task"] == "APGD-CE-50"]["backwards"].gt(0).all()


def test_a_view_looks_at_its_images_only(full_store):
    cell = next(r.cell for r in read(full_store.cells()) if r.name == "APGD-CE-50" and r.dataset == "digits")
    view = Reading(cell, frozenset(f"test/{i:05d}" for i in range(50)))
    (row,) = summarise([view]).sections[0].rows
    assert row.scores["robust linf 8/255"].n == 50 and set(view.attempts["id"]) <= view.ids


def test_gallery_shows_every_model_and_the_labels(summary):
    part = section(summary)
    triples = gallery(part.models)
    assert {t.model for t in triples} == set(part.models)
    broken = [t for t in triples if "L∞" in t.what]
    assert broken and all(t.broken and t.before != t.after for t in broken)
    assert all(t.clean.startswith("data:image/") for t in triples)


def test_differences_are_amplified_around_grey():
    clean = np.full((4, 4, 3), 100, dtype=np.uint8)
    changed = clean.copy()
    changed[0, 0] += 4
    picture, factor = amplified(Image.fromarray(clean), Image.fromarray(changed))
    shown = np.asarray(picture)
    assert factor == 32 and shown[1, 1, 0] == 127 and shown[0, 0, 0] == 255


@pytest.mark.parametrize(("index", "name"), [(0, "tench"), (7, "class 7"), (None, "–"), (math.nan, "–"), (pd.NA, "–")])
def test_class_names(index: object, name: str) -> None:
    classes: Sequence[str] = ["tench, Tinca tinca"]
    assert class_name(index, classes) == name


def test_a_change_too_small_for_a_picture_says_so():
    picture = Image.fromarray(np.full((4, 4, 3), 100, dtype=np.uint8))
    assert amplified(picture, picture)[1] == 0


def test_a_corrupted_picture_tells_the_answer_on_the_clean_one(maker):
    made, rng = maker.models[0], np.random.default_rng(0)
    labels = np.zeros(9, dtype=int)
    maker.clean(made, labels, np.ones(9, dtype=bool))
    maker.corruption(made, "fog", 3, labels, np.zeros(9, dtype=bool), rng, answer=4)
    (triple,) = gallery(section(maker.store).models)
    assert (triple.before, triple.after, triple.broken) == ("0", "4", True)
