"""Surrogates made for transfer: models that answer as before and pass gradients back by another rule."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aresbench.core.errors import ModelError, SpecError
from aresbench.core.spec import parse_call, parse_value
from aresbench.models.classifier import Classifier


class Branch(NamedTuple):
    """Where the residual branches of a kind of block end.

    Args:
        ends: names of submodules that everything a branch computes goes through, last of all.
        shortcut: name of what the block's input passes on its way around the branch, if there is such a thing.
    """

    ends: tuple[str, ...]
    shortcut: str = ""

    def found(self, block: nn.Module) -> list[nn.Module]:
        """Those submodules of one block; none where its input does not go around them unchanged."""
        around = getattr(block, self.shortcut, None) if self.shortcut else None
        if not (around is None or around is True or type(around) is nn.Identity):
            return []
        return [part for name in self.ends if isinstance(part := getattr(block, name, None), nn.Module)]


BRANCHES: dict[str, Branch] = {
    # torchvision's and timm's ResNet, Wide ResNet, ResNeXt; those with a projection in the shortcut are left alone
    "BasicBlock": Branch(("conv2",), "downsample"),
    "Bottleneck": Branch(("conv3",), "downsample"),
    # DenseNet: what a layer adds to all that went before
    "_DenseLayer": Branch(("conv2",)),
    "DenseLayer": Branch(("conv2",)),
    # timm's EfficientNet and MobileNet
    "InvertedResidual": Branch(("conv_pwl",), "has_skip"),
    "DepthwiseSeparableConv": Branch(("conv_pw",), "has_skip"),
    "EdgeResidual": Branch(("conv_pwl",), "has_skip"),
    # ConvNeXt of timm and of torchvision
    "ConvNeXtBlock": Branch(("mlp",), "shortcut"),
    "CNBlock": Branch(("block",)),
    # Transformers of timm (ViT, DeiT, Swin) and of torchvision: attention and MLP are a branch each
    "Block": Branch(("attn", "mlp")),
    "SwinTransformerBlock": Branch(("attn", "mlp")),
    "SwinTransformerV2Block": Branch(("attn", "mlp")),
    "SwinTransformerBlockV2": Branch(("attn", "mlp")),
    "EncoderBlock": Branch(("self_attention", "mlp")),
}
"""By the name of a block's class."""


def with_rule(model: Classifier, text: str) -> Classifier:
    """The surrogate that a text such as ``sgm(gamma=0.2)`` makes of a classifier.

    Raises:
        SpecError: another setting than ``gamma``.
        ModelError: as ``skip_gradient``.
    """
    call = parse_call(text)
    strange = next((name for name in call.kwargs if name != "gamma"), None)
    if strange is not None or call.args:
        raise SpecError(f"{strange or call.args[0]!r} in {text!r} is not a setting", "write e.g. sgm(gamma=0.2)")
    made = skip_gradient(model, **{name: parse_value(value) for name, value in call.kwargs.items()})
    assert isinstance(made, Classifier)
    return made


def skip_gradient(model: nn.Module, gamma: float = 0.5) -> nn.Module:
    """A copy of a residual network that passes gradients back by its shortcuts rather than its branches (SGM).

    The skip gradient method (Wu et al., 2020. arXiv:2002.05990): in the backward pass, what flows through each
    residual branch is multiplied by ``gamma``; a gradient through k branches has lost gamma^k. The answers are the
    model's own. What such a surrogate is attacked with is free: ``ab.attack(model, x, y, "dim", "linf:16/255",
    surrogate=skip_gradient(resnet, 0.2))``. The paper takes 0.2 for ResNets and 0.5 for DenseNets.

    Args:
        model: a classifier with residual blocks as torchvision and timm build them: ResNets, DenseNets, EfficientNets,
            ConvNeXts, Vision and Swin Transformers. It is not changed.
        gamma: from 0 (branches block the gradient) to 1 (the ordinary gradient).

    Raises:
        SpecError: ``gamma`` is not in [0, 1].
        ModelError: the model has no residual block of a kind known here.
    """
    if isinstance(gamma, bool) or not isinstance(gamma, int | float) or not 0 <= gamma <= 1:
        raise SpecError(f"gamma={gamma!r}", "gamma must be a number from 0 to 1")
    made = copy.deepcopy(model)
    if isinstance(made, Classifier):
        made = made.named(f"{made.name} + sgm(gamma={float(gamma)!r})", f"sgm {float(gamma)!r}")
    ends = [
        end
        for block in made.modules()
        if type(block).__name__ in BRANCHES
        for end in BRANCHES[type(block).__name__].found(block)
    ]
    if not ends:
        raise ModelError(
            f"{getattr(model, 'name', type(model).__name__)} has no residual branch that is known here",
            "the skip gradient needs blocks as in torchvision and timm: "
            "ResNet, DenseNet, EfficientNet, ConvNeXt, ViT or Swin",
        )
    for end in ends:
        end.register_forward_hook(_Damped(float(gamma)))
    return made


class _Damped:
    """A forward hook that changes nothing but the gradient; an object, so that copies of the model keep it."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def __call__(self, module: nn.Module, inputs: object, output: Any) -> Any:
        if isinstance(output, tuple):  # torch's attention also returns its weights
            return (_Damp.apply(output[0], self.gamma), *output[1:])
        return _Damp.apply(output, self.gamma)


class _Damp(torch.autograd.Function):
    """The identity, whose gradient is multiplied by ``gamma``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: float) -> Tensor:
        ctx.gamma = gamma
        return x.clone()  # not a view: blocks add to it in place

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.gamma, None
