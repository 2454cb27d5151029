"""Programs of torch.export: the same logits and gradients, and no archive that would run code."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import aresbench as ab
from aresbench.core.errors import ModelError
from aresbench.models.load import load_model
from aresbench.models.pt2_archive import _is_arithmetic

pytestmark = pytest.mark.filterwarnings("ignore")


def export(module: nn.Module, path: Path, size: int = 32, batch: bool = True) -> Path:
    shapes = ({0: torch.export.Dim("n", min=1)},) if batch else None
    torch.export.save(torch.export.export(module.eval(), (torch.rand(2, 3, size, size),), dynamic_shapes=shapes), path)
    return path


@pytest.fixture
def archive(small: nn.Module, tmp_path: Path) -> Path:
    return export(small, tmp_path / "small.pt2")


def test_logits_and_gradients_are_the_originals(archive: Path, small: nn.Module, images: torch.Tensor) -> None:
    model = load_model(f"exported:{archive}?mean=[0.5, 0.4, 0.3]&std=[0.2, 0.3, 0.25]")
    original = ab.Classifier(small.eval(), [0.5, 0.4, 0.3], [0.2, 0.3, 0.25])
    found = []
    for net in (model, original, copy.deepcopy(model)):
        x = images.clone().requires_grad_(True)
        logits = net(x)
        found.append((logits.detach(), torch.autograd.grad(logits[:, 1].sum(), x)[0]))
    for logits, gradient in found[1:]:
        assert torch.allclose(logits, found[0][0], atol=1e-4) and torch.allclose(gradient, found[0][1], atol=1e-4)
    assert model.num_classes == 10 and model.preprocessing is not None and model.preprocessing.size == (32, 32)
    assert load_model(str(archive)).fingerprint == load_model(f"exported:{archive}").fingerprint


def test_it_can_be_attacked(archive: Path, images: torch.Tensor) -> None:
    model = load_model(f"exported:{archive}")
    y = model(images).argmax(1)
    result = ab.attack(model, images, y, "pgd(steps=3)", "linf:16/255")
    assert (result.backwards > 0).all() and (result.zero_gradients == 0).all()


def test_what_is_no_classifier_is_refused(small: nn.Module, tmp_path: Path, archive: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        load_model(f"exported:{tmp_path}/nothing.pt2")
    (tmp_path / "page.pt2").write_text("<!doctype html>")
    with pytest.raises(ModelError, match=r"is no archive of torch\.export, or is damaged"):
        load_model(f"exported:{tmp_path}/page.pt2")
    (tmp_path / "half.pt2").write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"is no archive of torch\.export, or is damaged"):
        load_model(f"exported:{tmp_path}/half.pt2")
    torch.save(small.state_dict(), tmp_path / "weights.pt2")
    with pytest.raises(ModelError, match=r"older torch, or none of torch\.export"):
        load_model(f"exported:{tmp_path}/weights.pt2")
    with pytest.raises(ModelError, match="takes batches of 2 only"):
        load_model(f"exported:{export(small, tmp_path / 'two.pt2', batch=False)}")
    with pytest.raises(ModelError, match=r"returns \[2, 3, 32, 32\].* where logits"):
        load_model(f"exported:{export(nn.Conv2d(3, 3, 1), tmp_path / 'dense.pt2')}")
    with pytest.raises(ModelError, match="takes 32×32, not 64×64"):
        load_model(f"exported:{archive}?size=64")


class Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


Change = Callable[[dict[str, bytes]], None]


def planted(archive: Path, change: Change) -> Path:
    """A copy of an archive with other records."""
    with zipfile.ZipFile(archive) as whole:
        top = whole.namelist()[0].partition("/")[0]
        records = {name.partition("/")[2]: whole.read(name) for name in whole.namelist()}
    change(records)
    path = archive.with_name("planted.pt2")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
        for name, content in records.items():
            out.writestr(f"{top}/{name}", content)
    return path


def in_json(name: str, edit: Callable[[Any], None]) -> Change:
    def change(records: dict[str, bytes]) -> None:
        value = json.loads(records[name])
        edit(value)
        records[name] = json.dumps(value).encode()

    return change


def pickled_weight(records: dict[str, bytes]) -> None:
    config = json.loads(records["data/weights/model_weights_config.json"])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    records["data/weights/model_weights_config.json"] = json.dumps(config).encode()
    torch.save(Bomb(), "bomb.pt")
    records[f"data/weights/{first['path_name']}"] = Path("bomb.pt").read_bytes()


def pickled_inputs(records: dict[str, bytes]) -> None:
    torch.save(Bomb(), "bomb.pt")
    records["data/sample_inputs/model.pt"] = Path("bomb.pt").read_bytes()


def pickled_constant(records: dict[str, bytes]) -> None:
    entry = {"path_name": "custom_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
    records["data/constants/model_constants_config.json"] = json.dumps({"config": {"bomb": entry}}).encode()
    records["data/constants/custom_obj_0"] = pickle.dumps(Bomb())


def first_node(value: Any) -> dict[str, Any]:
    return value["graph_module"]["graph"]["nodes"][0]


def formula(value: Any) -> None:
    def walk(inner: Any) -> None:
        for one in inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ():
            walk(one)
        if isinstance(inner, dict) and "expr_str" in inner:
            inner["expr_str"] = "__import__('os').mkdir('exploded')"

    walk(value)


MODEL = "models/model.json"
PLANTS: dict[str, tuple[Change, str]] = {
    "a pickled weight": (pickled_weight, "pickle among its tensors"),
    "pickled example inputs": (pickled_inputs, "pickle of more than tensors"),
    "a pickled constant": (pickled_constant, "object that is no tensor"),
    "a formula": (in_json(MODEL, formula), "as a size"),
    "a function": (
        in_json(MODEL, lambda v: first_node(v).update(target="torch.hub.load")),
        r"calls 'torch\.hub\.load'",
    ),
    "a file": (in_json(MODEL, lambda v: first_node(v).update(target="torch.ops.aten.from_file.default")), "from_file"),
    "a name": (in_json(MODEL, lambda v: first_node(v).update(name="x=exec('')#")), "calls something"),
    "a library": (lambda records: records.update({"data/aotinductor/model/a.so": b"\x7fELF"}), r"holds '.*a\.so'"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_an_archive_that_would_run_code_is_refused_unread(
    archive: Path, plant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive.parent)
    change, words = PLANTS[plant]
    path = planted(archive, change)
    with pytest.raises(ModelError, match=rf"{words}.*could run code when loaded: refused"):
        load_model(f"exported:{path}")
    assert not Path("exploded").exists()


@pytest.mark.parametrize("plant", ["a pickled weight", "pickled example inputs", "a formula"])
def test_the_plants_are_real(archive: Path, plant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive.parent)
    with contextlib.suppress(Exception):
        torch.export.load(planted(archive, PLANTS[plant][0]))
    assert Path("exploded").exists()


def test_a_copy_without_a_plant_is_read(archive: Path, images: torch.Tensor) -> None:
    copied = planted(archive, lambda records: None)
    assert torch.equal(load_model(f"exported:{copied}")(images), load_model(f"exported:{archive}")(images))


def test_two_records_of_one_name_are_refused(archive: Path) -> None:
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr(next(n for n in out.namelist() if n.endswith("model.json")), b"{}")
    with pytest.raises(ModelError, match="two records of one name"):
        load_model(f"exported:{archive}")


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("Symbol('s31', positive=True, integer=True)", True),
        ("Mul(Integer(49), Symbol('s0', integer=True))", True),
        ("s0*(s1 + 3)//2", True),
        ("Symbol('x')", False),
        ("().__class__", False),
        ("open('f', 'w')", False),
        ("[s0 for s0 in (1,)]", False),
        ("Max(eval, 1)", False),
        ("s0; s1", False),
    ],
)
def test_formulas(text: str, harmless: bool) -> None:
    assert _is_arithmetic(text) == harmless
