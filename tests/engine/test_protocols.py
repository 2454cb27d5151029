"""The paper's protocols as named settings: the same definition of the curve, reached the paper's way."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

import aresbench as ab
from aresbench.core.budget import format_fraction, parse_budget, parse_fraction
from aresbench.core.suite import load_suite, suite_names
from aresbench.engine.adversary import arm

ATTACK = "pgd(steps=10, rel_step=0.25)"
SEARCH = "search(2/255, doublings=5, bisections=5)"
NEVER = 100.0  # what the paper's code writes for an image that never broke


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """60 digits under the paper's search with fewer steps, and under ladders that share budgets with it."""
    tasks = [
        ab.Task("digits", f"adversary(linf, {SEARCH}, {ATTACK})", name="search"),
        ab.Task("digits", f"adversary(linf, [2*, 4*, 8*, 16*, 32*, 64*]/255, {ATTACK})", name="pinned"),
        ab.Task("digits", f"adversary(linf, [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]/255, {ATTACK})", name="ladder"),
    ]
    store = tmp_path_factory.mktemp("protocols") / "runs"
    return ab.evaluate("samples:digits-robust", tasks, n=60, store=store, doctor=False)


def curve(results, name):
    points = results[name].curves()
    points = points[(points["measure"] == "accuracy") & (points["axis"] == "budget")]
    return dict(zip(points["budget"], points["value"], strict=True))


def test_the_search_agrees_with_a_ladder_where_budgets_coincide(searched):
    by_search, pinned, ladder = (curve(searched, name) for name in ("search", "pinned", "ladder"))
    coarse = [f"{2**k}/255" for k in range(1, 7)]
    # Up to a break both attack the same budgets with the same draws: what breaks is the same but for float noise.
    for eps in coarse:
        assert by_search[eps] == pytest.approx(pinned[eps], abs=1.01 / 60)
    # A ladder with bounds looks for more: it may only be lower, and only a little.
    shared = [eps for eps in ladder if eps in by_search]
    assert len(shared) >= 10
    gap = np.array([by_search[eps] - ladder[eps] for eps in shared])
    assert gap.min() >= -2.01 / 60 and gap.max() <= 4.01 / 60
    values = list(by_search.values())
    assert values == sorted(values, reverse=True) and values[0] > 0.9 and values[-1] < 0.05


def test_the_curve_is_the_papers_share_of_images_beyond_the_budget(searched, robust, digits):
    """The paper's protocol written out in a loop over ``ab.attack`` gives every image the same result."""
    images = searched["search"].images().iloc[:24]
    x, y = digits[0][:24], digits[1][:24]
    ids = digits[2][:24]
    assert images["id"].tolist() == ids
    with torch.no_grad():
        wrong = (robust(x).argmax(1) != y).tolist()
    low, high = [Fraction(0)] * 24, [Fraction(2, 255)] * 24
    result = [0.0 if w else NEVER for w in wrong]

    def broken(rows: list[int]) -> set[int]:
        found: set[int] = set()
        for eps in {high[k] for k in rows}:
            at = [k for k in rows if high[k] == eps]
            budget = f"linf:{format_fraction(eps)}"
            out = ab.attack(robust, x[at], y[at], ATTACK, budget, ids=[ids[k] for k in at])
            found |= {k for k, b in zip(at, out.broken.tolist(), strict=True) if b}
        return found

    climbing = [k for k in range(24) if not wrong[k]]
    for _ in range(6):
        hit = broken(climbing)
        for k in climbing:
            if k in hit:
                result[k] = float(high[k])
            else:
                low[k], high[k] = high[k], 2 * high[k]
        climbing = [k for k in climbing if k not in hit]
    halving = [k for k in range(24) if 0 < result[k] < NEVER]
    top = {k: high[k] for k in halving}
    for _ in range(5):
        for k in halving:
            high[k] = (low[k] + top[k]) / 2
        hit = broken(halving)
        for k in halving:
            if k in hit:
                top[k] = high[k]
            else:
                low[k] = high[k]
    for k in halving:
        result[k] = float(top[k])

    ours = [NEVER if b is None else float(parse_fraction(b)) for b in images["breaking_budget"]]
    assert sum(a != pytest.approx(b) for a, b in zip(ours, result, strict=True)) <= 1  # a margin below float noise
    for mark in parse_budget(f"linf:{SEARCH}").marks:
        assert np.mean([r > float(mark) for r in ours]) == pytest.approx(
            np.mean([r > float(mark) for r in result]), abs=1.01 / 24
        )
    assert [b == "0" for b in images["breaking_budget"]] == wrong


def test_every_image_is_known_to_the_searchs_resolution(searched):
    frame = searched["search"].images()
    search = parse_budget(f"linf:{SEARCH}").search
    attempts = searched["search"].attempts()
    for row in frame.itertuples():
        if row.breaking_budget in ("0", None):
            continue
        size = parse_fraction(row.breaking_budget)
        assert size in search and row.breaking_distance <= float(size) * (1 + 1e-5)
        tried = attempts[attempts["id"] == row.id]
        assert len(tried) <= search.most
        verdicts = dict(zip(map(parse_fraction, tried["eps"]), tried["verdict"], strict=True))
        place = search.index(size)
        # The last size that broke has the next smaller one resisted, unless its break lay nearer than it had to.
        if size in verdicts:
            assert verdicts[size] == "broken" and (place == 0 or verdicts[search[place - 1]] == "resisted")


def test_descriptions_stay_short(searched):
    (reading,) = searched["search"]
    assert len(reading.rungs) <= 64 and len(str(reading.description)) < 6000


def test_the_papers_suite_says_what_the_paper_does():
    ladders = [t.threat.adversary for t in load_suite("ares-curve").tasks if t.threat.adversary]
    assert {str(a.ladder) for a in ladders} == {"linf:search(2/255, doublings=5, bisections=10)"}
    assert [a.attacks for a in ladders] == [("pgd(steps=100, rel_step=0.25)",), ("autoattack",)]


@pytest.mark.parametrize("name", suite_names())
def test_every_attack_of_a_built_in_suite_can_be_made(name):
    for task in load_suite(name).tasks:
        if task.threat.adversary is not None:
            assert arm(task.threat.adversary).attacks


@pytest.mark.parametrize(("suite", "tasks"), [("ares1-distortion", 9), ("ares1-iteration", 7)])
def test_the_benchmarks_of_ares_1_run_on_digits_with_the_same_definition(suite, tasks, tmp_path):
    results = ab.evaluate("samples:digits-robust", suite, data="digits", n=8, store=tmp_path / "runs", doctor=False)
    assert len(results) == tasks and not results.failed
    points = results.curves()
    clean = results["clean"].images()["correct"].mean()
    budgets = points[(points["axis"] == "budget") & (points["measure"] == "accuracy")]
    steps = points[(points["axis"] == "step") & (points["measure"] == "accuracy")]
    for _, one in [*budgets.groupby(["curve", "norm"]), *steps.groupby(["curve", "norm"])]:
        values = one.sort_values("x")["value"].to_numpy()
        assert values[0] == pytest.approx(clean) and (np.diff(values) <= 0).all()
    if suite == "ares1-distortion":
        assert {name for name, _ in budgets.groupby("curve")} >= {"FGSM L∞", "BIM L∞", "MIM L2", "DeepFool L2"}
        distance = results.frame().set_index("task")["median breaking distance"]
        assert distance["MIM L∞"] == pytest.approx(distance["BIM L∞"], rel=0.2)
        assert distance["FGSM L∞"] > distance["BIM L∞"]
    else:
        assert steps["x"].max() == 100 and len(steps["curve"].unique()) == 7  # and the worst case
