"""Reasons to doubt a robustness number: each fires on the fault it is for, with its figures, and on nothing honest."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import aresbench as ab
from aresbench.engine import reliability
from aresbench.models.classifier import Classifier
from aresbench.report.flags import collect_flags
from aresbench.report.page import build_report

DIGITS = [str(k) for k in range(10)]
APGD = "adversary(linf, [0.03*, 0.06*], apgd-ce(steps=10))"
NOISE = torch.Generator().manual_seed(0)


@pytest.fixture
def cell(plain, tmp_path, monkeypatch):
    """Runs the plain digits model with something wrong around it; the cell and its flags by name."""
    monkeypatch.setenv("ARESBENCH_DEBUG", "1")
    monkeypatch.setattr(
        "aresbench.engine.evaluate.examine", lambda *a, **k: []
    )  # what the doctor says beforehand is its own test

    class Planted(nn.Module):
        def __init__(self, forward):
            super().__init__()
            self.net, self.change = plain, forward

        def forward(self, x):
            return self.change(self.net, x)

    def run(forward, threat=APGD, n=40, store="runs"):
        model = forward
        if not isinstance(forward, str):
            model = Classifier(
                Planted(forward).eval(), classes=DIGITS, preprocessing=plain.preprocessing, name="planted"
            )
        results = ab.evaluate(model, [ab.Task("digits", threat, name="task")], n=n, store=tmp_path / store)
        return results, {flag["name"]: flag for flag in results.readings[0].cell.flags()}

    return run


def doubts(flags):
    return {name for name, flag in flags.items() if flag["level"] != "info"}


BLIND = {"zero-gradients", "loss-does-not-rise", "large-eps-resisted"}


def softmax_saturated(net, x):
    return net(x) * 1e4


def quantised(net, x):
    return net((x * 7).round() / 7)


def thermometer(net, x):
    return net(sum((x > k / 10).float() + 0 * x for k in range(10)) / 10)


def detached(net, x):
    return net(x.detach())


def shattered(net, x):
    return net(x + 0.003 * torch.sin(3000 * x))


def stochastic(net, x):
    return net(x + 0.2 * torch.randn(x.shape, generator=NOISE))


PLANTED = {
    softmax_saturated: BLIND | {"logit-scale-matters"},
    quantised: BLIND | {"transfer-beats-white-box"},
    thermometer: BLIND | {"transfer-beats-white-box"},
    detached: BLIND | {"transfer-beats-white-box"},
    shattered: {"transfer-beats-white-box"},
    stochastic: {"not-deterministic", "unconfirmed-breaks"},
}


@pytest.mark.parametrize("fault", PLANTED, ids=lambda f: f.__name__)
def test_the_fitting_verdicts_fire_and_no_other(cell, fault):
    results, flags = cell(fault, n=24)
    assert doubts(flags) == PLANTED[fault]
    for name in PLANTED[fault]:
        assert flags[name]["remedy"] and flags[name]["evidence"], name
        assert any(figure.isdigit() for figure in flags[name]["message"])
    assert set(results.frame()["flags"][0].split(", ")) == PLANTED[fault], "they stand beside the number"
    asked = flags["reliability"]["evidence"]
    assert {name for name, seen in asked.items() if name != "rows" and seen["doubt"]} == PLANTED[fault]


def test_the_evidence_says_what_was_seen(cell):
    flags = cell(softmax_saturated, n=24)[1]
    scale = flags["logit-scale-matters"]["evidence"]
    assert scale["margin"] == scale["count"] == scale["n"] == 16, "a doubt is looked at on more images"
    assert scale["p"] < 1e-6 and scale["budget"] == "linf 0.06"
    assert flags["zero-gradients"]["evidence"]["share"] == 1.0
    large = flags["large-eps-resisted"]["evidence"]
    assert large["eps"] == 0.5 and large["count"] > 8
    rise = flags["loss-does-not-rise"]["evidence"]
    assert rise["lead_after_steps"] < rise["lead_of_random_points"] < 0


def test_a_black_box_that_beats_gradients_is_named_from_rows_alone(cell, plain):
    threat = "adversary(linf, 0.2, [pgd(steps=2), square(queries=200)])"
    found = cell(quantised, threat, n=24)[1]["black-box-beats-white-box"]
    assert found["evidence"]["source"] == "rows" and found["evidence"]["eps"] == "0.2"
    assert found["evidence"]["count"] > 12
    assert "black-box-beats-white-box" not in doubts(cell(lambda net, x: net(x), threat, n=24, store="honest")[1])


def test_tasks_of_one_model_are_compared_whichever_came_first(cell):
    """Breaking images of the same model without its gradient, or through another, where gradients found nothing."""
    square, transfer = (
        "adversary(linf, 0.2, square(queries=200))",
        "transfer(linf, 0.1, pgd, from=samples:digits-plain)",
    )
    white = "adversary(linf, [0.1*, 0.2*], pgd(steps=2))"
    cell(quantised, square, n=24)
    results, flags = cell(quantised, white, n=24)
    found = flags["black-box-beats-white-box"]["evidence"]
    assert found["source"] == "task" and found["eps"] == "0.2" and found["count"] > 12
    cell(quantised, transfer, n=24)
    later = {(flag["name"], flag["evidence"].get("source")): flag for flag in results.readings[0].cell.flags()}
    found = later["transfer-beats-white-box", "task"]["evidence"]
    assert found["eps"] == "0.1" and found["count"] > 12


def test_a_transfer_is_no_white_box_to_be_doubted(cell):
    flags = cell("samples:digits-robust", "transfer(linf, 0.1, pgd, from=samples:digits-plain)", n=24)[1]
    assert doubts(flags) == set()
    assert "large-eps-resisted" not in flags["reliability"]["evidence"]


def test_random_search_beats_a_blind_attack_at_a_wide_budget(cell):
    found = cell(quantised, "adversary(linf, 0.2, apgd-ce(steps=5))", n=24)[1]["black-box-beats-white-box"]
    assert found["evidence"]["square"] > 8


def test_an_attack_that_has_not_converged_disagrees_with_itself(cell):
    """One step from a random point: another point breaks other images."""
    flags = cell("samples:digits-plain", "adversary(linf, 0.02, pgd(steps=1, rel_step=0.5))", n=100)[1]
    assert "logit-scale-matters" in flags or "starts-disagree" in flags


@pytest.mark.parametrize(
    ("defence", "expected"),
    [
        ("jpeg(gradient=none)", BLIND | {"transfer-beats-white-box"}),
        ("jpeg", set()),
        ("bit-depth(bits=3, gradient=none)", BLIND | {"transfer-beats-white-box"}),
        ("bit-depth(bits=3)", set()),
    ],
)
def test_input_defences_are_doubted_where_their_gradient_is_missing(cell, defence, expected):
    assert doubts(cell(f"samples:digits-plain + {defence}", n=24)[1]) == expected


def test_a_randomised_defence_is_named_so(cell):
    assert "not-deterministic" in doubts(cell("samples:digits-plain + resize-pad", n=12)[1])


HONEST = [
    ("samples:digits-plain", "adversary(linf, [0.01, 0.02, 0.03, 0.05, 0.1], pgd(steps=20))"),
    ("samples:digits-plain", "adversary(l2, [0.5, 1], apgd-ce(steps=20))"),
    ("samples:digits-robust", "adversary(linf, 0.1, apgd-ce(steps=20))"),
    ("samples:digits-robust", "adversary(linf, [0.05*, 0.1, 0.15, 0.2, 0.25], pgd(steps=20))"),
    ("samples:digits-robust", "adversary(l2, 1, pgd(steps=20))"),
    ("samples:digits-robust", "corruption(fog, 1) + adversary(linf, 0.1, pgd(steps=20))"),
]


@pytest.mark.parametrize(("model", "threat"), HONEST, ids=lambda v: v.replace("samples:", ""))
def test_quiet_on_honest_models(cell, model, threat):
    results, flags = cell(model, threat, n=40)
    assert doubts(flags) == set()
    assert "nothing speaks against the number" in flags["reliability"]["message"]
    assert results.frame()["flags"][0] == ""


def test_the_cost_is_counted(cell):
    results, _ = cell("samples:digits-robust", "adversary(linf, 0.1, apgd-ce(steps=20))", n=60)
    reading = results.readings[0]
    probes = reading.probes
    assert 0 < probes["backwards"] < 0.2 * reading.backwards
    assert reading.forwards == int(reading.attempts.forwards.sum()) + probes["forwards"]
    stored = json.loads((reading.cell.folder / "result.json").read_text())["result"]
    assert stored["cost"]["of which probes"] == probes
    assert any(flag["name"] == "reliability" for flag in stored["flags"])


def test_no_second_opinion_without_gradients_or_without_the_doctor(cell, tmp_path):
    results, flags = cell("samples:digits-plain", "adversary(linf, 0.02, square(queries=5))", n=20)
    assert "large-eps-resisted" not in flags["reliability"]["evidence"]
    assert results.readings[0].probes == {"forwards": 0, "backwards": 0}
    without = ab.evaluate("samples:digits-plain", [ab.Task("digits", APGD)], n=20, store=tmp_path / "x", doctor=False)
    assert without.readings[0].probes == {"forwards": 0, "backwards": 0}


def test_a_finding_over_more_rows_replaces_the_earlier_one(cell):
    cell(quantised, APGD, n=8)
    results, flags = cell(quantised, n=16)
    every = [flag["name"] for flag in results.readings[0].cell.flags()]
    assert len(every) == len(set(every)), "each finding is told once"
    assert flags["zero-gradients"]["evidence"]["rows"] == 16


def test_a_check_that_fails_does_not_lose_the_cell(cell, monkeypatch):
    def explode(*args):
        raise RuntimeError("out of cheese")

    monkeypatch.setattr(reliability, "twice", explode)
    monkeypatch.delenv("ARESBENCH_DEBUG")
    results, flags = cell("samples:digits-plain", "adversary(linf, 0.02, pgd(steps=2))", n=8)
    assert len(results.images()) == 8
    assert "out of cheese" in flags["reliability"]["message"]


def test_the_report_and_the_table_show_them(cell, tmp_path):
    results, _ = cell(quantised, n=24)
    assert "⚑" in repr(results)
    told = {flag.name: flag for flag in collect_flags({"planted": results.readings})}
    assert told["transfer-beats-white-box"].tasks == ("task",)
    build_report([r.cell for r in results.readings], tmp_path / "page.html", None)
    page = (tmp_path / "page.html").read_text("utf-8")
    for name in PLANTED[quantised]:
        assert f"warning · {name}" in page
    assert "16 of 16" in page
