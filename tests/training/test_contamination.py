"""A training that has seen something like a test corruption: its card says so, and its numbers are flagged."""

from __future__ import annotations

from pathlib import Path

import pytest

import aresbench as ab
from aresbench.report.reading import Reading, seen_flags
from aresbench.store import Store

QUICK = {"schedule.epochs": 1, "schedule.warmup": 0, "data.held_out": 50, "engine.batch": 256, "machine.workers": 0}


@pytest.mark.parametrize(("jitter", "spoilt"), [(0.3, {"brightness"}), (0.0, set())])
def test_numbers_on_what_training_has_seen_are_flagged(tmp_path: Path, jitter: float, spoilt: set[str]) -> None:
    trained = ab.train("digits-standard", tmp_path / "mine", QUICK | {"augment.color_jitter": jitter}, device="cpu")
    assert spoilt <= set(trained.card["contaminated"])
    tasks = ab.tasks("digits", "clean", "corruption(brightness, 2)", "corruption(fog, 2)", n=4)
    ab.evaluate(str(trained.folder), tasks, store=tmp_path / "runs", device="cpu")
    flagged = {
        str(reading.task["corruption"])
        for reading in map(Reading, Store(tmp_path / "runs").cells())
        if any(flag["name"] == "contaminated" and flag["level"] == "warning" for flag in reading.flags)
    }
    assert flagged == spoilt


def test_each_corruption_of_a_chain_counts() -> None:
    card = {"contaminated": {"contrast": "augment.color_jitter 0.4 changes contrast"}}
    (flag,) = seen_flags(card, "fog + contrast")
    assert "augment.color_jitter 0.4 changes contrast" in flag["message"]
    assert seen_flags(card, "fog") == seen_flags(card, "") == seen_flags({}, "contrast") == []
