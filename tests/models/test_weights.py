"""The user's own checkpoint files: read safely, matched strictly, every failure named."""

from __future__ import annotations

import json
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from aresbench.core.errors import ModelError, SpecError, UnknownName
from aresbench.models.load import load_model

Write = Callable[[str, str | bytes], Path]
ARCH = "?arch=./mine.py:make"


class Bomb:
    """A pickle of this creates a file when it is loaded by a careless reader."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


class Harmless:
    """Any class at all is more than a checkpoint of tensors needs."""


@pytest.fixture
def weights(factory: Path, small: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of ``small``; ``mine.py:make`` makes its architecture in the current folder."""
    return {k: v.clone() for k, v in small.state_dict().items()}


def same_as(small: nn.Module, spec: str) -> bool:
    """Does the loaded model hold exactly the tensors of ``small``?"""
    state = load_model(spec).module.state_dict()
    return all(torch.equal(v, state[k]) for k, v in small.state_dict().items())


def test_safetensors_and_torch_files_give_the_same_model(weights: dict, small: nn.Module) -> None:
    save_file(weights, "w.safetensors")
    torch.save(weights, "w.pt")
    torch.save(weights, "old.pth", _use_new_zipfile_serialization=False)
    models = [load_model(f"{name}{ARCH}") for name in ("w.safetensors", "w.pt", "old.pth")]
    assert len({m.fingerprint for m in models}) == 1
    assert models[0].name == "w.safetensors?arch=mine.py:make" and not models[0].training
    assert same_as(small, f"w.pt{ARCH}")


def test_the_content_tells_the_kind_not_the_suffix(weights: dict, small: nn.Module) -> None:
    save_file(weights, "really_safetensors.pt")
    torch.save(weights, "really_torch.safetensors")
    assert same_as(small, f"really_safetensors.pt{ARCH}") and same_as(small, f"really_torch.safetensors{ARCH}")


@pytest.mark.parametrize("first", [0x80, ord("P")])
def test_a_safetensors_header_may_begin_like_a_pickle(weights: dict, small: nn.Module, first: int) -> None:
    for padding in range(300):
        save_file(weights, "w.safetensors", {"note": "x" * padding})
        if Path("w.safetensors").read_bytes()[0] == first:
            break
    assert Path("w.safetensors").read_bytes()[0] == first and same_as(small, f"w.safetensors{ARCH}")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module.model.", "_orig_mod.module."])
@pytest.mark.parametrize("nest", ["{}", "state_dict", "model", "checkpoint.model_state"])
def test_common_nestings_and_prefixes_are_taken_off(weights: dict, small: nn.Module, prefix: str, nest: str) -> None:
    value: dict = OrderedDict((prefix + k, v) for k, v in weights.items())
    if nest != "{}":
        for key in reversed(nest.split(".")):
            value = {key: value, "epoch": 3}
        value["optimizer"] = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    torch.save(value, "w.pth")
    assert same_as(small, f"w.pth{ARCH}")


def test_several_state_dicts_are_refused_until_one_is_named(weights: dict, small: nn.Module) -> None:
    other = {k: torch.zeros_like(v) for k, v in weights.items()}
    torch.save({"state_dict": other, "state_dict_ema": weights}, "w.pt")
    with pytest.raises(ModelError, match="2 state dicts: state_dict, state_dict_ema"):
        load_model(f"w.pt{ARCH}")
    assert same_as(small, f"w.pt{ARCH}&key=state_dict_ema")
    with pytest.raises(ModelError, match="no state dict called 'ema'"):
        load_model(f"w.pt{ARCH}&key=ema")


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_bomb_is_refused_and_does_not_run(weights: dict, factory: Path, new: bool) -> None:
    torch.save({"state_dict": weights, "extra": Bomb()}, "bomb.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(ModelError, match=r"would run code when loaded \(it asks for \w+\.mkdir\): refused") as caught:
        load_model(f"bomb.pt{ARCH}")
    assert "safetensors" in caught.value.remedy
    assert not (factory.parent / "exploded").exists()
    torch.load("bomb.pt", weights_only=False)
    assert (factory.parent / "exploded").exists(), "the bomb is real"


def test_a_whole_pickled_module_is_refused(weights: dict, small: nn.Module) -> None:
    torch.save(small, "whole.pt")
    with pytest.raises(ModelError, match=r"would run code when loaded.*SmallCNN"):
        load_model(f"whole.pt{ARCH}")
    torch.save({"state_dict": weights, "args": Harmless()}, "args.pt")
    with pytest.raises(ModelError, match=r"would run code when loaded.*Harmless"):
        load_model(f"args.pt{ARCH}")


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_program_is_refused(weights: dict, small: nn.Module) -> None:
    torch.jit.save(torch.jit.trace(small.eval(), torch.rand(1, 3, 32, 32)), "script.pt")
    with pytest.raises(ModelError, match="TorchScript program"):
        load_model(f"script.pt{ARCH}")


@pytest.mark.parametrize("keep", [0.001, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle"])
def test_truncated_files_are_named(weights: dict, kind: str, keep: float) -> None:
    if kind == "safetensors":
        save_file(weights, "w.pt")
    else:
        torch.save(weights, "w.pt", _use_new_zipfile_serialization=kind == "zip")
    whole = Path("w.pt").read_bytes()
    Path("w.pt").write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(ModelError, match=r"w\.pt is truncated or damaged"):
        load_model(f"w.pt{ARCH}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"\n  <html>404</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"", "is empty"),
        (b"these are not the weights you are looking for", "holds no weights"),
    ],
)
def test_what_is_no_weights_file_at_all_is_named(factory: Path, write: Write, content: bytes, message: str) -> None:
    for name in ("w.pt", "w.safetensors"):
        write(name, content)
        with pytest.raises(ModelError, match=message):
            load_model(f"{name}{ARCH}")


def test_other_archives_are_no_weights(factory: Path) -> None:
    with zipfile.ZipFile("w.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match=r"w\.pt"):
        load_model(f"w.pt{ARCH}")
    torch.save([1, 2], "list.pt")
    with pytest.raises(ModelError, match="holds a list, not named tensors"):
        load_model(f"list.pt{ARCH}")
    torch.save({"epoch": 1}, "empty.pt")
    with pytest.raises(ModelError, match="no named tensors"):
        load_model(f"empty.pt{ARCH}")


def test_missing_files_and_a_missing_architecture(weights: dict) -> None:
    torch.save(weights, "best.pt")
    with pytest.raises(ModelError, match=r"there is no file bset.pt\n  → did you mean 'best.pt'"):
        load_model(f"bset.pt{ARCH}")
    with pytest.raises(ModelError, match="there is no folder nowhere"):
        load_model(f"nowhere/best.pt{ARCH}")
    with pytest.raises(SpecError, match=r"best.pt\?arch=timm:resnet50"):
        load_model("best.pt")
    with pytest.raises(UnknownName, match="did you mean 'resnet50'"):
        load_model("best.pt?arch=timm:resnte50")


def test_keys_that_do_not_fit_are_named(weights: dict) -> None:
    weights["head.scale"] = weights.pop("head.bias")
    torch.save(weights, "w.pt")
    with pytest.raises(ModelError, match=r"1 missing \(head.bias\); 1 unexpected \(head.scale\)"):
        load_model(f"w.pt{ARCH}")


def test_a_wrong_class_count_is_named(weights: dict) -> None:
    weights["head.weight"], weights["head.bias"] = weights["head.weight"][:7].clone(), weights["head.bias"][:7].clone()
    torch.save(weights, "w.pt")
    with pytest.raises(ModelError, match=r"has 7 classes and ./mine.py:make has 10 \(head.weight"):
        load_model(f"w.pt{ARCH}")


def test_another_architecture_is_named(weights: dict) -> None:
    weights["features.0.0.weight"] = torch.zeros(16, 3, 5, 5)
    torch.save(weights, "w.pt")
    with pytest.raises(ModelError, match=r"1 tensors differ in shape, first features.0.0.weight"):
        load_model(f"w.pt{ARCH}")


def test_labels_come_from_metadata_option_checkpoint_or_sidecar(weights: dict, write: Write) -> None:
    names = list("abcdefghij")
    save_file(weights, "meta.safetensors", metadata={"classes": json.dumps(names), "mean": "0.25", "std": "0.5"})
    model = load_model(f"meta.safetensors{ARCH}")
    assert model.classes is not None and model.classes.names == tuple(names)
    assert model.card["mean"] == [0.25] * 3 and model.card["notes"] == []
    write("other.json", json.dumps({n.upper(): i for i, n in enumerate(names)}))
    assert load_model(f"meta.safetensors{ARCH}&classes=other.json").classes.names == tuple("ABCDEFGHIJ")
    torch.save({"model": weights, "idx_to_class": dict(enumerate(names))}, "w.pt")
    assert load_model(f"w.pt{ARCH}").classes.names == tuple(names)
    torch.save(weights, "side.pt")
    assert load_model(f"side.pt{ARCH}").classes is None
    write("side.classes.txt", "\n".join(reversed(names)) + "\n")
    assert load_model(f"side.pt{ARCH}").classes.names == tuple(reversed(names))


def test_bad_labels_are_named(weights: dict, write: Write) -> None:
    torch.save(weights, "w.pt")
    write("gap.json", '{"0": "a", "2": "b"}')
    write("text.json", "not json")
    write("empty.txt", "")
    for name, message in (
        ("gap.json", "not 0 to 1, each once"),
        ("text.json", "is not JSON"),
        ("empty.txt", "holds no class names"),
        ("absent.txt", "no file of class names"),
    ):
        with pytest.raises(ModelError, match=message):
            load_model(f"w.pt{ARCH}&classes={name}")
    write("nine.txt", "\n".join("abcdefghi"))
    with pytest.raises(ModelError, match="returns 10 logits, and 9 classes"):
        load_model(f"w.pt{ARCH}&classes=nine.txt")(torch.rand(1, 3, 32, 32))


def test_wnids_become_ids_with_readable_names(weights: dict, write: Write) -> None:
    torch.save(weights, "w.pt")
    write("wnids.txt", "\n".join(["n01443537", "n01440764", *(f"n9999000{i}" for i in range(8))]))
    classes = load_model(f"w.pt{ARCH}&classes=wnids.txt").classes
    assert classes.ids[0] == "n01443537" and classes.names[0] == "goldfish, Carassius auratus"
    assert classes.names[2] == "n99990000"


def test_timm_architecture_takes_outputs_from_the_file_and_preprocessing_from_the_tag(write: Write) -> None:
    module = timm.create_model("test_resnet", num_classes=5)
    save_file(module.state_dict(), "w.safetensors")
    model = load_model("w.safetensors?arch=timm:test_resnet.r160_in1k")
    assert model.num_classes == 5 and model.classes is None
    assert all(torch.equal(v, model.module.state_dict()[k]) for k, v in module.state_dict().items())
    tagged = load_model("timm:test_resnet.r160_in1k?pretrained=false")
    assert model.preprocessing == tagged.preprocessing and model.card["mean"] == tagged.card["mean"]
    assert model.card["notes"] == [] and "weights" not in model.card
    untagged = load_model("w.safetensors?arch=timm:test_resnet")
    assert any("timm's default" in note for note in untagged.card["notes"])
    write("four.txt", "a\nb\nc\nd")
    with pytest.raises(ModelError, match="4 class names for a module with 5 outputs"):
        load_model("w.safetensors?arch=timm:test_resnet&classes=four.txt")
    with pytest.raises(ModelError, match="does not fit timm:resnet18"):
        load_model("w.safetensors?arch=timm:resnet18")
