"""``store export --images``, ``verify`` and ``submit``, as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aresbench as ab
from aresbench.store import Store, write_bundle
from aresbench.store.exact import unpack


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two small tasks."""
    path = tmp_path_factory.mktemp("measured") / "runs"
    tasks = [ab.Task("digits", "clean"), ab.Task("digits", "adversary(linf, [1/64, 1/32*, 1/16], pgd(steps=5))")]
    ab.evaluate("samples:digits-plain", tasks, n=16, store=path, doctor=False)
    return path


@pytest.fixture
def run(command: Any, measured: Path, tmp_path: Path) -> Any:
    """The command, in a folder with these results in ``runs``."""
    shutil.copytree(measured, tmp_path / "runs")
    return command


def _edited(folder: Path, target: Path) -> None:
    """The bundle again, with one claim of the adversary's cell raised to the smaller budget in all of its tables."""
    cell = next(c for c in Store(folder).cells() if c.description["task"]["kind"] == "adversary")
    forged = Store(target.parent / "forged").cell(cell.description)
    for table in ("images", "attempts", "breaks"):
        frame = getattr(cell, table)()
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        if table == "images":
            victim = next(row for row in rows if row["breaking_budget"] == "0.0625")
            victim["breaking_budget"] = "0.015625"
        forged.write_rows([(table, row) for row in rows])
    write_bundle(target, [forged])


def test_a_bundle_with_images_holds_and_an_edited_one_does_not(run: Any, tmp_path: Path) -> None:
    said = run("store", "export", "-o", "b.zip", "--images")
    assert said.status == 0 and "images made again (" in said.out and "no image of" not in said.out
    assert "0 images made again" in run("store", "export", "-o", "again.zip", "--images").out
    said = run("verify", "b.zip")
    assert said.status == 0
    assert "nothing was found that does not hold" in said.out and "not checkable" not in said.out
    _edited(tmp_path / "runs", tmp_path / "forged.zip")
    said = run("verify", "forged.zip")
    assert said.status == 1
    assert "✗ break digits/" in said.out and "lies outside linf 0.015625" in said.out
    records = json.loads(run("verify", "forged.zip", "--json").out)
    assert [record["sound"] for record in records] == [False]


def test_without_images_nothing_is_claimed_to_be_checked(run: Any) -> None:
    run("store", "export", "-o", "b.zip")
    said = run("verify", "b.zip")
    assert said.status == 0
    assert "not checkable: no image in the bundle" in said.out and "0 of " in said.out


def test_another_model_is_named(run: Any) -> None:
    run("store", "export", "-o", "b.zip", "--images")
    said = run("verify", "b.zip", "--model", "samples:digits-robust", "--n", "4")
    assert said.status == 1
    assert "samples:digits-robust is another model: its fingerprint" in said.out


def test_what_cannot_be_set_up_is_told_for_each_cell(run: Any) -> None:
    run("store", "export", "-o", "b.zip")
    said = run("verify", "b.zip", "--model", "samples:efficientnet-lite0")
    assert said.status == 1 and said.err == ""
    assert run("verify", "b.zip", "--data", "nothing").status == 2
    assert run("verify", "nothing.zip").status == 2
    assert "is not a whole number above 0" in run("verify", "b.zip", "--n", "0").err


def test_images_go_into_a_bundle_only(run: Any) -> None:
    said = run("store", "export", "-o", "folder", "--images")
    assert said.status == 2 and "--images goes with a bundle" in said.err


def test_submitted_images_are_entered_or_told_why_not(run: Any, tmp_path: Path) -> None:
    run("store", "export", "-o", "b.zip", "--images")
    cell = next(c for c in Store(tmp_path / "runs").cells() if c.description["task"]["kind"] == "adversary")
    kept = cell.breaks()
    x = [unpack(r["levels"], r["rest"], r["height"], r["width"]) for r in kept.to_dict("records")]
    np.savez(tmp_path / "mine.npz", x_adv=np.stack([*x, x[0]]), ids=np.array([*kept["id"], "digits/none"]))
    words = ("--model", "samples:digits-plain", "--data", "digits", "--name", "me")
    said = run("submit", "mine.npz", *words, "--budget", "linf:1/16")
    assert said.status == 0
    assert f"{len(x)} images accepted, 0 of them not broken by anybody before" in said.out
    assert "rejected digits/none: digits has no image of this id" in said.out
    said = run("submit", "mine.npz", *words, "--budget", "linf:1/255", "--json")
    assert said.status == 1 and json.loads(said.out)["accepted"] == []
    assert run("verify", "runs").status == 0
    assert run("report", "-o", "r.html").status == 0
    assert run("submit", "none.npz", *words, "--budget", "linf:1/16").status == 2
