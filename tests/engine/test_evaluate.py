"""A run from plan to rows: what is computed, what is reused, what survives a kill, and what fails alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import aresbench as ab
from aresbench.core.errors import AresError, DataError, ModelError, SpecError, UnknownName
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine.plan import make_plan
from aresbench.models.classifier import Classifier
from aresbench.models.load import load_model
from aresbench.store import Store

CURVE = "adversary(linf, [0.01, 0.02, 0.03*, 0.05, 0.1*], pgd(steps=5), bound=fmn(steps=8))"
TASKS = [
    ab.Task("digits", "clean"),
    ab.Task("digits", "corruption(fog, 3)"),
    ab.Task("digits", CURVE, name="curve"),
]
SIZES = {"0": 0.0, "0.01": 0.01, "0.02": 0.02, "0.03": 0.03, "0.05": 0.05, "0.1": 0.1, None: np.inf}


@pytest.fixture
def store(tmp_path):
    return tmp_path / "runs"


def run(store, n=40, models="samples:digits-plain", tasks=TASKS, **options):
    return ab.evaluate(models, tasks, n=n, store=store, doctor=False, **options)


def rows(results, table="images"):
    frame = getattr(results, table)()
    keys = ["task", "id"] if table == "images" else ["task", "id", "attack", "eps"]
    return frame.sort_values(keys).reset_index(drop=True)


def test_one_row_per_image_and_every_verdict_follows_from_its_attempts(store, digits):
    results = run(store)
    assert results.tasks == ["clean", "fog 3", "curve"]
    images = results["curve"].images().set_index("id")
    attempts = results["curve"].attempts()
    assert len(images) == 40
    model = load_model("samples:digits-plain").eval()
    with torch.no_grad():
        predicted = dict(zip(digits[2], model(digits[0]).argmax(1).tolist(), strict=True))
    for image_id, row in images.iterrows():
        assert row.prediction == predicted[image_id]
        mine = attempts[attempts.id == image_id]
        if not row.correct:
            assert row.breaking_budget == "0"
            assert mine.empty
            continue
        broken = mine[mine.verdict == "broken"]
        reach = [SIZES[e] if e else d for e, d in zip(broken.eps, broken.distance, strict=True)]
        reach += list(broken.distance)
        rung = min(s for s in SIZES.values() if s > 0 and any(r <= s * (1 + 1e-6) + 1e-7 for r in reach))
        assert SIZES[row.breaking_budget] == rung
        assert row.breaking_distance == pytest.approx(broken.distance.min())
        assert row.adv_prediction in set(broken[broken.attack == row.broken_by].adv_prediction)
        pins = mine[mine.pinned].set_index("eps").verdict
        assert "0.03" in pins, "a pinned budget is attacked"
        assert ("0.1" in pins) == (pins["0.03"] != "broken"), "the next pin only where the first was resisted"
        unpinned = mine[~mine.pinned]
        assert unpinned.first_step.isna().all(), "only pinned budgets say 'step t of a T-step run'"


def test_the_second_run_computes_nothing_and_a_larger_n_only_the_rest(store):
    first = rows(run(store, n=20))
    events = []
    again = rows(run(store, n=20, progress=events.append))
    pd.testing.assert_frame_equal(first, again)
    assert [e.total for e in events if e.kind == "start"] == [0, 0, 0]
    more = run(store, n=40, progress=events.append)
    assert [e.total for e in events if e.kind == "start"][3:] == [20, 20, 20]
    assert len(more["clean"].images()) == 40
    assert len(run(store, n=20)["clean"].images()) == 20, "a view of 20 shows 20, whatever the archive holds"


def test_growing_and_all_at_once_give_the_same_rows(tmp_path):
    run(tmp_path / "grown", n=13)
    grown = run(tmp_path / "grown", n=40)
    whole = run(tmp_path / "whole", n=40)
    for table in ("images", "attempts"):
        a, b = rows(grown, table), rows(whole, table)
        floats = a.select_dtypes("float").columns
        pd.testing.assert_frame_equal(a.drop(columns=floats), b.drop(columns=floats))
        np.testing.assert_allclose(a[floats], b[floats], rtol=1e-3, atol=1e-4)


def test_archives_merge_by_copying(tmp_path):
    data = load_dataset("digits")
    for part, where in ((data[:16], "a"), (data[16:32], "b")):
        ab.evaluate("samples:digits-plain", TASKS, data=part, store=tmp_path / where, doctor=False)
    shutil.copytree(tmp_path / "a", tmp_path / "both")
    shutil.copytree(tmp_path / "b", tmp_path / "both", dirs_exist_ok=True)
    events = []
    merged = run(tmp_path / "both", n=32, progress=events.append)
    assert sum(e.total for e in events if e.kind == "start") == 0
    whole = run(tmp_path / "whole", n=32)
    assert rows(merged)["breaking_budget"].equals(rows(whole)["breaking_budget"])


SCRIPT = """
import sys
import aresbench as ab
ab.evaluate("samples:digits-robust", [ab.Task("digits", sys.argv[2])], n=120, store=sys.argv[1], doctor=False, batch=8)
"""
LONG = "adversary(linf, [0.05, 0.1*, 0.15, 0.2*], apgd-ce(steps=20), bound=fmn(steps=10))"


def test_a_killed_run_goes_on_and_ends_with_the_same_rows(tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed"), LONG]
    for _ in range(3):
        process = subprocess.Popen(arguments, env=env)
        before = _attempts(tmp_path / "killed")
        deadline = time.monotonic() + 120
        while process.poll() is None and _attempts(tmp_path / "killed") <= before + 10:
            assert time.monotonic() < deadline, "the run writes nothing"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert _attempts(tmp_path / "killed") > before
    tasks = [ab.Task("digits", LONG)]
    resumed = run(tmp_path / "killed", n=120, models="samples:digits-robust", tasks=tasks)
    whole = run(tmp_path / "whole", n=120, models="samples:digits-robust", tasks=tasks)
    a, b = rows(resumed, "attempts"), rows(whole, "attempts")
    assert len(a) == len(b)
    assert (a.verdict == b.verdict).mean() >= 0.995
    assert (rows(resumed)["breaking_budget"].fillna("-") == rows(whole)["breaking_budget"].fillna("-")).mean() >= 0.99


def _attempts(folder: Path) -> int:
    """Rows journalled or sealed so far."""
    return sum(len(cell.attempts()) for cell in Store(folder).cells()) if (folder / "archive.json").exists() else 0


class Exploding(nn.Module):
    def forward(self, x):
        raise RuntimeError("out of cheese")


def test_a_failing_model_fails_alone(store):
    bad = Classifier(Exploding(), classes=[str(k) for k in range(10)], preprocessing=32, name="bad")
    good = load_model("samples:digits-plain")
    results = run(store, models=[bad, good], tasks=TASKS[:1])
    assert results.models == ["samples:digits-plain"]
    assert [s.model for s in results.failed] == ["bad"]
    assert "out of cheese" in results.failed[0].reason


def test_too_few_outputs_are_named(store):
    small = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)), preprocessing=32, name="small")
    assert small.num_classes in (None, 4)
    with pytest.raises(ModelError, match="no task suits small") if small.num_classes == 4 else _nothing():
        results = run(store, models=small, tasks=TASKS[:1])
        assert "4 outputs" in results.failed[0].reason


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return False


def test_a_user_s_folder_is_matched_by_name_and_refused_where_it_cannot_be(tmp_path, store):
    data = load_dataset("digits")
    # Folder order would be eight, five, …: only the names say which digit is which.
    words = {"0": "zero", "1": "one", "2": "two"}
    for k in range(60):
        label = str(data.labels[k])
        if label in words:
            folder = tmp_path / "photos" / words[label]
            folder.mkdir(parents=True, exist_ok=True)
            data.picture(k).save(folder / f"{k}.png")
    plain = load_model("samples:digits-plain")
    named = Classifier(
        plain.module,
        mean=plain.mean.flatten().tolist(),
        std=plain.std.flatten().tolist(),
        classes=["zero", "one", "two", *"3456789"],
        preprocessing=plain.preprocessing,
        name="named",
    )
    results = run(store, n=None, models=named, tasks=[ab.Task(f"folder:{tmp_path / 'photos'}", "clean")])
    assert results.images()["correct"].mean() > 0.95
    with pytest.raises(AresError, match="matches none"):
        run(store, n=None, models=plain, tasks=[ab.Task(f"folder:{tmp_path / 'photos'}", "clean")])
    nameless = Classifier(plain.module, preprocessing=32, name="nameless")
    with pytest.raises(AresError, match="does not say what its outputs mean"):
        run(store, n=None, models=nameless, tasks=[ab.Task(f"folder:{tmp_path / 'photos'}", "clean")])


def test_unreadable_images_stop_the_cell_or_are_left_out_by_name(tmp_path, store):
    data = load_dataset("digits")
    for k in range(30):
        folder = tmp_path / "photos" / str(data.labels[k])
        folder.mkdir(parents=True, exist_ok=True)
        data.picture(k).resize((64, 64)).save(folder / f"{k}.png")
    broken = next((tmp_path / "photos").rglob("*.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    task = [ab.Task(f"folder:{tmp_path / 'photos'}", "clean")]
    stopped = run(store, n=None, tasks=task)
    assert len(stopped) == 0
    assert broken.name in stopped.failed[0].reason
    left = run(store, n=None, tasks=task, on_bad="skip")
    assert len(left.images()) == 29
    flags = {f["name"]: f for f in left.readings[0].cell.flags()}
    assert flags["unreadable-images"]["evidence"]["count"] == 1
    assert broken.name in flags["unreadable-images"]["message"]


def test_the_first_image_may_be_the_unreadable_one_where_nothing_fixes_the_size(tmp_path, store):
    data = load_dataset("digits")
    for k in range(12):
        folder = tmp_path / "photos" / str(data.labels[k])
        folder.mkdir(parents=True, exist_ok=True)
        data.picture(k).resize((32, 32)).save(folder / f"{k}.png")
    spec = f"folder:{tmp_path / 'photos'}"
    first = tmp_path / "photos" / load_dataset(spec).ids[0]
    first.write_bytes(first.read_bytes()[:60])
    plain = load_model("samples:digits-plain")
    sizeless = Classifier(plain.module, classes=plain.classes, name="sizeless")
    left = run(store, n=None, models=sizeless, tasks=[ab.Task(spec, "clean")], on_bad="skip")
    assert len(left.images()) == 11


class Noisy(nn.Module):
    """Draws in its forward pass, as a randomised defence does."""

    def __init__(self):
        super().__init__()
        self.net = load_model("samples:digits-plain")

    def forward(self, x):
        return self.net(x) + 5 * torch.randn(len(x), 10)


def test_a_model_that_draws_is_measured_the_same_whatever_the_global_state(tmp_path):
    model = Classifier(Noisy().eval(), classes=[str(k) for k in range(10)], preprocessing=32, name="noisy")
    tables = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results = ab.evaluate(model, TASKS[:1], n=40, store=tmp_path / str(seed))
        assert torch.equal(torch.get_rng_state(), before)
        tables.append(rows(results))
    assert tables[0].margin.tolist() == tables[1].margin.tolist()


def test_equal_tasks_share_a_cell_and_other_settings_do_not(store):
    keys = set()
    for threat in (
        "adversary(linf, 0.1, pgd)",
        "adversary(linf, 0.1, pgd(steps=20))",
        "adversary(linf, [0.1*], [pgd])",
    ):
        plan = make_plan("samples:digits-plain", [ab.Task("digits", threat)], Store(store), n=4)
        keys.add(plan.cells[0].cell.key)
    assert len(keys) == 1
    for options in ({"seed": 1}, {}):
        threat = "adversary(linf, 0.1, pgd(steps=21))" if not options else "adversary(linf, 0.1, pgd)"
        plan = make_plan("samples:digits-plain", [ab.Task("digits", threat)], Store(store), n=4, **options)
        keys.add(plan.cells[0].cell.key)
    assert len(keys) == 3


def test_a_black_box_adversary_gets_no_gradient_bound(store):
    task = ab.Task("digits", "adversary(linf, [0.05, 0.1, 0.2], square(queries=20))")
    attempts = run(store, n=6, tasks=[task]).attempts()
    assert set(attempts.attack.str.split("(").str[0]) == {"square"}
    assert (attempts.backwards == 0).all()


def test_examples_show_the_image_and_what_was_made_of_it(store):
    results = run(store, n=10)
    cell = results["curve"].readings[0].cell
    examples = cell.examples().set_index("id")
    images = results["curve"].images().set_index("id")
    assert 1 <= len(examples) <= 6
    import io

    for image_id, example in examples.iterrows():
        clean = np.asarray(Image.open(io.BytesIO(example.clean_png))).astype(int)
        assert clean.shape == (32, 32, 3)
        if example.changed_png is not None:
            changed = np.asarray(Image.open(io.BytesIO(example.changed_png))).astype(int)
            size = SIZES[images.loc[image_id].breaking_budget]
            assert 0 < np.abs(changed - clean).max() <= np.ceil(size * 255)


def test_examples_are_the_first_of_what_was_asked_for_wherever_it_stands_in_the_whole(store):
    data = ab.load_dataset("digits")[40:48]
    (reading,) = ab.evaluate("samples:digits-plain", TASKS[:1], data=data, store=store, doctor=False)
    assert sorted(reading.cell.examples()["id"]) == sorted(data.ids[:6])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: run(s, models="samples:digits-plian"), UnknownName, "digits-plain"),
        (lambda s: run(s, tasks="quickstrat"), UnknownName, "quickstart"),
        (lambda s: run(s, tasks=["clean"]), SpecError, "not a task"),
        (lambda s: run(s, n=501, tasks=TASKS[:1]), AresError, "500"),
        (lambda s: run(s, models=[]), SpecError, "no model"),
        (lambda s: run(s, tasks=[ab.Task("digits", "adversary(l0, 3, pgd)")]), SpecError, "l0"),
        (
            lambda s: run(s, tasks=[ab.Task("digits", "adversary(linf, [0.1*, 0.2], pgd, bound=bim)")]),
            SpecError,
            "inside a budget",
        ),
        (
            lambda s: run(s, tasks=[ab.Task("digits", "adversary(linf, [0.1, 0.2], pgd, bound=pgd(steps=50))")]),
            SpecError,
            "inside a budget",
        ),
        (
            lambda s: ab.evaluate("samples:digits-plain", TASKS[:1], data="folder:/nowhere", store=s),
            DataError,
            "nowhere",
        ),
    ],
)
def test_bad_words_are_refused_before_anything_is_computed(store, call, error, words):
    with pytest.raises(error, match=words):
        call(store)


def test_results_select_print_and_refuse(store):
    results = run(store, n=10, models=["samples:digits-plain", "samples:digits-robust"])
    assert len(results["curve"]) == 2
    assert results["samples:digits-plain"].tasks == results.tasks
    assert len(results["curve"]["samples:digits-robust"].images()) == 10
    frame = results.frame()
    assert len(frame) == 6
    assert "digits-robust" in repr(results)
    assert "<table" in results._repr_html_()
    with pytest.raises(UnknownName, match="curve"):
        results["curv"]


def test_a_bare_module_is_asked_what_its_outputs_mean(tmp_path):
    with pytest.raises(ModelError, match="Sequential does not say"):
        ab.evaluate(nn.Sequential(nn.Flatten()), [ab.Task("digits", "clean")], n=2, store=tmp_path)


def test_of_several_datasets_a_small_one_gives_what_it_has(store):
    tasks = [ab.Task("digits", "clean"), ab.Task("digits(split=train)", "clean", name="train")]
    sizes = [len(r.images) for r in run(store, n=510, tasks=tasks)]
    assert sizes == [500, 510]


def test_a_cell_that_never_began_leaves_nothing(store):
    bad = Classifier(Exploding(), classes=[str(k) for k in range(10)], preprocessing=32, name="bad")
    results = ab.evaluate(bad, TASKS[:1], n=4, store=store)
    assert results.failed
    assert Store(store).cells() == []


def test_a_report_of_something_else_is_refused(store):
    for wrong in (str(store), store, 3):
        with pytest.raises(SpecError, match="is not results"):
            ab.report(wrong, "report.html")


def test_a_model_with_one_output_is_refused(store):
    lone = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3072, 1)), preprocessing=32, name="lone")
    with pytest.raises(ModelError, match="nothing to choose between"):
        ab.attack(lone, torch.rand(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64))


def test_attacks_that_look_for_the_nearest_break_stand_in_a_list_or_alone(tmp_path):
    task = ab.Task("digits", "adversary(linf, [0.02, 0.1*], [pgd(steps=3), fmn(steps=15)])")
    results = ab.evaluate("samples:digits-plain", [task], n=20, store=tmp_path)
    (cell,) = list(results)
    attempts = cell.attempts
    near = attempts[attempts["attack"] == "fmn(steps=15)"]
    assert (near["eps"] == "").all()
    assert near["id"].is_unique
    rows = cell.images
    for found in near[near["verdict"] == "broken"].itertuples():  # what it finds decides every rung at or above it
        assert float(rows.loc[found.id, "breaking_distance"]) <= found.distance
        if found.distance <= 0.02:
            assert rows.loc[found.id, "breaking_budget"] == "0.02"
    broken = attempts[attempts["verdict"] == "broken"]
    assert set(broken["survives_rounding"].dropna()) <= {True, False}
    assert broken["survives_rounding"].notna().all()
    alone = ab.evaluate(
        "samples:digits-plain", [ab.Task("digits", "adversary(linf, [0.02, 0.1], fmn(steps=15))")], n=20, store=tmp_path
    )
    (cell,) = list(alone)
    assert set(cell.attempts["attack"]) == {"fmn(steps=15)"}, "no bound beside an attack that is one itself"


def test_a_transfer_searches_on_the_surrogate_and_asks_the_model_once(tmp_path):
    text = "transfer(linf, [0.1*, 0.2*], mim, from=samples:digits-robust)"
    (reading,) = list(ab.evaluate("samples:digits-plain", [ab.Task("digits", text)], n=40, store=tmp_path))
    attempts = reading.attempts
    assert (attempts["backwards"] == 0).all(), "nobody sees the model's gradients"
    assert (attempts["forwards"] <= 2).all(), "the judge, and once more in eight bits"
    broken = attempts[attempts["verdict"] == "broken"]
    assert 0 < len(broken) < len(attempts)
    # The very images that the surrogate's own attack ends at.
    data, plain = load_dataset("digits")[:40], load_model("samples:digits-plain")
    x, _, _ = load_images(data, range(40), plain.preprocessing)
    out = ab.attack(
        plain, x, torch.tensor(data.labels), "mim", "linf:0.1", ids=data.ids,
        surrogate=load_model("samples:digits-robust"),
    )  # fmt: skip
    at = attempts[attempts["eps"] == "0.1"]
    ids = {data.ids[k] for k in out.broken.nonzero().flatten().tolist()}
    assert set(at[at["verdict"] == "broken"]["id"]) == ids
    with pytest.raises(SpecError, match="nearest break"):
        ab.evaluate(
            "samples:digits-plain",
            [ab.Task("digits", "transfer(l2, 1, ddn, from=samples:digits-robust)")],
            store=tmp_path,
        )
