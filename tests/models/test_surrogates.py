"""Skip gradients: the answers stay, and what flows back through each residual branch is scaled."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import timm
import torch
import torchvision
from timm.models._efficientnet_blocks import InvertedResidual
from timm.models.convnext import ConvNeXtBlock
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import nn
from torchvision.models import resnet as tv_resnet
from torchvision.models.densenet import _DenseLayer
from torchvision.models.vision_transformer import EncoderBlock

import aresbench as ab
from aresbench.core.errors import ModelError, SpecError
from aresbench.engine.prepare import prepared


def settled(module):
    """Random weights and statistics, in eval mode, so that no branch is nothing."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                fresh = torch.rand(tensor.shape, generator=draw) * 0.5 + 0.5
                if name.endswith("weight") and tensor.ndim > 1:
                    fresh = torch.randn(tensor.shape, generator=draw) / tensor[0].numel() ** 0.5
                tensor.copy_(fresh)
    return module.eval()


def slope(module, x, way):
    x = x.clone().requires_grad_(True)
    out = module(x)
    (found,) = torch.autograd.grad((out * way).sum(), x)
    return out.detach(), found


MAPS, TOKENS = (2, 8, 6, 6), (2, 5, 8)
ONE_BRANCH = {
    "ResNet": (lambda: tv_resnet.BasicBlock(8, 8), MAPS),
    "ResNet, wide": (lambda: tv_resnet.Bottleneck(8, 2), MAPS),
    "ResNet of timm": (lambda: timm.models.resnet.Bottleneck(8, 2), MAPS),
    "ConvNeXt": (lambda: ConvNeXtBlock(8, kernel_size=3), MAPS),
    "EfficientNet": (lambda: InvertedResidual(8, 8), MAPS),
}


@pytest.mark.parametrize("kind", ONE_BRANCH)
def test_what_flows_back_through_a_branch_is_scaled_and_the_shortcut_left_alone(kind):
    make, shape = ONE_BRANCH[kind]
    block, draw = settled(make()), torch.Generator().manual_seed(1)
    x, way = torch.rand(shape, generator=draw), torch.randn(shape, generator=draw)
    out, full = slope(block, x, way)
    shortcut = way * (out > 0) if "ResNet" in kind else way  # a ResNet's block ends in a ReLU
    assert (full - shortcut).abs().max() > 0.01
    for gamma in (0.0, 0.3, 1.0):
        said, found = slope(ab.skip_gradient(nn.Sequential(block), gamma), x, way)
        assert torch.equal(said, out)
        torch.testing.assert_close(found, shortcut + gamma * (full - shortcut), rtol=1e-4, atol=1e-5)


def test_a_dense_layer_is_a_branch_beside_all_that_went_before():
    layer, draw = settled(_DenseLayer(8, 4, 2, 0.0)), torch.Generator().manual_seed(1)
    x, way = torch.rand(MAPS, generator=draw), torch.randn(2, 4, 6, 6, generator=draw)
    (_, full), (_, found) = slope(layer, x, way), slope(ab.skip_gradient(nn.Sequential(layer), 0.3), x, way)
    torch.testing.assert_close(found, 0.3 * full)


TWO_BRANCHES = {
    "timm": (lambda: Block(8, 2), TOKENS, lambda b: (lambda x: b.attn(b.norm1(x)), lambda x: b.mlp(b.norm2(x)))),
    "torchvision": (
        lambda: EncoderBlock(2, 8, 16, 0.0, 0.0, partial(nn.LayerNorm, eps=1e-6)),
        TOKENS,
        lambda b: (
            lambda x: b.self_attention(*[b.ln_1(x)] * 3, need_weights=False)[0],
            lambda x: b.mlp(b.ln_2(x)),
        ),
    ),
    "Swin": (
        lambda: SwinTransformerBlock(8, (4, 4), 2, window_size=2, shift_size=1),
        (2, 4, 4, 8),
        lambda b: (lambda x: b._attn(b.norm1(x)), lambda x: b.mlp(b.norm2(x))),
    ),
}


@pytest.mark.parametrize("kind", TWO_BRANCHES)
def test_attention_and_mlp_of_a_transformer_are_a_branch_each(kind):
    make, shape, branches = TWO_BRANCHES[kind]
    block, draw = settled(make()), torch.Generator().manual_seed(1)
    x, way = torch.rand(shape, generator=draw), torch.randn(shape, generator=draw)
    first, second = branches(block)
    out, full = slope(block, x, way)
    between = (x + first(x)).detach()
    back = way + 0.3 * slope(second, between, way)[1]
    wanted = back + 0.3 * slope(first, x, back)[1]
    said, found = slope(ab.skip_gradient(nn.Sequential(block), 0.3), x, way)
    assert torch.equal(said, out)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert (found - full).abs().max() > 0.01


@pytest.mark.parametrize(
    ("make", "branches"),
    [
        (lambda: torchvision.models.resnet18(), 5),  # 8 blocks, 3 with a projection in the shortcut
        (lambda: torchvision.models.resnet50(), 12),
        (lambda: timm.create_model("resnet26", pretrained=False), 4),
        (lambda: timm.create_model("densenet121", pretrained=False), 58),
        (lambda: timm.create_model("tf_efficientnet_lite0", pretrained=False), 9),
        (lambda: timm.create_model("convnext_atto", pretrained=False), 12),
        (lambda: timm.create_model("vit_tiny_patch16_224", pretrained=False), 24),
        (lambda: timm.create_model("swin_tiny_patch4_window7_224", pretrained=False), 24),
    ],
    ids=["resnet18", "resnet50", "timm resnet26", "densenet121", "lite0", "convnext", "vit", "swin"],
)
def test_every_branch_of_the_usual_networks_is_found_once(make, branches):
    model = make()
    hooked = [m for m in ab.skip_gradient(model).modules() if m._forward_hooks]
    assert len(hooked) == branches
    assert all(len(m._forward_hooks) == 1 for m in hooked)
    assert not any(m._forward_hooks for m in model.modules()), "the model itself is left alone"


def test_the_engines_copy_of_a_surrogate_keeps_the_rule():
    """The engine copies the model and merges batch norms into convolutions; blocks then add in place."""
    net = settled(torchvision.models.resnet18(num_classes=10))
    model = nn.Sequential(net, nn.LayerNorm(10, elementwise_affine=False)).eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    way = torch.randn(2, 10, generator=torch.Generator().manual_seed(1))
    surrogate = ab.skip_gradient(model, 0.2)
    out, wanted = slope(surrogate, x, way)
    with prepared(surrogate, x) as ready:
        assert ready.merged > 10
        said, found = slope(ready, x, way)
    torch.testing.assert_close(said, out, rtol=1e-3, atol=1e-3)
    near = nn.functional.cosine_similarity(found.flatten(1), wanted.flatten(1))
    ordinary = nn.functional.cosine_similarity(found.flatten(1), slope(model, x, way)[1].flatten(1))
    assert near.min() > 0.999
    assert ordinary.max() < 0.99


def test_a_surrogate_by_its_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import torchvision\nfrom aresbench import Classifier\n"
        "def make():\n    return Classifier(torchvision.models.resnet18(num_classes=10).eval(), classes=10)\n"
    )
    model = ab.load_model("./mine.py:make + sgm(gamma=0.2)")
    assert model.name.endswith(" + sgm(gamma=0.2)")
    assert model.fingerprint != ab.load_model("./mine.py:make + sgm(gamma=0.3)").fingerprint
    assert sum(len(m._forward_hooks) for m in model.modules()) == 5
    for text, says in (
        ("sgm(gama=1)", "is not a setting"),
        ("sgm(0.2)", "is not a setting"),
        ("sgm(gamma=2)", "0 to 1"),
    ):
        with pytest.raises(SpecError, match=says):
            ab.load_model(f"./mine.py:make + {text}")


def test_a_model_without_branches_is_refused_by_name():
    with pytest.raises(ModelError, match="digits-plain has no residual branch"):
        ab.skip_gradient(ab.load_model("samples:digits-plain"))
    with pytest.raises(SpecError, match="from 0 to 1"):
        ab.skip_gradient(nn.Linear(2, 2), 1.5)


def test_a_surrogates_copy_is_as_good():
    block = settled(tv_resnet.BasicBlock(8, 8))
    surrogate = ab.skip_gradient(nn.Sequential(block), 0.0)
    x, way = torch.rand(MAPS), torch.ones(MAPS)
    assert torch.equal(slope(copy.deepcopy(surrogate), x, way)[1], slope(surrogate, x, way)[1])
