"""Catastrophic overfitting, made to happen: a wide network under FGSM with a large budget, and what the guard does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import aresbench as ab
from aresbench.attacks.load import make_attack
from aresbench.core.errors import SpecError
from aresbench.data.load import load_dataset
from aresbench.training.images import batches
from aresbench.training.learner import make_learner
from aresbench.training.loop import TrainingError, datasets, learn
from aresbench.training.methods.adversarial import Adversarial
from aresbench.training.methods.grad_align import GradAlign
from aresbench.training.overfitting import Guard, Verdict
from aresbench.training.recipe import Recipe, load_recipe
from aresbench.training.watch import HeldOut, Measured
from aresbench.training.world import World

WIDE = """
from torch import nn

def make(num_classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 512), nn.ReLU(), nn.Linear(512, num_classes))
"""
PGD = "pgd(steps=5, rel_step=0.5)"
ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture
def make_recipe(tmp_path: Path) -> Callable[..., Recipe]:
    (tmp_path / "wide.py").write_text(WIDE, "utf-8")

    def make(**changes: Any) -> Recipe:
        wanted: dict[str, Any] = {
            "model.architecture": f"{tmp_path}/wide.py:make",
            "model.size": 8,
            "model.resize": 0,
            "augment.crop": "none",
            "threat.budgets": ["linf:0.3"],
            "threat.budget_warmup": 0,
            "threat.attack": "fgsm",
            "optimizer.lr": 1e-2,
            "schedule.name": "constant",
            "schedule.warmup": 0,
            "schedule.epochs": 10,
            "watch.every": 10,
            "watch.check_every": 34,
            "engine.channels_last": False,
        }
        return load_recipe("digits-adversarial", wanted | {key.replace("__", "."): v for key, v in changes.items()})

    return make


def _looks(folder: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "log.jsonl").read_text("utf-8").splitlines())
    return [line for line in lines if line["kind"] == "guard"]


def test_fgsm_training_at_a_large_budget_is_stopped(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(TrainingError, match="catastrophic overfitting at update") as caught:
        ab.train(make_recipe(), out, device="cpu")
    looks = _looks(out)
    last = looks.pop()
    assert last["collapsed"]
    assert last["fgsm"] - last["pgd"] > 0.2 or last["pgd"] < 0.5 * max(look["pgd"] for look in looks)
    assert looks  # it had been sound before
    assert not any(look["collapsed"] for look in looks)
    assert f"{looks[-1]['step']:09d}" in str(caught.value)  # the last good checkpoint is named


def test_it_goes_back_and_attacks_harder(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """After the rollback it ends with more robustness than the run that nobody watches."""
    rescued = ab.train(
        make_recipe(watch__overfitting="rollback", watch__rescue=PGD), tmp_path / "rescued", device="cpu"
    )
    looks = _looks(tmp_path / "rescued")
    assert not any(look["collapsed"] for look in looks)  # the log tells of the run as it went on
    assert any(
        f"rolled back to update {looks[-1]['step']}, from there on {PGD}" in note for note in rescued.card["notes"]
    )
    ignored = ab.train(make_recipe(watch__overfitting="ignore"), tmp_path / "ignored", device="cpu")
    assert rescued.card["training"]["updates"] == ignored.card["training"]["updates"]
    assert rescued.card["held out"]["robust"] > ignored.card["held out"]["robust"] + 0.08


def _after(recipe: Recipe) -> Verdict:
    """What the guard says at the end of a training that it did not watch."""
    learned, held_out = datasets(recipe)
    learner = make_learner(recipe, learned.classes, len(learned), ALONE)
    for batch in batches(learned, recipe, ALONE, 0):
        learn(learner, batch)
    return Guard(learner).look(HeldOut(held_out, learner.classifier, ALONE))


def test_pgd_training_shows_no_such_gap(make_recipe: Callable[..., Recipe]) -> None:
    verdict = _after(make_recipe(threat__attack=PGD, schedule__epochs=8))
    assert not verdict.collapsed
    assert verdict.pgd > 0.1


def test_grad_align_rescues_the_single_step(make_recipe: Callable[..., Recipe]) -> None:
    collapsed, aligned = (
        _after(make_recipe(method=method, threat__budgets=["linf:0.25"], schedule__epochs=8))
        for method in ("adversarial", "grad-align(weight=10)")
    )
    assert collapsed.collapsed
    assert not aligned.collapsed
    assert aligned.pgd > collapsed.pgd + 0.04
    assert aligned.fgsm - aligned.pgd < 0.7 * (collapsed.fgsm - collapsed.pgd)


def test_spoilt_weights_are_no_collapse(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """Weights that are no numbers are told as such: another attack would not help."""
    recipe = make_recipe(optimizer__lr=1e30, watch__overfitting="rollback", watch__check_every=1)
    with pytest.raises(TrainingError, match="near update") as caught:
        ab.train(recipe, tmp_path / "run", device="cpu")
    assert "catastrophic" not in str(caught.value)


# -- the judgement, on accuracies that are given ----------------------------------------------


class Told:
    """Held-out images whose accuracies are given: budget → (FGSM, PGD)."""

    def __init__(self, accuracies: dict[str, tuple[float, float]]) -> None:
        self.accuracies = accuracies

    def measure(self, classifier: object, spec: str, budget: str, first: int | None = None) -> Measured:
        fgsm, pgd = self.accuracies[budget]
        return Measured(1.0, fgsm if spec == "fgsm" else pgd, 128)


@pytest.fixture
def make_guard(make_recipe: Callable[..., Recipe]) -> Callable[..., Guard]:
    classes = load_dataset("digits(split=train)").classes

    def make(**changes: Any) -> Guard:
        return Guard(make_learner(make_recipe(**changes), classes, 1_000, ALONE))

    return make


def _verdicts(guard: Guard, *looks: dict[str, tuple[float, float]]) -> list[bool]:
    return [guard.look(Told(accuracies)).collapsed for accuracies in looks]  # type: ignore[arg-type]


def test_a_gap_or_a_halving_is_a_collapse(make_guard: Callable[..., Guard]) -> None:
    at = "linf:0.3"
    assert _verdicts(make_guard(), {at: (0.6, 0.45)}, {at: (0.6, 0.41)}, {at: (0.6, 0.39)}) == [False, False, True]
    assert _verdicts(make_guard(), {at: (0.4, 0.4)}, {at: (0.25, 0.21)}, {at: (0.25, 0.19)}) == [False, False, True]
    # Half of next to nothing is chance.
    assert _verdicts(make_guard(), {at: (0.1, 0.1)}, {at: (0.02, 0.01)}) == [False, False]
    assert _verdicts(make_guard(watch__gap=0.1), {at: (0.6, 0.45)}) == [True]


def test_each_budget_is_judged_by_itself(make_guard: Callable[..., Guard]) -> None:
    guard = make_guard(threat__budgets=["linf:0.3", "l2:1"])
    assert _verdicts(guard, {"linf:0.3": (0.3, 0.3), "l2:1": (0.8, 0.8)}) == [False]
    told = {"linf:0.3": (0.3, 0.25), "l2:1": (0.75, 0.39)}
    verdict = guard.look(Told(told))  # type: ignore[arg-type]
    assert verdict.collapsed
    assert (verdict.fgsm, verdict.pgd) == (0.75, 0.39)
    assert "l2:1" in verdict.message


def test_a_growing_budget_is_judged_at_its_size(make_guard: Callable[..., Guard]) -> None:
    guard = make_guard(threat__budget_warmup=2, engine__batch=100)  # ten updates an epoch
    guard.learner.step = 4
    assert _verdicts(guard, {"linf:0.075": (0.8, 0.7)}) == [False]
    guard.learner.step = 19
    assert _verdicts(guard, {"linf:0.3": (0.35, 0.3)}) == [False]  # no halving: the ball has grown


@pytest.mark.parametrize(
    ("changes", "active"),
    [
        ({}, True),
        ({"method": "n-fgsm"}, True),
        ({"method": "free"}, True),
        ({"threat__attack": "pgd(steps=1, rel_step=1.25)"}, True),
        ({"threat__attack": "pgd(steps=2)"}, False),
        ({"watch__overfitting": "ignore"}, False),
        ({"method": "standard"}, False),
    ],
)
def test_single_steps_are_guarded(changes: dict[str, Any], active: bool, make_guard: Callable[..., Guard]) -> None:
    assert make_guard(**changes).active == active


def test_methods_made_of_one_step_give_way_to_the_rescue(make_guard: Callable[..., Guard]) -> None:
    for method, after in (("n-fgsm", Adversarial), ("free", Adversarial), ("grad-align", GradAlign)):
        guard = make_guard(method=method, watch__overfitting="rollback", watch__rescue=PGD)
        assert not guard.act(lambda: False)  # nothing to go back to
        assert guard.act(lambda: True)
        assert type(guard.learner.method) is after
        assert guard.learner.attack == make_attack(PGD)
        assert not guard.active
        again = make_guard(method=method, watch__overfitting="rollback", watch__rescue=PGD)
        again.load(guard.state())
        assert (again.learner.method, again.learner.attack) == (guard.learner.method, guard.learner.attack)
        assert not again.act(lambda: True)  # once


def test_a_rescue_that_cannot_train_is_refused_before_it_is_needed(make_guard: Callable[..., Guard]) -> None:
    with pytest.raises(SpecError, match=r"watch\.rescue"):
        make_guard(watch__rescue="square")
