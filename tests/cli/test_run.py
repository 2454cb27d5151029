"""``run``, ``compare``, ``report`` and ``doctor`` on a suite that takes a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aresbench.cli import run as run_verb
from aresbench.store import Store


def _rows(folder: Path) -> int:
    return sum(len(cell.images()) for cell in Store(folder).cells())


def test_run_prints_a_row_for_each_task_and_the_next_command(command: Any, tiny: str, tmp_path: Path) -> None:
    said = command("run", "--suite", tiny)
    assert (said.status, said.err) == (0, "")
    for task in ("clean", "brightness 2", "ladder"):
        assert any(line.startswith("samples:digits-plain") and task in line for line in said.out.splitlines())
    assert "aresbench report -o report.html" in said.out
    assert "\x1b" not in said.out, "no colours and no progress bar in a pipe"
    assert _rows(tmp_path / "runs") == 18


def test_the_same_again_computes_nothing_and_more_images_only_what_is_new(
    command: Any, tiny: str, tmp_path: Path
) -> None:
    command("run", "--suite", tiny, "--n", "4")
    assert _rows(tmp_path / "runs") == 12
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.parquet")}
    command("run", "--suite", tiny, "--n", "4")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.parquet")} == before
    assert command("run", "--suite", tiny).status == 0
    assert _rows(tmp_path / "runs") == 18


def test_dry_run_shows_what_is_there_and_writes_nothing(command: Any, tiny: str, tmp_path: Path) -> None:
    said = command("run", "--suite", tiny, "--dry-run")
    assert said.status == 0
    assert said.out.count("0 of 6") == 3
    assert "3 cells, at most" in said.out
    assert not (tmp_path / "runs").exists()
    command("run", "--suite", tiny, "--n", "4")
    assert command("run", "--suite", tiny, "--dry-run").out.count("4 of 6") == 3


def test_a_model_that_cannot_be_loaded_fails_the_run_but_not_the_others(
    command: Any, tiny: str, tmp_path: Path
) -> None:
    said = command("run", "samples:digits-plain", "samples:digits-plane", "--suite", tiny)
    assert said.status == 1
    assert "digits-plane" in said.err
    assert "did you mean" in said.err
    assert _rows(tmp_path / "runs") == 18


def test_interrupted_run_says_how_to_go_on(command: Any, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_verb, "_run", interrupt)
    said = command("run", "--suite", tiny, "--n", "4")
    assert said.status == 130
    assert f"aresbench run --suite {tiny} --n 4" in said.err


def test_compare_is_paired_and_machine_readable(command: Any, tiny: str) -> None:
    command("run", "samples:digits-plain", "samples:digits-robust", "--suite", tiny)
    said = command("compare", "samples:digits-robust", "samples:digits-plain")
    assert said.status == 0
    assert "ladder" in said.out
    assert json.loads(command("compare", "samples:digits-robust", "samples:digits-plain", "--json").out)


def test_report_writes_one_page(command: Any, tiny: str, tmp_path: Path) -> None:
    command("run", "--suite", tiny)
    said = command("report", "-o", "pages/mine.html")
    assert (said.status, said.out) == (0, "pages/mine.html\n")
    assert "samples:digits-plain" in (tmp_path / "pages" / "mine.html").read_text("utf-8")


def test_doctor_finds_softmax(command: Any, tmp_path: Path) -> None:
    (tmp_path / "soft.py").write_text(
        "import torch, aresbench as ab\n"
        "def make():\n"
        "    inner = ab.load_model('samples:digits-plain')\n"
        "    return ab.Classifier(torch.nn.Sequential(inner, torch.nn.Softmax(1)), classes=inner.classes,"
        " preprocessing=inner.preprocessing)\n"
    )
    said = command("doctor", "./soft.py:make")
    assert said.status == 1
    assert "softmax-outputs" in said.out
    assert any(f["name"] == "softmax-outputs" for f in json.loads(command("doctor", "./soft.py:make", "--json").out))


def test_doctor_has_nothing_against_a_good_model_or_dataset(command: Any) -> None:
    assert command("doctor", "samples:digits-plain").status == 0
    assert command("doctor", "digits", "--n", "20").status == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.2, "3 s"), (89, "89 s"), (120, "2 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert run_verb.duration(seconds) == text


def test_a_plan_says_what_it_costs_and_what_is_there(command: Any, tiny: str, tmp_path: Path) -> None:
    both = ("run", "samples:digits-plain", "samples:digits-robust", "--suite", tiny)
    said = command(*both, "--dry-run")
    assert "6 cells of 36 images; to do: 36, at most " in said.out
    summary = [line.split() for line in said.out.splitlines() if " cells " in line and line.startswith("samples:")]
    assert [line[:7] for line in summary] == [[model, "3", "cells", "0", "of", "18", "18"] for model in both[1:3]]
    assert command("run", "--suite", tiny).out.startswith("plan: 3 cells of 18 images; to do: 18, at most ")
    assert "6 cells of 36 images; 18 (50%) are there already; to do: 18, at most " in command(*both).out
    assert command(*both).out.startswith("plan: 6 cells of 36 images; all of them are there already\n")


def test_what_is_left_out_is_told_before_and_after_with_how_to_get_it(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARESBENCH_DATA", str(tmp_path / "data"))
    sets = ("digits", "imagenet-a", "imagenet-c(corruption=[fog, snow], severity=all)")
    blocks = "".join(f'[[tasks]]\ndata = "{data}"\nthreats = ["clean"]\n' for data in sets)
    (tmp_path / "some.toml").write_text(f'name = "some"\n{blocks}')
    run = ("run", "samples:digits-plain", "samples:digits-robust", "--suite", "some.toml", "--n", "3")
    for more in ((), ("--dry-run",)):
        said = command(*run, *more)
        assert said.status == 0
        lines = said.out.splitlines()
        told = [k for k, line in enumerate(lines) if line.startswith("imagenet-a left out: ImageNet-A is not on this")]
        assert len(told) == (1 if more else 2), "of both models in one, before and after the run"
        assert all("imagenet-a.tar, linked from" in lines[k + 1] for k in told)
        assert sum(line.startswith("imagenet-c left out: ") for line in lines) == len(told)
