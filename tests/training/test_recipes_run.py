"""Every option of the recipes for ResNet-50, ConvNeXt and Swin, on 64 images laid out as ImageNet and tiny networks."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plugins.forked import Forge
from safetensors.torch import load_file

from aresbench.core.errors import DataError, ModelError
from aresbench.models.load import load_model
from aresbench.training.loop import train
from aresbench.training.recipe import Recipe, load_recipe

UPDATES = 6  # two epochs of 48 images; of 64 where none is held out, eight
TINY = {
    "resnet50-adversarial": {
        "model.arguments": {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1], "stem_width": 8},
        "schedule.decay_every": 1,
    },
    "convnext-small-adversarial": {"model.arguments": {"dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}},
    "swin-small-adversarial": {
        "model.arguments": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 1},
    },
}
RESNET, CONVNEXT, SWIN = TINY
SMALL = {
    "model.size": 32,
    "model.resize": 36,
    "data.held_out": 16,
    "engine.batch": 16,
    "schedule.epochs": 2,
    "schedule.warmup": 1,
    "threat.step_warmup": 1,
    "watch.attack": "pgd(steps=1)",
    "machine.workers": 0,
    "machine.log_every": 1,
}
# What is switched on or off, a few options at a time; "OTHER" is another tree of images.
CASES = [
    (RESNET, {}),
    (RESNET, {"augment.mix_mode": "pair", "augment.switch_chance": 0.5, "average.warmup": True, "seed": 1}),
    (RESNET, {"augment.mix_mode": "elem", "augment.mix_chance": 0.5, "threat.labels": "smooth"}),
    (RESNET, {"augment.mixup": 0, "augment.cutmix": 0, "threat.labels": "hard", "threat.batch_norm": "train"}),
    (RESNET, {"threat.iterate": "last", "model.activation": "silu", "engine.sync_batch_norm": True, "model.drop": 0.2}),
    (RESNET, {"engine.accumulate": 2, "engine.precision": "bfloat16", "threat.precision": "bfloat16"}),
    (RESNET, {"schedule.name": "multistep", "schedule.decay_at": [1], "augment.crop": "shift", "augment.padding": 4}),
    (RESNET, {"schedule.name": "constant", "data.validation": "OTHER", "data.validation_images": 8, "watch.every": 2}),
    (CONVNEXT, {}),
    (CONVNEXT, {"model.drop_path": 0.2, "model.stem": "convolutional", "engine.channels_last": False}),
    (CONVNEXT, {"threat.budgets": ["linf:4/255", "l2:1", "l1:20"], "threat.choose": "worst", "optimizer.clip": 1.0}),
    (CONVNEXT, {"threat.budgets": ["linf:4/255", "l2:1"], "threat.choose": "alternate", "threat.budget_warmup": 1}),
    (CONVNEXT, {"optimizer.layer_decay": 0.75, "optimizer.betas": [0.9, 0.95], "threat.attack": "apgd-ce(steps=2)",
                "threat.step_warmup": 0}),
    (CONVNEXT, {"perturb": "awp(gamma=0.01)", "method": "trades(beta=6)", "augment.crop": "none"}),
    (SWIN, {}),
    (SWIN, {"augment.policy": "original", "augment.erase": 1.0, "augment.erase_count": 3, "augment.smoothing": 0.0}),
    (SWIN, {"augment.policy": "augmix-m3-w3", "schedule.name": "linear", "optimizer.name": "lamb"}),
    (SWIN, {"augment.policy": "", "augment.color_jitter": 0.4, "augment.interpolation": "bicubic",
            "augment.ratio": [1, 1], "augment.scale": [0.5, 1], "augment.flip": 0.0}),
    (SWIN, {"threat.attack": "fgsm", "method": "n-fgsm(k=1)", "threat.step_warmup": 0, "watch.check_every": 2,
            "watch.overfitting": "ignore", "watch.gap": 0.3, "watch.rescue": "pgd(steps=3)"}),
]  # fmt: skip
ELSEWHERE = {"engine.parallel"}  # tested with the processes


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """64 photographs of noise in four class folders of ImageNet; a second tree; and one of a single class."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("trees")
    for name, wnids, count in (
        ("IMAGES", ("n01440764", "n01443537", "n02123045", "n15075141"), 16),
        ("OTHER", ("n01440764", "n02123045"), 6),
        ("SINGLE", ("n01440764",), 40),
    ):
        for wnid in wnids:
            folder = root / name / "train" / wnid
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
                picture = Image.fromarray(pixels).resize((48, 40))
                picture.save(folder / f"{wnid}_{k + 1}.JPEG")
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    made = Forge()
    yield made
    made.close()


def spec(tree: Path) -> str:
    return f"imagenet-train(partial=true):{tree}"


def tiny(name: str, changes: dict, trees: dict[str, Path], data: str = "IMAGES") -> dict:
    """All changes to a recipe, in the words of ``load_recipe``."""
    named = {key: spec(trees[value]) if value == "OTHER" else value for key, value in changes.items()}
    return {**SMALL, **TINY[name], "data.train": spec(trees[data]), **named}


def run(name: str, changes: dict, out: str) -> dict:
    return train(name, out, changes, device="cpu").card


def updates(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "updates"]


@pytest.mark.parametrize(
    ("name", "changes"), CASES, ids=lambda value: value if isinstance(value, str) else ",".join(value)
)
def test_every_option_runs(name, changes, trees, tmp_path):
    changes = tiny(name, changes, trees)
    card = run(name, changes, str(tmp_path / "out"))
    recipe = load_recipe(name, changes)
    losses = [line["loss"] for line in updates(tmp_path / "out")]
    assert len(losses) == (8 if recipe.data.validation else UPDATES) and np.isfinite(losses).all()
    weights = load_file(tmp_path / "out" / "last.safetensors")
    assert all(torch.isfinite(value.float()).all() for value in weights.values())
    assert card["held out"]["n"] == (8 if recipe.data.validation else 16)
    model = load_model(str(tmp_path / "out"))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 1000)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (RESNET, {"average.warmup": True}),
        (RESNET, {"engine.accumulate": 2, "threat.batch_norm": "train", "engine.precision": "bfloat16"}),
        (CONVNEXT, {"model.stem": "convolutional", "model.drop_path": 0.1, "optimizer.layer_decay": 0.8}),
        (SWIN, {"threat.budgets": ["linf:4/255", "l2:1"], "threat.choose": "worst", "optimizer.clip": 1.0}),
    ],
)
def test_options_run_in_two_processes(name, changes, trees, tmp_path, forge):
    told = forge.run(__file__, "run", 2, name=name, changes=tiny(name, changes, trees), out=str(tmp_path / "out"))
    assert [outcome.status for outcome in told] == [0, 0], told[0].error + told[1].error
    losses = [line["loss"] for line in updates(tmp_path / "out")]
    assert len(losses) == UPDATES and np.isfinite(losses).all()
    assert told[0].value["training"]["processes"] == 2 and told[0].value["held out"]["n"] == 16
    assert load_model(str(tmp_path / "out"))(torch.rand(2, 3, 32, 32)).shape == (2, 1000)


def test_every_option_is_switched_by_a_case_or_said_by_a_recipe():
    """A new option of a recipe must run somewhere above."""
    usual = {part.name: part.default_factory() for part in fields(Recipe) if callable(part.default_factory)}
    switched = set()
    for name, changes in CASES:
        switched |= set(changes) | set(TINY[name]) | set(SMALL)
        recipe = load_recipe(name)
        for part, value in usual.items():
            stated = getattr(recipe, part)
            switched |= {
                f"{part}.{f.name}" for f in fields(stated) if getattr(stated, f.name) != getattr(value, f.name)
            }
    recipe = load_recipe(RESNET)
    every = {
        f"{part}.{f.name}"
        for part in ("model", "data", "augment", "threat", "optimizer", "schedule", "average", "engine", "watch")
        for f in fields(getattr(recipe, part))
    }
    always = {"model.architecture", "model.initial", "model.interpolation", "model.mean", "model.std", "data.train"}
    same = {"optimizer.momentum", "optimizer.eps", "optimizer.weight_decay", "optimizer.lr", "optimizer.lr_batch"}
    timed = {"schedule.decay_by", "schedule.warmup_lr", "schedule.min_lr"}
    assert every - switched <= always | same | timed | ELSEWHERE


def test_training_goes_on_from_the_weights_of_an_earlier_one(trees, tmp_path):
    run(RESNET, tiny(RESNET, {}, trees), str(tmp_path / "first"))
    again = {"model.initial": str(tmp_path / "first") + "?weights=last", "optimizer.lr": 1e-12, "average.decay": 0.0}
    run(RESNET, tiny(RESNET, {**again, "schedule.warmup_lr": 1e-12}, trees), str(tmp_path / "second"))
    first, second = (load_file(tmp_path / name / "last.safetensors") for name in ("first", "second"))
    for key in ("conv1.weight", "fc.weight"):
        assert torch.allclose(first[key], second[key], atol=1e-6)


def test_one_class_is_refused(trees, tmp_path):
    with pytest.raises(DataError, match="are of one class"):
        run(RESNET, tiny(RESNET, {}, trees, "SINGLE"), str(tmp_path / "out"))


def test_a_checkpoint_of_another_model_is_refused_and_nothing_is_lost(trees, tmp_path):
    run(CONVNEXT, tiny(CONVNEXT, {}, trees), str(tmp_path / "first"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir() if path.is_file()}
    with pytest.raises(ModelError, match=r"model\.initial: .* does not fit timm:resnet50: .*conv1\.weight"):
        run(RESNET, tiny(RESNET, {"model.initial": str(tmp_path / "first")}, trees), str(tmp_path / "second"))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir() if path.is_file()}
