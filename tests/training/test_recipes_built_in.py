"""The built-in recipes say what their papers say; the figures of the benchmark's own are typed here a second time."""

import re

import pytest
import timm

from aresbench.training.recipe import load_recipe, recipe_names

# The published training settings of Liu et al. (2024), by configuration file.
RESNETS = {
    # name: (architecture, images a GPU, mixup, cutmix, switch, average, labels of the attack, activation)
    "resnet50-adversarial": ("resnet50", 64, 0.8, 1.0, 1.0, 0.9998, "soft", ""),
    "resnet101-adversarial": ("resnet101", 64, 0.8, 1.0, 1.0, 0.9998, "soft", ""),
    "resnet152-adversarial": ("resnet152", 32, 0.0, 0.0, None, 0.0, "hard", "gelu"),
    "wide-resnet50-2-adversarial": ("wide_resnet50_2", 64, 0.8, 1.0, 1.0, 0.9998, "soft", "gelu"),
}
OTHERS = {
    "convnext-small-adversarial": ("convnext_small", 64),
    "convnext-base-adversarial": ("convnext_base", 64),
    "convnext-large-adversarial": ("convnext_large", 32),
    "swin-small-adversarial": ("swin_small_patch4_window7_224", 64),
    "swin-base-adversarial": ("swin_base_patch4_window7_224", 64),
    "swin-large-adversarial": ("swin_large_patch4_window7_224", 32),
    "vit-small-adversarial": ("vit_small_patch16_224", 64),
    "vit-base-adversarial": ("vit_base_patch16_224", 64),
}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("name", [*RESNETS, *OTHERS])
def test_what_all_of_the_benchmark_have_in_common(name):
    r = load_recipe(name)
    assert r.method == "adversarial" and r.seed == 0 and not r.perturb
    assert r.threat.budgets == ("linf:4/255",)
    assert r.threat.attack == "pgd(steps=3, rel_step=2/3)"  # 2/3 of 4/255 are 8/255/3
    assert r.threat.batch_norm == "eval" and r.threat.iterate == "best"
    assert r.threat.step_warmup == 5 and r.threat.budget_warmup == 0
    assert r.watch.attack == "pgd(steps=10, rel_step=0.25)" and r.watch.every == 1  # steps of 1/255
    assert (r.model.size, r.model.resize, r.model.interpolation) == (224, 256, "bicubic")  # 0.875
    assert (r.model.mean, r.model.std) == IMAGENET
    assert r.model.drop == r.model.drop_path == 0 and not r.model.initial and not r.model.stem
    assert r.augment.smoothing == 0.1 and r.augment.flip == 0.5
    assert (r.augment.crop, r.augment.scale) == ("resized", (0.08, 1.0))
    assert r.augment.ratio == pytest.approx((0.75, 1.33), abs=0.01)
    assert r.optimizer.lr_batch == 512 and r.optimizer.clip == 0
    assert r.engine.precision == r.threat.precision == "float32" and not r.engine.sync_batch_norm
    assert r.schedule.warmup == 5
    assert r.data.train == "imagenet-train" and r.data.held_out and not r.data.validation


@pytest.mark.parametrize("name", RESNETS)
def test_residual_networks(name):
    architecture, per_gpu, mixup, cutmix, switch, average, labels, activation = RESNETS[name]
    r = load_recipe(name)
    assert r.model.architecture == f"timm:{architecture}" and r.model.activation == activation
    assert (r.optimizer.name, r.optimizer.lr, r.optimizer.momentum, r.optimizer.weight_decay) == ("sgd", 0.2, 0.9, 1e-4)
    assert (r.schedule.epochs, r.schedule.name, r.schedule.decay_every, r.schedule.decay_by) == (95, "step", 30, 0.1)
    assert r.schedule.warmup_lr == 1e-4
    assert r.engine.batch == 8 * per_gpu and r.lr == pytest.approx(0.2 * 8 * per_gpu / 512)
    assert (r.augment.color_jitter, r.augment.policy, r.augment.erase) == (0.1, "", 0)
    assert (r.augment.mixup, r.augment.cutmix) == (mixup, cutmix)
    if switch is not None:
        assert (r.augment.mix_chance, r.augment.switch_chance, r.augment.mix_mode) == (1.0, switch, "batch")
    assert r.average.decay == average and not r.average.warmup
    assert r.threat.labels == labels


@pytest.mark.parametrize("name", OTHERS)
def test_convnext_swin_and_vit(name):
    architecture, per_gpu = OTHERS[name]
    r = load_recipe(name)
    assert r.model.architecture == f"timm:{architecture}" and not r.model.activation
    assert (r.optimizer.name, r.optimizer.lr, r.optimizer.eps, r.optimizer.weight_decay) == ("adamw", 5e-4, 1e-8, 0.05)
    assert (r.schedule.epochs, r.schedule.name) == (300, "cosine")
    assert (r.schedule.warmup_lr, r.schedule.min_lr) == (1e-6, 1e-5)
    assert r.engine.batch == 8 * per_gpu and r.lr == pytest.approx(5e-4 * 8 * per_gpu / 512)
    assert (r.augment.policy, r.augment.erase, r.augment.erase_count) == ("rand-m9-mstd0.5-inc1", 0.25, 1)
    assert (r.augment.mixup, r.augment.cutmix) == (0.8, 1.0)
    assert (r.augment.mix_chance, r.augment.switch_chance, r.augment.mix_mode) == (1.0, 0.5, "batch")
    assert r.average.decay == 0.9998 and r.threat.labels == "soft"


@pytest.mark.parametrize("name", [*RESNETS, *OTHERS])
def test_departures_are_said(name):
    notes = " ".join(load_recipe(name).notes)
    for word in ("validation images", "held out", "whole first epoch", "random ones", "best of each image"):
        assert word in notes, word
    said = load_recipe(name).model.activation == "gelu"
    assert ("GELU" in notes) == said


def test_the_recipes_of_others():
    light = load_recipe("xcit-small-light")
    assert (light.optimizer.weight_decay, light.schedule.epochs, light.threat.budget_warmup) == (0.5, 100, 10)
    assert light.threat.attack.startswith("pgd(steps=1") and light.model.drop_path == 0.05
    assert not (light.augment.mixup or light.augment.cutmix or light.augment.policy or light.average.decay)
    for name in ("convnext-tiny-stem-finetune", "vit-small-stem-finetune"):
        stem = load_recipe(name)
        assert (stem.model.stem, stem.threat.attack, stem.engine.batch) == ("convolutional", "apgd-ce(steps=2)", 640)
        assert (stem.lr, stem.schedule.warmup, stem.average.decay, stem.augment.smoothing) == (1e-3, 20, 0.9999, 0.1)
        assert stem.model.initial
    phases = [load_recipe(f"resnet50-fast-{k}") for k in (1, 2, 3)]
    assert [p.model.size for p in phases] == [128, 224, 288]
    assert [p.engine.batch for p in phases] == [512, 224, 128]
    assert sum(p.schedule.epochs for p in phases) == 15
    assert (phases[0].lr, phases[2].schedule.min_lr) == (0.4, 0.0004)
    assert all(p.threat.attack == "pgd(steps=1, rel_step=1.25)" for p in phases)
    assert [p.model.initial for p in phases] == ["", *(f"models/resnet50-fast-{k}?weights=last" for k in (1, 2))]


def test_cifar10_takes_the_usual_budget_and_weight_decay():
    for name in [name for name in recipe_names() if name.startswith("cifar10-")]:
        r = load_recipe(name)
        assert r.threat.budgets == ("linf:8/255",) and r.optimizer.weight_decay == 5e-4, name
        assert r.data.train == "cifar10(split=train)" and r.data.held_out == 1000


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_names_what_there_is(name):
    """Architecture and weights are timm's, also those that a note proposes; no recipe watches images of a test set."""
    r = load_recipe(name)
    if r.model.architecture.startswith("timm:"):
        assert r.model.architecture[5:] in timm.list_models()
    for weights in re.findall(r"timm:([\w.]+\.\w+)", " ".join((*r.notes, r.model.initial))):
        assert timm.models.is_model_pretrained(weights), weights
    assert not r.data.validation and r.data.held_out
    assert "train" in r.data.train
    if not name.endswith("standard"):
        assert r.paper and r.notes
