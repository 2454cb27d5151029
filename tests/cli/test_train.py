"""``train``: from a recipe to a folder that every other verb understands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

QUICK = ("digits-adversarial", "schedule.epochs=2", "schedule.warmup=0", "threat.attack=pgd(steps=1, rel_step=1)",
         "watch.overfitting=ignore", "watch.attack=pgd(steps=2)", "machine.workers=0", "engine.batch=256")  # fmt: skip


def test_train_then_resume_then_measure(command: Any, tmp_path: Path) -> None:
    said = command("train", *QUICK, "--out", "mine")
    assert said.status == 0, said.err
    assert 'name = "digits-adversarial"' in said.out, "the recipe is printed in full"
    assert "aresbench run mine" in said.out
    assert "\033" not in said.out, "a pipe gets plain lines"
    card = json.loads((tmp_path / "mine" / "card.json").read_text("utf-8"))
    assert card["training"]["updates"] == 2 * (card["held out"]["step"] // int(card["held out"]["epoch"]))
    weights = (tmp_path / "mine" / "weights.safetensors").read_bytes()
    again = command("train", *QUICK, "--out", "mine")
    assert again.status == 0
    assert (tmp_path / "mine" / "weights.safetensors").read_bytes() == weights
    (tmp_path / "suite.toml").write_text('[[tasks]]\ndata = "digits"\nn = 8\nthreats = ["clean"]\n', "utf-8")
    run = command("run", "mine", "--suite", "suite.toml", "--device", "cpu")
    assert run.status == 0, run.err
    assert "mine" in run.out


def test_another_recipe_in_the_same_folder_is_refused(command: Any) -> None:
    assert command("train", *QUICK, "--out", "mine").status == 0
    said = command("train", *QUICK, "optimizer.lr=0.5", "--out", "mine")
    assert said.status == 2
    assert "optimizer.lr is 0.004 there and 0.5 here" in said.err


def test_an_unfinished_training_is_no_model_yet(command: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.toml").write_text("", "utf-8")
    said = command("run", "mine")
    assert said.status != 0
    assert "has not ended" in said.out + said.err


@pytest.mark.parametrize(
    ("words", "problem", "remedy"),
    [
        (("digits-adversaril",), "no recipe called", "digits-adversarial"),
        (("digits-adversarial", "optimizer.lrr=1"), "no setting 'optimizer.lrr'", "'lr'"),
        (("digits-adversarial", "lr=1"), "no setting 'lr'", "write optimizer.lr"),
        (("digits-adversarial", "schedule.epochs=many"), "not a whole number", ""),
        (("digits-adversarial", "nonsense"), "is not a change", "key=value"),
    ],
)
def test_wrong_words_are_told_at_once(command: Any, words: tuple[str, ...], problem: str, remedy: str) -> None:
    said = command("train", *words)
    assert said.status == 2
    assert problem in said.err
    assert remedy in said.err


def test_a_dry_run_leaves_nothing_behind(command: Any, tmp_path: Path) -> None:
    said = command("train", *QUICK, "--dry-run", "--device", "cpu")
    assert said.status == 0
    assert "updates of 512 image gradients" in said.out  # one step of the attack and one update, 256 images each
    assert not list(tmp_path.iterdir())
