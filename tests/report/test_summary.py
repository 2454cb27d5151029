import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aresbench.core.errors import StoreError
from aresbench.report.breakers import CLEAN, RESISTED
from aresbench.report.charts import progress_chart
from aresbench.report.gallery import amplified, class_name, gallery
from aresbench.report.points import curve_points
from aresbench.report.reading import Reading, read
from aresbench.report.summary import Section, Summary, frame, measures, summarise
from aresbench.report.words import plain
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
    assert (
        row.scores["corruptions memory"] is None
    )  # a mean over one corruption answers another question than one over five
    assert row.why["corruptions memory"] == "1 of 15 corruption tasks measured"
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


def test_steps_and_queries_end_at_the_number_in_the_table(summary):
    part = section(summary)
    assert {(p.axis, p.attack, p.eps) for p in part.progress} == {
        (axis, "apgd-ce(steps=50)", eps) for axis in ("step", "query") for eps in ("8/255", "32/255")
    }
    for run in part.progress:
        for model, curve in run.curves.items():
            reading = next(r for r in part.models[model] if r.name == "APGD-CE-50")
            alive = (reading.breaking > [8 / 255, 32 / 255][run.eps == "32/255"]).mean()
            assert curve.value[-1] == pytest.approx(alive) and len(curve.x) == (51 if run.axis == "step" else 52)
            success = run.success[model]
            np.testing.assert_allclose(1 - success.value, curve.value / reading.correct.mean())


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


ATTACKS = ["apgd-ce(steps=4)", "fab-t(steps=2)", "square(queries=9)"]


def several_attacks(maker) -> Reading:
    """Seven right images and a wrong one at one pinned budget: who broke which, and when.

    0 APGD at step 1 · 1 APGD at step 3 · 2 FAB · 3 Square at query 2 · 4 Square at query 7 · 5, 6 nobody · 7 wrong
    """
    made = replace(maker.models[0], n=8)
    threat = f"adversary(linf, [2/255*, 4/255*], [{', '.join(ATTACKS)}])"
    task = {"name": "three", "kind": "adversary", "norm": "linf", "rungs": ["2/255", "4/255"], "attacks": ATTACKS}
    description = maker.describe(made, threat, **task, pinned=["2/255", "4/255"])
    cell = maker.store.cell(description)
    rows = maker.rows(np.zeros(8, dtype=int), np.arange(8) < 7)
    by = [ATTACKS[0], ATTACKS[0], ATTACKS[1], ATTACKS[2], ATTACKS[2], None, None, None]
    for row, attack in zip(rows, by, strict=True):
        row["breaking_budget"] = "0" if not row["correct"] else "4/255" if attack else None
        row["breaking_distance"] = 0.0 if not row["correct"] else 3.5 / 255 if attack else None
        row["broken_by"] = attack
    cell.append("images", rows)

    def attempt(i, attack, eps="4/255", first=None, distance=None, survives=None):
        return {
            "id": rows[i]["id"], "position": i, "shard": 0, "attack": attack, "norm": "linf", "eps": eps,
            "start": "cold", "pinned": bool(eps), "verdict": "broken" if distance else "resisted",
            "distance": distance, "first_step": first, "first_query": first, "forwards": 9 if attack == by[3] else 5,
            "backwards": 0, "zero_gradients": 0, "nan_gradients": 0, "rejected": 0,
            "adv_prediction": 1 if distance else None, "survives_rounding": survives, "seed": 0,
        }  # fmt: skip

    at, far = 3.5 / 255, 9 / 255
    attempts = [attempt(i, ATTACKS[0], "2/255") for i in range(7)]
    attempts += [attempt(0, ATTACKS[0], first=1, distance=at, survives=True)]
    attempts += [attempt(1, ATTACKS[0], first=3, distance=at, survives=False)]
    attempts += [attempt(i, ATTACKS[0]) for i in range(2, 7)]
    attempts += [attempt(2, ATTACKS[1], "", distance=at, survives=True)]
    attempts += [attempt(i, ATTACKS[1], "", distance=far) for i in range(3, 7)]  # beyond the last rung
    attempts += [attempt(i, ATTACKS[2], "2/255") for i in range(2, 7)]
    attempts += [attempt(3, ATTACKS[2], first=2, distance=at, survives=True)]
    attempts += [attempt(4, ATTACKS[2], first=7, distance=at, survives=True)]
    attempts += [attempt(i, ATTACKS[2]) for i in (5, 6)]
    cell.append("attempts", attempts)
    return Reading(cell)


def test_attacks_side_by_side_are_the_worst_case_of_each_step(maker):
    reading = several_attacks(maker)
    found = {(p.axis, p.eps, p.attack): p for p in summarise([reading]).sections[0].progress}
    assert ("step", "4/255", ATTACKS[1]) not in found  # a search that is not bound to a budget has no such curve
    (model,) = {m for p in found.values() for m in p.curves}

    def standing(axis, attack):
        return (8 * found[axis, "4/255", attack].curves[model].value).round(6).tolist()

    assert standing("step", ATTACKS[0]) == [7, 6, 6, 5, 5]
    # Square meets five images, of which FAB has taken one: it begins where the others stopped.
    assert standing("query", ATTACKS[2]) == [4, 4, 3, 3, 3, 3, 3, 2, 2, 2]
    # Side by side: Square's 3 falls at 2 and its 4 at 7, APGD's at 1 and 3; FAB's at the end, for nobody knows when.
    assert standing("query", "") == [7, 6, 5, 4, 4, 4, 4, 3, 3, 2]
    worst = found["query", "4/255", ""]
    assert worst.success[model].value[-1] == pytest.approx(5 / 7) and worst.success[model].n[0] == 7
    assert found["step", "2/255", ATTACKS[0]].curves[model].value.tolist() == [7 / 8] * 5


def test_transfers_have_no_curve_over_steps_or_queries(maker):
    """Nobody asked the model about the images before the last, so that a curve would show nothing that happened."""
    reading = several_attacks(maker)
    reading.__dict__["task"] = {**reading.task, "threat": "transfer(linf, [2*, 4*]/255, mim, from=samples:other)"}
    (part,) = summarise([reading]).sections
    assert part.progress == () and part.rows[0].scores["robust linf 4/255"].value == 2 / 8


def test_long_runs_have_an_axis_of_tens():
    records = [{"model": "m", "step": k, "value": 1.0, "low": 1.0, "high": 1.0, "n": 1} for k in (0, 1, 5000)]
    (layer, *_) = progress_chart(records, "step", ["m"])["layer"]
    axis = layer["encoding"]["x"]["axis"]
    assert axis["values"] == [0, 1, 10, 100, 1000] and axis["format"] == "~s"
    (layer, *_) = progress_chart(records[:2], "step", ["m"])["layer"]
    assert layer["encoding"]["x"]["axis"] == {"format": "d", "grid": False, "tickMinStep": 1}


def test_the_worst_case_of_steps_ends_at_the_number_in_the_table(maker):
    several_attacks(maker)
    made = replace(maker.models[0], n=8)
    four = (Fraction(4, 255),)
    limit = np.r_[np.full(7, 1.0), 0.0]
    limit[5] = 3 / 255  # an image that only the other task breaks
    maker.adversary(
        made, "other", four, four, "pgd(steps=7)", 7, np.zeros(8, dtype=int), limit, np.random.default_rng(0)
    )
    (part,) = summarise(maker.store.cells()).sections
    worst = next(p for p in part.progress if (p.axis, p.eps, p.attack) == ("step", "4/255", ""))
    (curve,) = worst.curves.values()
    assert curve.value[-1] == part.rows[0].scores["robust linf 4/255"].value == 1 / 8
    assert {p.attack for p in part.progress if p.axis == "step"} == {"", ATTACKS[0], ATTACKS[2], "pgd(steps=7)"}


def test_a_model_that_the_first_attack_breaks_altogether_has_a_worst_case_too(maker):
    reading = several_attacks(maker)
    tried = reading.attempts
    chosen = reading.images.index[[0, 1, 7]]
    fewer = Reading(reading.cell, frozenset(chosen))
    assert set(fewer.attempts["attack"]) == {ATTACKS[0]} and len(tried) > len(fewer.attempts)
    found = {(p.axis, p.eps, p.attack): p for p in summarise([fewer]).sections[0].progress}
    (curve,) = found["step", "4/255", ""].curves.values()
    assert (3 * curve.value).round(6).tolist() == [2, 1, 1, 0, 0]


def test_accuracy_in_8_bits_counts_only_breaks_that_survive_rounding(maker):
    reading = several_attacks(maker)
    scores = measures(reading)
    assert scores["accuracy at L∞ 4/255"].value == 2 / 8
    assert scores["accuracy at L∞ 4/255 in 8 bits"].value == 3 / 8  # image 1 is no break once rounded
    assert scores["accuracy at L∞ 2/255 in 8 bits"].value == 7 / 8
    assert scores["attack success at L∞ 4/255"].value == pytest.approx(5 / 7)
    eight = reading.breaking_in_8_bits
    assert (eight >= reading.breaking).all() and eight.iloc[7] == 0 and np.isinf(eight.iloc[1])


def test_accuracy_in_8_bits_is_not_guessed_where_nobody_looked(maker):
    reading = several_attacks(maker)
    reading.__dict__["attempts"] = reading.attempts.assign(survives_rounding=pd.NA)
    assert reading.breaking_in_8_bits is None
    assert not any("8 bits" in measure for measure in measures(reading))


def test_the_median_distance_is_infinite_where_most_resist(summary, maker):
    reading = next(r for r in section(summary).models["samples:digits-plain"] if r.name == "PGD-20 ladder")
    score = measures(reading)["median breaking distance"]
    assert score.value / 255 == pytest.approx(np.median(reading.breaking_distance))
    assert score.low <= score.value <= score.high and score.unit == "/255"
    made = replace(maker.models[0], n=30)
    rungs = (Fraction(1, 255), Fraction(2, 255), Fraction(3, 255))
    limit = np.r_[np.full(3, 1.5 / 255), np.full(27, 1.0)]
    maker.adversary(
        made, "strong", rungs, (), "pgd(steps=20)", 20, np.zeros(30, dtype=int), limit, np.random.default_rng(0)
    )
    score = measures(Reading(maker.store.cells()[0]))["median breaking distance"]
    assert np.isinf(score.value) and plain(score) == "∞ [∞–∞]" and score.to_dict()["value"] is None


def test_the_union_of_norms_is_paired_by_image(maker):
    made = replace(maker.models[0], n=40)
    rng = np.random.default_rng(0)
    labels, four = np.zeros(40, dtype=int), (Fraction(4, 255),)
    linf = np.where(np.arange(40) < 4, 0, np.where(np.arange(40) < 20, 3 / 255, 1))
    l2 = np.where(np.arange(40) < 4, 0, np.where(np.arange(40) >= 30, 0.2, 9))
    maker.adversary(made, "linf", four, four, "pgd(steps=20)", 20, labels, linf, rng)
    (first,) = summarise(maker.store.cells()).sections
    assert not any(c.key.startswith("union") for c in first.columns)
    maker.adversary(made, "l2", (Fraction(1, 2),), (Fraction(1, 2),), "pgd(steps=20)", 20, labels, l2, rng, norm="l2")
    (part,) = summarise(maker.store.cells()).sections
    (column,) = [c for c in part.columns if c.key.startswith("union")]
    assert column.label == "L∞ 4/255 ∪ L2 0.5"
    score = part.rows[0].scores[column.key]
    assert (score.value, score.n) == (10 / 40, 40)  # 20 … 29; the four clean errors counted once
    assert part.rows[0].scores["robust linf 4/255"].value == 20 / 40
    assert part.rows[0].scores["robust l2 0.5"].value == 26 / 40
    row = next(t for t in part.tasks if t.name == "all norms together")
    assert row.scores["accuracy under L∞ 4/255 ∪ L2 0.5"] == {made.model: score}


def test_all_points_of_all_curves_in_one_table(full_store, summary):
    points = curve_points(full_store.cells())
    part = section(summary)
    curves = next(c for c in part.curves if c.joined)
    chosen = points[(points["axis"] == "budget") & (points["curve"] == "worst case") & (points["dataset"] == "digits")]
    for model, curve in curves.curves.items():
        mine = chosen[(chosen["model"] == model) & (chosen["measure"] == "accuracy")]
        np.testing.assert_array_equal(mine["value"], curve.value)
        assert mine["budget"].tolist() == list(curves.budgets)
        eight = chosen[(chosen["model"] == model) & (chosen["measure"] == "accuracy in 8 bits")]
        assert (eight["value"].to_numpy() >= mine["value"].to_numpy()).all()
        assert (eight["value"].to_numpy() > mine["value"].to_numpy()).any()
    assert ((points["band_low"] <= points["low"] + 1e-9) & (points["high"] <= points["band_high"] + 1e-9)).all()
    assert set(points["axis"]) == {"budget", "step", "query", "severity"}
