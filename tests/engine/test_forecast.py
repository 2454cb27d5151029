"""What a plan says it will cost, against what it then costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import aresbench as ab
from aresbench.core.suite import load_suite
from aresbench.engine import forecast
from aresbench.engine.events import Event
from aresbench.engine.forecast import Cost, Forecast, costs
from aresbench.engine.plan import make_plan
from aresbench.store import Store

PAIR = ("samples:digits-plain", "samples:digits-robust")
CPU = torch.device("cpu")
# Nothing breaks within a tenth of a grey level, so that every step is made.
FULL = "adversary(linf, 1/2550, [pgd(steps=7), square(queries=9)], bound=none)"


def test_where_nothing_breaks_a_cell_costs_what_was_foretold(tmp_path: Path) -> None:
    tasks = [ab.Task("digits", FULL)]
    (cost,) = costs(make_plan(PAIR[1], tasks, Store(tmp_path), n=6).cells)
    attempts = ab.evaluate(PAIR[1], tasks, n=6, store=tmp_path, doctor=False).attempts()
    assert attempts["id"].nunique() == 6 and (attempts["verdict"] == "resisted").all()
    paid = int(attempts["forwards"].sum() + attempts["backwards"].sum())
    assert (cost.there, cost.missing, cost.searched) == (0, 6, 0)
    assert cost.passes == pytest.approx(paid, rel=0.15)


def test_a_surrogate_is_paid_once_for_all_targets_and_rows_that_are_there_are_free(tmp_path: Path) -> None:
    tasks = [ab.Task("digits", "transfer(linf, 8/255, mim(steps=3), from=each)", "MIM")]
    found = costs(make_plan(PAIR, tasks, Store(tmp_path), n=5).cells)
    per_target = 5 * 2  # the clean verdict, and one question
    assert [cost.asked for cost in found] == [per_target] * 4
    assert sorted(cost.searched for cost in found) == [0, 0, 30, 30]  # each of the two surrogates: 5 × 3 steps
    ab.evaluate(PAIR, tasks, n=3, store=tmp_path, doctor=False)
    total = Cost.total(costs(make_plan(PAIR, tasks, Store(tmp_path), n=5).cells))
    assert (total.there, total.missing, total.asked, total.searched) == (12, 8, 16, 24)
    ab.evaluate(PAIR, tasks, n=5, store=tmp_path, doctor=False)
    assert Cost.total(costs(make_plan(PAIR, tasks, Store(tmp_path), n=5).cells)) == Cost(20, 0, 0, 0)


def test_a_whole_matrix_costs_a_small_part_of_its_attacks_run_anew(tmp_path: Path) -> None:
    """61 × 61 pairs: the search is paid 61 times, not 3,721 times."""
    (task,) = [task for task in load_suite("ares-bench").tasks if task.name == "MIM"]
    cells = make_plan(PAIR, [ab.Task("digits", task.threat, "MIM")], Store(tmp_path), n=4).cells
    assert {cell.passes for cell in cells} == {(2, 40)}


def test_seconds_are_passes_at_the_models_own_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = {PAIR[0]: 0.25, PAIR[1]: 2.0}
    monkeypatch.setattr(forecast, "_time", lambda cell, model, *rest: speed[model.name])
    tasks = [ab.Task("digits", FULL), ab.Task("digits", f"transfer(linf, 8/255, fgsm, from={PAIR[1]})")]
    cells = make_plan(PAIR[0], tasks, Store(tmp_path), n=5).cells
    white_box, transfer = Forecast(CPU).timed(cells)
    assert white_box.seconds == white_box.asked * 0.25
    assert transfer.searched > 0 and transfer.seconds == transfer.asked * 0.25 + transfer.searched * 2.0


def test_only_a_run_beside_which_it_is_nothing_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "batch_for", lambda x, device: 8)  # 32 passes to time a model

    def told(n: int) -> Cost:
        events: list[Event] = []
        monkeypatch.setattr("aresbench.engine.evaluate._Run.one", lambda run, cell: None)
        ab.evaluate(PAIR[0], [ab.Task("digits", FULL)], n=n, store=tmp_path, progress=events.append)
        (plan,) = [event for event in events if event.kind == "plan"]
        return Cost.total(plan.costs)

    assert told(5).seconds is None
    many = told(200)
    assert many.passes > 1600 and many.seconds is not None
    assert 0 < many.seconds < 60
