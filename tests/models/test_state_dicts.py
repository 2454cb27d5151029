"""Checkpoints under the names of older programs: every tensor finds its place, and the network answers as theirs did.

``zoo-originals.json.gz`` holds names, shapes and a few logits recorded with timm 0.6.7, robustness 1.2.1 and the
programs of T2T-ViT's authors and of ARES 2.0 (scripts/zoo_fixtures.py); no weights.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from aresbench.core.errors import ModelError
from aresbench.models.architectures.pre_activation import PreActivationNet, wide_resnet
from aresbench.models.sources.zoo import build
from aresbench.models.state_dicts import LAYOUTS, fill
from aresbench.models.zoo import entry

ORIGINALS: dict[str, dict[str, Any]] = json.loads(
    gzip.decompress(Path(__file__).with_name("zoo-originals.json.gz").read_bytes())
)
IN_THE_ZOO = {
    "timm resnet50": "resnet50_at",
    "timm resnet101": "resnet101_at",
    "timm resnet152 gelu": "resnet152_at",
    "timm wide_resnet50_2 gelu": "wresnet50_at",
    "timm convnext_small": "convnexts_at",
    "timm convnext_base": "convnextb_at",
    "timm convnext_large": "convnextl_at",
    "timm swin_small": "swins_at",
    "timm swin_base": "swinb_at",
    "timm swin_large": "swinl_at",
    "timm vit_small": "vits_at",
    "timm vit_base": "vitb_at",
    "timm vit_large": "vitl_normal",
    "timm vit_base avg": "vitb_mae",
    "timm vit_large avg": "vitl_mae",
    "timm xcit_small_12": "xcits_sota",
    "timm xcit_medium_12": "xcitm_sota",
    "timm xcit_large_12": "xcitl_sota",
    "robustness resnet50": "resnet50_sota1",
    "robustness wide_resnet50_2": "wresnet50_sota",
    "T2T-ViT 14": "t2t14_normal",
    "T2T-ViT 19": "t2t19_normal",
    "T2T-ViT 24": "t2t24_normal",
    "ares resnet152_fd": "resnet152_fd",
}


def planted(name: str, shape: list[int]) -> torch.Tensor:
    """Weights that depend on a tensor's name and shape only, as in scripts/zoo_fixtures.py."""
    stream = np.random.RandomState(zlib.crc32(name.encode()))  # its stream is frozen for good
    numbers = stream.random_sample(shape).astype(np.float32) * 2 - 1
    if len(shape) > 1:
        numbers = numbers * np.float32((3 / np.prod(shape[1:])) ** 0.5)
    elif name.endswith("running_var"):
        numbers = 1 + numbers / 2
    else:
        numbers = numbers / 10 + (1 if name.endswith("weight") else 0)
    return torch.as_tensor(numbers, dtype=torch.float32)


def original(name: str) -> dict[str, torch.Tensor]:
    """A state dict as the original would have saved it, with planted weights."""
    return {k: planted(k, shape) for k, shape in ORIGINALS[name]["shapes"].items()}


def test_every_original_was_recorded() -> None:
    assert list(ORIGINALS) == list(IN_THE_ZOO)


@pytest.mark.parametrize("name", ORIGINALS)
def test_every_tensor_finds_its_place(name: str) -> None:
    one = entry(IN_THE_ZOO[name])
    with torch.device("meta"):
        module = build(one)
        tensors = {k: torch.empty(shape) for k, shape in ORIGINALS[name]["shapes"].items()}
    fill(Path("original"), module, LAYOUTS[one.layout].read(tensors, module), one.name)


@pytest.mark.parametrize("name", [name for name, known in ORIGINALS.items() if "logits" in known])
def test_the_network_answers_as_the_original_did(name: str) -> None:
    one = entry(IN_THE_ZOO[name])
    module = build(one)
    fill(Path("original"), module, LAYOUTS[one.layout].read(original(name), module), one.name)
    image = np.random.RandomState(0).random_sample((1, 3, 224, 224)).astype(np.float32)
    with torch.no_grad():
        logits = module(torch.from_numpy(image))[0, :8]
    torch.testing.assert_close(logits, torch.tensor(ORIGINALS[name]["logits"]), rtol=1e-3, atol=1e-4)


def test_swin_of_today_passes_unchanged() -> None:
    with torch.device("meta"):
        module = build(entry("swins_at"))
    state = module.state_dict()
    assert list(LAYOUTS["timm-0.6-swin"].read(state, module)) == list(state)


def test_the_attackers_copy_in_a_robustness_checkpoint_is_left_out() -> None:
    with torch.device("meta"):
        module = build(entry("resnet50_sota1"))
    state = module.state_dict()
    saved = {f"module.{owner}model.{k}": v for owner in ("", "attacker.") for k, v in state.items()}
    saved |= {f"module.{owner}normalizer.new_mean": torch.zeros(3, 1, 1) for owner in ("", "attacker.")}
    assert set(LAYOUTS["robustness"].read(saved, module)) == set(state)


def _norm(tensors: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    mean, var, weight, bias = (tensors[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(x, mean, var, weight, bias)


def as_usually_written(
    tensors: dict[str, torch.Tensor], x: torch.Tensor, blocks: list[str], wide: bool
) -> torch.Tensor:
    """A pre-activation network straight from a checkpoint with the usual names: He et al. (2016), equations 1 and 5."""
    shortcut, last, head = ("convShortcut", "bn1", "fc") if wide else ("shortcut.0", "bn", "linear")
    x = functional.conv2d(x, tensors["conv1.weight"], padding=1)
    for block in blocks:
        first, second = tensors[f"{block}.conv1.weight"], tensors[f"{block}.conv2.weight"]
        stride = 2 if len(first) != first.shape[1] and block[5] != "1" else 1
        ready = _norm(tensors, f"{block}.bn1", x).relu()
        past = tensors.get(f"{block}.{shortcut}.weight")
        skipped = x if past is None else functional.conv2d(ready if wide else x, past, stride=stride)
        inner = functional.conv2d(ready, first, stride=stride, padding=1)
        x = skipped + functional.conv2d(_norm(tensors, f"{block}.bn2", inner).relu(), second, padding=1)
    features = _norm(tensors, last, x).relu().mean((2, 3))
    if f"{head}.bias" in tensors:
        return features @ tensors[f"{head}.weight"].T + tensors[f"{head}.bias"]
    return functional.cosine_similarity(features[:, None], tensors[f"{head}.weight"][None], dim=2)


def usual(module: PreActivationNet, wide: bool) -> dict[str, torch.Tensor]:
    """A checkpoint with the usual names: what ``module`` holds, renamed by hand, with planted weights."""
    names = {}
    for name, value in module.state_dict().items():
        place, _, rest = name.partition(".")
        if place == "stages":
            stage, block, part = rest.split(".", 2)
            part = part.replace("norm", "bn").replace("shortcut.", "convShortcut." if wide else "shortcut.0.")
            where = f"block{int(stage) + 1}.layer" if wide else f"layer{int(stage) + 1}"
            names[f"{where}.{block}.{part}"] = value
        else:
            kind = {"stem": "conv1", "norm": "bn1" if wide else "bn", "head": "fc" if wide else "linear"}[place]
            names[f"{kind}.{rest}"] = value
    return {k: v if k.endswith("tracked") else planted(k, list(v.shape)) for k, v in names.items()}


@pytest.mark.parametrize("kind", ["wide", "hypersphere", "preact"])
@pytest.mark.parametrize("wrapped", ["", "module.", "module.basic_net."])
def test_cifar_networks_are_those_of_the_papers(kind: str, wrapped: str, images: torch.Tensor) -> None:
    wide = kind != "preact"
    if wide:
        module = wide_resnet(16, 2, hypersphere=kind == "hypersphere").eval()
        blocks = [f"block{stage}.layer.{n}" for stage in (1, 2, 3) for n in range(2)]
    else:
        module = PreActivationNet(16, [16, 24, 32, 40], 2, activated=False).eval()
        blocks = [f"layer{stage}.{n}" for stage in (1, 2, 3, 4) for n in range(2)]
    tensors = usual(module, wide)
    saved = {wrapped + k: v for k, v in tensors.items()}
    if wide:
        saved |= {f"{wrapped}sub_{k}": v for k, v in tensors.items() if k.startswith("block1.")}
    layout = LAYOUTS["wide-resnet" if wide else "preact-resnet"]
    fill(Path("original"), module, layout.read(saved, module), kind)
    with torch.no_grad():
        torch.testing.assert_close(
            module(images), as_usually_written(tensors, images, blocks, wide), rtol=1e-4, atol=1e-5
        )


def test_a_wide_resnet_has_six_n_plus_four_layers() -> None:
    with pytest.raises(ModelError, match="6·n \\+ 4"):
        wide_resnet(18, 10)


def test_a_checkpoint_of_another_network_is_refused() -> None:
    with torch.device("meta"):
        module: nn.Module = build(entry("resnet50_at"))
        other = build(entry("resnet101_at")).state_dict()
    with pytest.raises(ModelError, match="unexpected"):
        fill(Path("other.pth"), module, LAYOUTS[""].read(other, module), "zoo:resnet50_at")
