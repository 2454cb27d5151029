"""Recipes: reading, writing, changing, refusing."""

import subprocess
import sys
import tomllib

import pytest

from aresbench.core.errors import AresError, DataError, SpecError, UnknownName
from aresbench.training.recipe import Recipe, load_recipe, plain, read_recipe, recipe_names
from aresbench.training.recipe_parts import Data, Machine, Model, Schedule

LEAST = {"model": {"architecture": "small-cnn"}, "data": {"train": "digits(split=train)"}, "schedule": {"epochs": 2}}
TEXT = """
title = "a \\"title\\" with \\\\ and ε"
method = "trades(beta=5)"
[model]
architecture = "timm:vit_small_patch16_224"
arguments = {depth = 2, embed_dim = 16, qkv_bias = false, name = "x"}
std = [1, 1, 1]
[data]
train = "digits(split=train)"
[threat]
budgets = ["linf:4/255", "l2:0.5"]
[optimizer]
lr = 1e-05
betas = [0.9, 0.95]
[schedule]
epochs = 3
[machine]
workers = 0
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return path


def changed(*changes):
    raw = {key: dict(value) for key, value in LEAST.items()}
    for key, value in changes:
        part, _, name = key.rpartition(".")
        (raw.setdefault(part, {}) if part else raw)[name] = value
    return read_recipe(raw, "here")


# -- reading and writing --------------------------------------------------------------------------


def test_a_recipe_written_out_is_read_back_the_same(file):
    recipe = load_recipe(file)
    again = read_recipe(tomllib.loads(recipe.toml()), "again")
    assert again == recipe
    assert again.hash == recipe.hash
    assert recipe.model.arguments == {"depth": 2, "embed_dim": 16, "qkv_bias": False, "name": "x"}
    assert recipe.optimizer.betas == (0.9, 0.95) and recipe.model.std == (1.0, 1.0, 1.0)
    assert recipe.name == "mine"


@pytest.mark.parametrize("name", recipe_names())
def test_every_built_in_recipe_is_read_back_the_same(name):
    recipe = load_recipe(name)
    assert read_recipe(tomllib.loads(recipe.toml()), name) == recipe
    assert recipe.name == name and recipe.title


def test_reading_a_recipe_needs_no_torch():
    code = (
        "import sys; from aresbench.training.recipe import load_recipe, recipe_names\n"
        "[load_recipe(name) for name in recipe_names()]\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- identity -------------------------------------------------------------------------------------


def test_the_hash_knows_what_decides_the_weights_and_nothing_else(file):
    recipe = load_recipe(file)
    for same in ("machine.workers=3", "machine.compile=true", "title=other", "paper=x", "notes=[a, b]", "name=y"):
        assert load_recipe(file, [same]).hash == recipe.hash, same
    for other in (
        "seed=1",
        "method=standard",
        "perturb=awp(gamma=0.01)",
        "model.drop_path=0.1",
        "model.arguments.depth=3",
        "data.held_out=900",
        "augment.flip=0.4",
        "threat.iterate=best",
        "optimizer.lr=1e-4",
        "schedule.warmup=1",
        "average.decay=0.9",
        "engine.batch=256",
        "watch.every=2",
    ):
        assert load_recipe(file, [other]).hash != recipe.hash, other


def test_every_setting_but_words_and_machine_takes_part_in_the_identity():
    recipe = changed()
    parts = plain(recipe)
    assert set(parts) - set(recipe.identity()) == {"name", "title", "paper", "notes", "machine"}


def test_a_whole_number_and_its_fraction_are_one_recipe(file):
    assert load_recipe(file, ["augment.erase=1"]).hash == load_recipe(file, {"augment.erase": 1.0}).hash


# -- changes --------------------------------------------------------------------------------------


def test_changes_as_texts_and_as_a_mapping(file):
    texts = load_recipe(file, ["schedule.epochs=7", "threat.attack=pgd(steps=5)", "augment.scale=[0.5, 1]", "seed = 3"])
    assert (texts.schedule.epochs, texts.threat.attack) == (7, "pgd(steps=5)")
    assert texts.augment.scale == (0.5, 1.0) and texts.seed == 3
    mapping = {"schedule.epochs": 7, "threat.attack": "pgd(steps=5)", "augment.scale": (0.5, 1), "seed": 3}
    assert load_recipe(file, mapping) == texts


def test_one_value_may_stand_for_a_list_of_one(file):
    assert load_recipe(file, ["threat.budgets=linf:8/255"]).threat.budgets == ("linf:8/255",)
    assert load_recipe(file, ["threat.budgets=[linf:8/255, l1:12]"]).threat.budgets == ("linf:8/255", "l1:12")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("optimzer.lr=0.1", "write optimizer.lr"),
        ("treat.attack=pgd", "write threat.attack"),
        ("lr=0.1", "write optimizer.lr"),
        ("batch=8", "write engine.batch"),
        ("warmup=3", "write schedule.warmup or average.warmup"),
        ("engine.epochs=3", "write schedule.epochs"),
        ("threat.labls=soft", "did you mean 'labels'?"),
        ("augment.smothing=0.1", "did you mean 'smoothing'?"),
        ("a.b.c=1", "its parts are model, data"),
        ("model=3", "write [model] and its keys"),
        ("epochs", "write key=value"),
        ("=3", "write key=value"),
    ],
)
def test_an_unknown_key_names_the_nearest_right_one(file, change, words):
    with pytest.raises(SpecError) as caught:
        load_recipe(file, [change])
    assert words in str(caught.value)


def test_unknown_keys_in_a_file(file):
    for text, words in (
        ("[optimzer]\nlr = 1", "did you mean 'optimizer'?"),
        ("lr = 1", "write optimizer.lr"),
        ("[augment]\nmixupp = 1", "did you mean 'mixup'"),
        ("[engine]\nlr = 1", "write optimizer.lr"),
    ):
        file.write_text(text + "\n" + TEXT if text == "lr = 1" else TEXT + text)
        with pytest.raises(SpecError) as caught:
            load_recipe(file)
        assert words in str(caught.value) and "mine.toml" in str(caught.value)


def test_names_and_files_that_are_not_there(tmp_path):
    with pytest.raises(UnknownName, match="did you mean"):
        load_recipe(recipe_names()[0] + "s")
    with pytest.raises(UnknownName, match=r"no recipe file .*nowhere\.toml"):
        load_recipe(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("title = ")
    with pytest.raises(SpecError, match="not valid TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_what_is_missing_is_named():
    with pytest.raises(SpecError, match=r"here: model is missing\n  → write \[model\]"):
        read_recipe({key: LEAST[key] for key in ("data", "schedule")}, "here")
    with pytest.raises(SpecError, match=r"here: \[schedule\]: epochs is missing"):
        read_recipe(LEAST | {"schedule": {}}, "here")


# -- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("schedule.epochs", "ten", "is not a whole number"),
        ("schedule.epochs", 1.5, "is not a whole number"),
        ("schedule.epochs", True, "is not a whole number"),
        ("schedule.epochs", 0, "must be at least 1"),
        ("schedule.warmup", 3, "schedule.warmup = 3 of 2 epochs"),
        ("schedule.name", "cosin", "did you mean 'cosine'?"),
        ("schedule.decay_by", 2.0, "not between 0 and 1"),
        ("model.drop_path", "a", "is not a number"),
        ("model.drop_path", float("nan"), "is not a number"),
        ("model.drop_path", 1.5, "not between 0 and 1"),
        ("model.activation", "relu", "none"),
        ("model.stem", "conv", "convolutional"),
        ("model.resize", 20, "model.resize = 20 is below model.size = 224"),
        ("model.std", [0.5, 0.5, 0.0], "must be above 0"),
        ("model.mean", [0.5], "three numbers"),
        ("data.validation", "digits(split=train)", "are the images that are learned from"),
        ("data.held_out", -1, "must be at least 0"),
        ("augment.crop", "shift", "augment.padding"),
        ("augment.policy", "random-m9", "rand"),
        ("augment.scale", [0.5], "no pair"),
        ("augment.scale", [0.9, 0.1], "no pair"),
        ("augment.scale", [0.9, 2], "beyond the picture"),
        ("augment.smoothing", 1.0, "not in [0, 1)"),
        ("augment.mixup", -1.0, "must be at least 0"),
        ("threat.budgets", [], "threat.budgets is empty"),
        ("threat.budgets", ["linf:[1,2]/255"], "not one size above 0"),
        ("threat.budgets", ["linf:0"], "not one size above 0"),
        ("threat.budgets", ["inf:4/255"], "linf"),
        ("threat.attack", "pdg", "did you mean 'pgd'"),
        ("threat.attack", "pgd(step=3)", "'steps'"),
        ("threat.attack", "square", "no bounded attack that climbs gradients"),
        ("threat.attack", "fmn", "no bounded attack that climbs gradients"),
        ("threat.labels", "softt", "did you mean 'soft'?"),
        ("method", "trade", "did you mean 'trades'?"),
        ("method", "trades(bta=3)", "did you mean 'beta'?"),
        ("watch.attack", "pgd(step=3)", "watch.attack"),
        ("watch.gap", 0.0, "must be above 0"),
        ("optimizer.lr", 0.0, "must be above 0"),
        ("optimizer.momentum", 1.0, "not in [0, 1)"),
        ("average.decay", 1.0, "not in [0, 1)"),
        ("engine.precision", "float16", "none"),
        ("machine.workers", -1, "must be at least 0"),
        ("seed", -1, "must be at least 0"),
    ],
)
def test_wrong_values_are_refused_by_name(key, value, words):
    with pytest.raises(AresError) as caught:
        changed((key, value))
    text = str(caught.value)
    assert text.startswith("here: ") and words in text
    assert key in text or key == "method" or "resize" in words


def test_an_attack_must_know_the_norms_of_the_budgets():
    with pytest.raises(SpecError, match="does not attack under l0"):
        changed(("threat.budgets", ["l0:5"]))
    with pytest.raises(SpecError, match="does not attack under l1"):
        changed(("threat.budgets", ["linf:4/255", "l1:12"]), ("threat.attack", "mim"))


def test_batches_must_fall_into_equal_parts_and_pairs():
    changed(("engine.batch", 12), ("engine.accumulate", 3), ("augment.mixup", 0.2))
    with pytest.raises(SpecError, match=r"does not fall into engine\.accumulate = 5 equal parts"):
        changed(("engine.batch", 12), ("engine.accumulate", 5))
    with pytest.raises(SpecError, match="batches of 3 images leave one over"):
        changed(("engine.batch", 12), ("engine.accumulate", 4), ("augment.cutmix", 1.0))


def test_the_rate_grows_with_the_batch():
    assert changed(("engine.batch", 256), ("optimizer.lr", 0.2)).lr == pytest.approx(0.1)
    assert changed(("engine.batch", 256), ("optimizer.lr", 0.2), ("optimizer.lr_batch", 0)).lr == 0.2


def test_preprocessing_of_measured_images():
    assert Model("small-cnn", size=32, resize=0).preprocessing.squash
    crop = Model("small-cnn", size=224, resize=256).preprocessing
    assert (crop.size, crop.resize, crop.interpolation) == ((224, 224), 256, "bicubic")


def test_defaults_are_a_valid_recipe():
    recipe = Recipe(Model("small-cnn"), Data("digits(split=train)"), Schedule(1), machine=Machine(workers=0))
    assert recipe.threat.parsed[0].norm == "linf" and len(recipe.hash) == 12


# -- before data are read -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("threat.attack", "pgd(steps=0)", "steps"),
        ("threat.attack", "pgd(loss=cee)", "loss"),
        ("method", "trades(beta=-1)", "beta"),
        ("method", "free", "fgsm"),
        ("perturb", "awb(gamma=1)", "awp"),
        ("optimizer.name", "sdg", "did you mean 'sgd'"),
        ("watch.attack", "fmn(steps=-1)", "watch.attack"),
        ("watch.rescue", "pgd(steps=0)", "watch.rescue"),
        ("threat.step_warmup", 2.0, "step"),
    ],
)
def test_components_are_tried_before_data_are_read(key, value, words, tmp_path):
    from aresbench.training.loop import train

    changes = [(key, value), ("data.train", "folder:/nowhere/at/all")]
    if key == "threat.step_warmup":
        changes.append(("threat.attack", "apgd-ce(steps=2)"))
    recipe = changed(*changes)
    with pytest.raises(AresError) as caught:
        train(recipe, tmp_path / "out")
    assert words in str(caught.value) and not isinstance(caught.value, DataError)
    assert not (tmp_path / "out").exists()
