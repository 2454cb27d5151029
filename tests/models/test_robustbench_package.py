"""RobustBench's package: only its model tables are imported, nothing stays behind, and our table agrees with them."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch

from aresbench.core.errors import ModelError, UnknownName
from aresbench.core.preprocessing import Preprocessing
from aresbench.data import cifar, cifar100
from aresbench.metrics.published import published
from aresbench.models.load import load_model
from aresbench.models.robustbench import entries, entry
from aresbench.models.robustbench_package import OUTPUTS, STAND_INS, package

SMALL = "cifar10/corruptions/Hendrycks2020AugMix_WRN"


def test_the_import_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "robustbench", ModuleType("robustbench"))
    monkeypatch.setitem(sys.modules, "robustbench.model_zoo", ModuleType("robustbench.model_zoo"))
    sys.modules["robustbench"].__spec__ = importlib.machinery.PathFinder.find_spec("robustbench")
    package.cache_clear()
    before, known = dict(sys.modules), set(timm.list_models())
    package()
    ours = {name for name in sys.modules if name.partition(".")[0] in ("robustbench", *STAND_INS)}
    assert ours == {"robustbench", "robustbench.model_zoo"}
    assert all(sys.modules[name] is before[name] for name in ours)
    assert known <= set(timm.list_models())


def test_what_a_model_alone_needs_is_asked_for_with_that_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in STAND_INS:
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    package.cache_clear()
    with pytest.raises(ModelError, match=r"needs geotorch, which is not installed\n.*pip install geotorch"):
        load_model("robustbench:cifar10/linf/Kang2021Stable?pretrained=false")
    package.cache_clear()


def test_without_the_package_one_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    package.cache_clear()
    with pytest.raises(ModelError, match=r"not installed\n.*pip install --no-deps robustbench==1\.1\.1"):
        load_model(f"robustbench:{SMALL}")


def test_a_package_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = tmp_path / "robustbench" / "model_zoo"
    zoo.mkdir(parents=True)
    for file in (zoo.parent / "__init__.py", zoo / "__init__.py"):
        file.touch()
    (zoo / "models.py").write_text("import a_library_of_yesterday\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    package.cache_clear()
    with pytest.raises(ModelError, match=r"cannot be imported: .*'a_library_of_yesterday'\n.*pip install a_lib"):
        load_model(f"robustbench:{SMALL}")
    assert not [name for name in sys.modules if name.startswith("robustbench")]
    package.cache_clear()


def test_the_table_agrees_with_the_package() -> None:
    own = {"Res256Crop224": ("bilinear", 256), "BicubicRes256Crop224": ("bicubic", 256)}
    assert set(entries()) == set(package().table)
    for name, one in entries().items():
        assert one.files == len(package().files(name)), name
        if one.dataset != "imagenet":
            assert one.preprocessing == Preprocessing((32, 32)) and not one.prepare
        elif package().timm_name(name):
            config = package().timm_config(name)
            expected = Preprocessing((224, 224), int(224 / config["crop_pct"]), config["interpolation"])
            assert one.preprocessing == expected, name
        elif (word := package().table[name]["preprocessing"]) in own:
            interpolation, resize = own[word]
            assert one.preprocessing == Preprocessing((224, 224), resize, interpolation), name
        elif word == "Res224":
            assert one.preprocessing == Preprocessing((224, 224), None, "bilinear", squash=True), name
        else:
            assert word == "Crop288" and one.preprocessing == Preprocessing((288, 288))
            assert any("288 pixels" in note for note in one.notes)


def test_the_table_agrees_with_the_published_figures() -> None:
    boards = {
        "imagenet/linf/" + e.facts["name"]: e for e in published("robustbench").entries if e.key.startswith("zoo:")
    }
    boards |= {e.key.removeprefix("robustbench:"): e for e in published("robustbench").entries}
    for name, one in entries().items():
        board = boards[name]
        assert one.clean == board.figures["clean"], name
        for fact in ("family", "architecture", "paradigm", "data", "link"):
            assert getattr(one, fact) == board.facts[fact], (name, fact)
    unpublished = next(key for key in boards if key not in entries() and not key.startswith("zoo:"))
    with pytest.raises(UnknownName, match="and not its weights"):
        entry(unpublished)


# The first of each family; without three papers' models, whose code looks at values while it builds.
FIRST = {
    one.family: one.name
    for one in reversed(entries().values())
    if one.model[:7] not in ("Amini20", "Bai2024", "Xu2024M")
}


@pytest.mark.parametrize("family", FIRST)
def test_every_family_is_built_without_fetching(family: str) -> None:
    name = FIRST[family]
    with torch.device("meta"):
        module = package().build(name)
    assert any(p.shape[0] == OUTPUTS[entry(name).dataset] for p in module.parameters())


def test_classes_are_called_as_the_data_call_them() -> None:
    for name, names in (
        ("cifar10/linf/Wong2020Fast", cifar.CLASSES),
        ("cifar100/linf/Rice2020Overfitting", cifar100.CLASSES),
    ):
        classes = load_model(f"robustbench:{name}?pretrained=false").classes
        assert classes is not None and classes.names == names
