"""What a training leaves in its folder: weights, card, log; and what can be made of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import aresbench as ab
from aresbench.core.errors import ModelError, SpecError, UnknownName
from aresbench.metrics import wilson
from aresbench.training.keeper import Trained
from aresbench.training.recipe import Recipe, load_recipe

CHANGES = {
    "schedule.epochs": 3,
    "schedule.warmup": 0,
    "threat.budget_warmup": 0,
    "threat.attack": "pgd(steps=2, rel_step=0.7)",
    "threat.budgets": ["linf:0.05"],
    "average.decay": 0.8,
    "average.warmup": True,
    "watch.every": 1,
    "watch.attack": "pgd(steps=3)",
    "engine.batch": 128,
    "data.held_out": 100,
    "machine.workers": 0,
    "machine.log_every": 4,
    "machine.tensorboard": True,
}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("digits-adversarial", CHANGES)


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return ab.train(recipe, tmp_path_factory.mktemp("training") / "mine", device="cpu")


def _log(trained: Trained, kind: str) -> list[dict[str, Any]]:
    lines = (trained.folder / "log.jsonl").read_text("utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def test_the_card_says_what_made_the_weights(trained: Trained, recipe: Recipe) -> None:
    card = json.loads((trained.folder / "card.json").read_text("utf-8"))
    assert card == trained.card
    assert card["recipe"]["hash"] == recipe.hash
    assert card["training"]["budgets"] == ["linf:0.05"]
    assert card["training"]["updates"] == 3 * (1197 // 128)
    # Two attack steps and the update itself, for each image.
    assert card["training"]["image gradients"] == 3 * card["training"]["updates"] * 128
    held_out = card["held out"]
    assert held_out["n"] == 100
    assert held_out["robust interval"] == pytest.approx(wilson(round(100 * held_out["robust"]), 100), abs=1e-4)


def test_the_best_weights_are_those_with_the_best_robust_accuracy(trained: Trained) -> None:
    measured = _log(trained, "measured")
    assert [line["weights"] for line in measured] == 3 * ["trained", "averaged"]
    best = max(measured, key=lambda line: (line["robust"], line["clean"]))
    kept = trained.card["held out"]
    assert (kept["robust"], kept["clean"]) == (best["robust"], best["clean"])


def test_its_numbers_come_out_again(trained: Trained) -> None:
    """The weights on disk have the accuracy that the card claims, on the images that were held out."""
    model = ab.load_model(str(trained.folder))
    data = ab.load_dataset("digits(split=train)")[:100]
    from aresbench.data.base import load_images

    x, _, _ = load_images(data, range(100), model.preprocessing)
    out = ab.attack(model, x, torch.from_numpy(data.labels), "pgd(steps=3)", "linf:0.05", ids=data.ids)
    assert out.correct.float().mean().item() == pytest.approx(trained.card["held out"]["clean"])
    robust = (out.correct & ~out.broken).float().mean().item()
    assert robust == pytest.approx(trained.card["held out"]["robust"])


@pytest.mark.parametrize(("which", "file"), [("best", "weights"), ("last", "last")])
def test_best_and_last_weights_can_be_had(trained: Trained, tmp_path: Path, which: str, file: str) -> None:
    shutil.copytree(trained.folder, tmp_path / "copy")
    path = tmp_path / "copy" / f"{file}.safetensors"
    tensors = {name: value + 1 for name, value in load_file(path).items()}
    save_file(tensors, path)
    module = ab.load_model(f"{tmp_path / 'copy'}?weights={which}").module
    for name, value in tensors.items():
        assert torch.equal(module.state_dict()[name], value), name


def test_the_model_knows_its_classes_and_its_training(trained: Trained) -> None:
    model = ab.load_model(str(trained.folder))
    assert model.name == "mine", "no path of this machine in results"
    assert model.classes is not None
    assert model.classes.names == tuple("0123456789")
    assert not model.training
    assert "linf:0.05" in model.card["training"]
    assert any("held-out images" in note for note in model.card["notes"])


def test_the_log_counts_image_gradients(trained: Trained) -> None:
    lines = _log(trained, "updates")
    assert lines[-1]["step"] == trained.card["training"]["updates"]
    for line in lines:
        assert line["gradients_per_second"] == pytest.approx(3 * line["images_per_second"], rel=1e-3)
        assert 0 <= line["waiting"] <= 1
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})


def test_tensorboard_has_the_same_numbers(trained: Trained) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained.folder / "tensorboard"))
    events.Reload()
    shown = [(e.step, pytest.approx(e.value)) for e in events.Scalars("updates/loss")]
    assert shown == [(line["step"], line["loss"]) for line in _log(trained, "updates")]


def test_the_recipe_beside_the_weights_is_the_whole_recipe(trained: Trained, recipe: Recipe) -> None:
    assert load_recipe(trained.folder / "recipe.toml") == recipe


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("{}?weights=first", SpecError, "weights=best or weights=last"),
        ("{}?wieghts=last", SpecError, "did you mean 'weights'"),
        ("trained:{}/nothing", UnknownName, "no training has left its card"),
    ],
)
def test_wrong_words(trained: Trained, spec: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ab.load_model(spec.format(trained.folder))


def test_a_spoilt_card_is_told(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "copy")
    card = tmp_path / "copy" / "card.json"
    card.write_text(card.read_text("utf-8")[:100], "utf-8")
    with pytest.raises(ModelError, match="no card of a training"):
        ab.load_model(str(tmp_path / "copy"))
    card.unlink()
    with pytest.raises(ModelError, match="has not ended"):
        ab.load_model(str(tmp_path / "copy"))


def test_weights_of_another_architecture_are_told(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "copy")
    card = tmp_path / "copy" / "card.json"
    card.write_text(card.read_text("utf-8").replace('"small-cnn"', '"timm:resnet18"'), "utf-8")
    with pytest.raises(ModelError, match=r"does not fit timm:resnet18"):
        ab.load_model(str(tmp_path / "copy"))
