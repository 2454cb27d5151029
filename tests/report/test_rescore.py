"""Stored rows under another protocol."""

from __future__ import annotations

import pytest

from aresbench.metrics import rebased
from aresbench.metrics.corruption_error import corruption_errors
from aresbench.report import corruptions
from aresbench.report.reading import common_ids, read
from aresbench.report.rescore import rescore, rescored_frame


def test_mce_under_both_alexnets(derived_store):
    found = {(r.model, r.task, r.protocol): r.score for r in rescore(derived_store.cells())}
    cells = [r for r in read(derived_store.cells()) if r.model == "timm:first" and r.dataset == "imagenet"]
    used = {key: r for key, r in corruptions.doses(cells, "memory").items() if key[0] in corruptions.CORRUPTIONS}
    rows = corruptions.correct_rows(used, common_ids(list(used.values())))
    errors = {name: score.value for name, score in corruption_errors(rows).items()}
    moved = rebased(errors, "alexnet-50k", "alexnet-robustbench-5k").values()
    first = found["timm:first", "mCE (memory)", "alexnet-50k"]
    second = found["timm:first", "mCE (memory)", "alexnet-robustbench-5k"]
    assert first is not None and second is not None
    assert first.value == pytest.approx(sum(errors.values()) / 15)
    assert second.value == pytest.approx(sum(moved) / 15)
    assert first.value != second.value
    assert ("timm:first", "relative mCE (memory)", "alexnet-robustbench-5k") in found
    assert not any(task.endswith("(disk)") for _, task, _ in found)  # three of 75 conditions make no mCE


def test_the_frame_says_how_it_was_measured(derived_store):
    table = rescored_frame(derived_store.cells())
    assert set(table.loc[table["task"] == "mCE (memory)", "measured"]) == {"alexnet-50k"}
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
