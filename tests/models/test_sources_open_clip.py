"""Zero-shot classifiers: OpenCLIP's own embeddings, averaged over sentences. A tiny CLIP, made here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from aresbench.core.classes import Classes
from aresbench.core.errors import ModelError, SpecError, UnknownName
from aresbench.models.labels import imagenet_classes
from aresbench.models.load import load_model
from aresbench.models.sources.open_clip import TEMPLATES, words
from aresbench.models.zero_shot import preprocessing_of
from aresbench.ops import resize

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
ANIMALS = ["cat", "dog", "goldfish", "ice bear, polar bear"]


class Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A tiny CLIP with random weights, and the file that holds them."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "aresbench-tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "aresbench-tiny.json")
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = open_clip.create_model("aresbench-tiny").eval()
        for parameter in model.visual.parameters():
            nn.init.normal_(parameter, std=0.3)
    save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, folder / "tiny.safetensors")
    return model, folder / "tiny.safetensors"


@pytest.mark.parametrize("templates", [None, "a photo of a {}.", ["a {}.", "two {}."]])
def test_logits_are_the_cosine_with_the_mean_sentence(clip: tuple[nn.Module, Path], templates: object) -> None:
    model, path = clip
    options = {} if templates is None else {"templates": templates}
    ours = load_model(f"open-clip:aresbench-tiny/{path}", classes=Classes(tuple(ANIMALS)), **options)
    sentences = TEMPLATES if templates is None else [templates] if isinstance(templates, str) else templates
    tokenizer = open_clip.get_tokenizer("aresbench-tiny")
    picture = Image.effect_noise((90, 67), 90).convert("RGB")
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg), is_train=False
    )
    with torch.no_grad():
        rows = [
            model.encode_text(tokenizer([s.replace("{}", a.split(",")[0]) for s in sentences]), normalize=True).mean(0)
            for a in ANIMALS
        ]
        image = model.encode_image(transform(picture)[None], normalize=True)
        wanted = model.logit_scale.exp() * image @ F.normalize(torch.stack(rows), dim=-1).T
        got = ours(resize.apply(picture, ours.preprocessing)[None].float() / 255)
    assert torch.allclose(got, wanted, atol=1e-4) and wanted.std() > 0.05
    assert ours.classes is not None and ours.classes.names == tuple(ANIMALS) and not ours.training
    assert ours.name.startswith("open-clip:aresbench-tiny/") and ours.name.endswith("tiny.safetensors")


def test_it_is_differentiable(clip: tuple[nn.Module, Path]) -> None:
    ours = load_model(f"open-clip:aresbench-tiny/{clip[1]}", classes=Classes(tuple(ANIMALS)))
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(ours(x)[:, 0].sum(), x)
    assert gradient.flatten(1).abs().amax(1).min() > 0


def test_other_words_or_sentences_are_another_model(clip: tuple[nn.Module, Path]) -> None:
    spec = f"open-clip:aresbench-tiny/{clip[1]}"
    first = load_model(spec, classes=Classes(tuple(ANIMALS)))
    other = load_model(spec, classes=Classes((*ANIMALS[:3], "kitten")))
    third = load_model(spec, classes=Classes(tuple(ANIMALS)), templates="a {}")
    assert len({first.fingerprint, other.fingerprint, third.fingerprint}) == 3


def test_every_class_of_imagenet_has_words_of_its_own() -> None:
    found = words(imagenet_classes())
    assert len({one.lower() for one in found}) == 1000
    assert found[1] == "goldfish" and found[134] == "crane bird" and found[517] == "crane"
    with pytest.raises(ModelError, match="both called 'crane'"):
        words(Classes(("crane", "Crane")))


def test_weights_that_do_not_fit_or_would_run_code_are_refused(
    clip: tuple[nn.Module, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = clip[0].state_dict()
    save_file({k: v.clone() for k, v in state.items() if k != "visual.proj"}, tmp_path / "less.safetensors")
    with pytest.raises(ModelError, match=r"visual\.proj"):
        load_model(f"open-clip:aresbench-tiny/{tmp_path}/less.safetensors", classes=Classes(("a", "b")))
    torch.save({**state, "more": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(ModelError, match=r"would run code when loaded.*: refused"):
        load_model(f"open-clip:aresbench-tiny/{tmp_path}/bomb.pt", classes=Classes(("a", "b")))
    assert not (tmp_path / "exploded").exists()


def test_names_and_templates_are_checked(clip: tuple[nn.Module, Path]) -> None:
    with pytest.raises(UnknownName, match="did you mean 'ViT-B-32'"):
        load_model("open-clip:ViT-B32/openai")
    with pytest.raises(UnknownName, match="did you mean 'laion400m_e32'"):
        load_model("open-clip:ViT-B-32/laion400_e32")
    with pytest.raises(UnknownName, match="which weights of ViT-B-32"):
        load_model("open-clip:ViT-B-32")
    with pytest.raises(SpecError, match="needs one place for the class"):
        load_model(f"open-clip:aresbench-tiny/{clip[1]}", templates="a photo")


def test_a_transform_that_pads_is_refused() -> None:
    found = {"size": 224, "resize_mode": "longest", "interpolation": "bicubic"}
    with pytest.raises(ModelError, match="is not one this version knows"):
        preprocessing_of("x", found)
    assert preprocessing_of("x", {**found, "resize_mode": "squash"}).squash
