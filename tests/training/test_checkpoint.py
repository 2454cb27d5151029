"""Nothing is lost: damaged, foreign and unwritable checkpoints, a full disk, two runs in one folder, a loss of NaN."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aresbench.core.errors import ModelError, StoreError
from aresbench.store import files
from aresbench.training import checkpoint, lesson, loop
from aresbench.training.learner import Learner
from aresbench.training.recipe import Recipe, load_recipe

RECIPE = """
[model]
architecture = "small-cnn"
size = 32
resize = 32
[data]
train = "npz:learned.npz"
held_out = 12
[augment]
crop = "none"
[threat]
attack = "fgsm"
[optimizer]
lr_batch = 0
lr = 0.01
[schedule]
epochs = 3
[average]
decay = 0.5
[engine]
batch = 12
[watch]
attack = "fgsm"
overfitting = "ignore"
[machine]
workers = 0
checkpoint_minutes = 1e-9
log_every = 2
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Nine updates of a small network on noise."""
    folder = tmp_path_factory.mktemp("recipe")
    rng = np.random.default_rng(0)
    np.savez(folder / "learned.npz", x=rng.integers(0, 256, (48, 32, 32, 3), dtype=np.uint8), y=np.arange(48) % 3)
    path = folder / "tiny.toml"
    path.write_text(RECIPE.replace("npz:", f"npz:{folder}/"), "utf-8")
    return load_recipe(path)


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed training."""
    out = tmp_path_factory.mktemp("whole")
    loop.train(recipe, out)
    return out


class Stop(Exception):
    """The end of a run, for a test's sake."""


def until(monkeypatch: pytest.MonkeyPatch, step: int, work: Callable[[Learner], None]) -> None:
    """Do something when an update is reached."""
    advance = Learner.advance

    def counted(self: Learner) -> None:
        advance(self)
        if self.step == step:
            work(self)

    monkeypatch.setattr(Learner, "advance", counted)


def halted(recipe: Recipe, out: Path, step: int) -> None:
    """Train up to an update, whose checkpoint is no longer written."""

    def stop(learner: Learner) -> None:
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        until(patch, step, stop)
        with pytest.raises(Stop):
            loop.train(recipe, out)


def checkpoints(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").glob("step-*.pt"))


def same_end(recipe: Recipe, out: Path, whole: Path) -> list[str]:
    """Train on; the weights must be those of the undisturbed run. Returns the card's notes."""
    card = loop.train(recipe, out).card
    for name in ("weights.safetensors", "last.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    notes: list[str] = card["notes"]
    return notes


def test_two_checkpoints_are_kept(whole: Path) -> None:
    assert [path.name[:14] for path in checkpoints(whole)] == ["step-000000008", "step-000000009"]
    assert not list(whole.rglob(".tmp-*"))


@pytest.mark.parametrize("damage", ["one bit", "cut short", "empty"])
def test_a_damaged_checkpoint_is_passed_over_and_told(recipe: Recipe, whole: Path, tmp_path: Path, damage: str) -> None:
    halted(recipe, tmp_path, 6)
    newest = checkpoints(tmp_path)[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes({"one bit": bytes(data), "cut short": bytes(data[:-9]), "empty": b""}[damage])
    (note,) = same_end(recipe, tmp_path, whole)
    assert note.startswith(f"{newest.name} is damaged") and note.endswith("went on from update 4")


def test_no_readable_checkpoint_is_no_fresh_start(recipe: Recipe, tmp_path: Path) -> None:
    halted(recipe, tmp_path, 4)
    for path in checkpoints(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(StoreError, match=r"no checkpoint in .* can be read.*damaged(.|\n)*--out"):
        loop.train(recipe, tmp_path)


def test_checkpoints_of_another_format_recipe_or_model_are_refused(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, recipe, 3, {})
    other = load_recipe_with(recipe, "optimizer.lr=0.02")
    with pytest.raises(StoreError, match=r"of another recipe: optimizer.lr is 0.01 there and 0.02 here"):
        checkpoint.newest(tmp_path, other)
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with pytest.raises(StoreError, match="has format 1, this version reads format 2"):
        checkpoint.newest(tmp_path, recipe)


def load_recipe_with(recipe: Recipe, change: str) -> Recipe:
    """The recipe with a change."""
    import tomllib

    from aresbench.training.recipe import read_recipe

    raw = tomllib.loads(recipe.toml())
    key, value = change.split("=")
    part, name = key.split(".")
    raw[part][name] = float(value)
    return read_recipe(raw, "test")


def test_another_model_under_the_same_recipe_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    halted(recipe, tmp_path, 3)
    found = checkpoint.newest(tmp_path, recipe)
    assert found is not None
    content = checkpoint.read(found.path)
    content["model"]["module.head.bias"] = torch.zeros(4)
    checkpoint.save(tmp_path, recipe, 3, {key: value for key, value in content.items() if key != "recipe"})
    with pytest.raises(ModelError, match=r"module\.head\.bias is \(4,\) in it and \(3,\) here"):
        loop.train(recipe, tmp_path)


def test_another_recipe_in_the_folder_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    halted(recipe, tmp_path, 2)
    with pytest.raises(StoreError, match=r"another recipe: optimizer.lr is 0.01 there and 0.02 here(.|\n)*--out"):
        loop.train(load_recipe_with(recipe, "optimizer.lr=0.02"), tmp_path)


@pytest.mark.parametrize("part", ["checkpoints", "last.safetensors", "card.json", "log.jsonl"])
def test_a_full_disk_loses_nothing_and_the_run_goes_on_when_there_is_room(
    recipe: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    halted(recipe, tmp_path, 5)
    before = {path: path.read_bytes() for path in [*checkpoints(tmp_path), tmp_path / "weights.safetensors"]}

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    replace, opened = os.replace, Path.open

    def replaced(source: Any, target: Any) -> None:
        full() if part in str(target) else replace(source, target)

    def open_or_fail(self: Path, *args: Any, **named: Any) -> Any:
        return full() if part == self.name and args[:1] == ("a",) else opened(self, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", replaced)
        patch.setattr(Path, "open", open_or_fail)
        with pytest.raises(StoreError, match=rf"the disk is full: .*{part}"):
            loop.train(recipe, tmp_path)
    if part == "checkpoints":
        assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.rglob(".tmp-*"))
    assert same_end(recipe, tmp_path, whole) == []


def test_a_folder_that_may_not_be_written_is_told_at_once(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="file"):
        loop.train(recipe, tmp_path / "file")


def test_a_second_run_in_the_folder_is_refused_while_the_first_lives(
    recipe: Recipe, whole: Path, tmp_path: Path
) -> None:
    ready, go = os.pipe(), os.pipe()
    tmp_path.joinpath(".lock").write_text("process 1 on elsewhere\n")  # left by a killed run: nobody holds it
    child = os.fork()
    if child == 0:
        handle = os.open(tmp_path / ".lock", os.O_RDWR)
        fcntl.lockf(handle, fcntl.LOCK_EX)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        with pytest.raises(StoreError, match=r"a training is at work in .* \(process 1 on elsewhere\)(.|\n)*--out"):
            loop.train(recipe, tmp_path)
        assert not (tmp_path / "recipe.toml").exists()
    finally:
        os.write(go[1], b"x")
        os.waitpid(child, 0)
    assert same_end(recipe, tmp_path, whole) == []


@pytest.mark.parametrize("spoilt", ["loss", "slope"])
def test_nan_stops_the_run_with_the_last_good_checkpoint_named_and_nothing_spoilt_written(
    recipe: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    descend = lesson.ClassroomLesson._descend

    def poisoned(self: lesson.ClassroomLesson, objective: Callable[[], torch.Tensor], last: bool) -> None:
        if self.learner.step == 5:  # the sixth update, which ends the second epoch: it would be measured
            if spoilt == "loss":
                descend(self, lambda: objective() * torch.nan, last)
            else:  # the loss is finite, its slope is not
                next(self.learner.classifier.parameters()).register_hook(lambda slope: slope * torch.nan)
                descend(self, objective, last)
            return
        descend(self, objective, last)

    with monkeypatch.context() as patch:
        patch.setattr(lesson.ClassroomLesson, "_descend", poisoned)
        with pytest.raises(loop.TrainingError) as stopped:
            loop.train(recipe, tmp_path)
    good = checkpoints(tmp_path)[-1]
    assert str(good) in str(stopped.value) and "000000005" in good.name
    assert ("the loss is nan" if spoilt == "loss" else "weights are no finite numbers") in str(stopped.value)
    measured = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert {line["step"] for line in measured if line["kind"] == "measured"} == {3}
    assert same_end(recipe, tmp_path, whole) == []  # once the cause is gone, the run goes on from there


def test_two_runs_are_equal_to_the_bit(recipe: Recipe, whole: Path, tmp_path: Path) -> None:
    assert same_end(recipe, tmp_path, whole) == []
