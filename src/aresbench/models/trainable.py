"""Make a classifier to be trained: an architecture with its changes, and the weights it begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from aresbench.core.classes import Classes
from aresbench.core.errors import ModelError
from aresbench.core.preprocessing import Preprocessing
from aresbench.models.architectures.small_cnn import SmallCNN
from aresbench.models.classifier import Classifier
from aresbench.models.sources.python import make
from aresbench.models.sources.timm import check_name

_ACTIVATIONS = {"gelu": nn.GELU, "silu": nn.SiLU}


def build(
    classes: Classes,
    *,
    architecture: str,
    arguments: Mapping[str, Any],
    initial: str,
    activation: str,
    stem: str,
    drop_path: float,
    drop: float,
    size: int,
    resize: int,
    interpolation: str,
    mean: Sequence[float],
    std: Sequence[float],
) -> Classifier:
    """The classifier of a recipe's part ``model``; the words are explained there.

    Raises:
        UnknownName: no such architecture.
        ModelError: it cannot be built, or the first weights do not fit.
    """
    module = _architecture(architecture, dict(arguments), len(classes), drop_path, drop, size)
    if activation:
        _activate(module, _ACTIVATIONS[activation])
    square = (size, size)
    preprocessing = (
        Preprocessing(square, resize=resize, interpolation=interpolation)
        if resize
        else Preprocessing(square, interpolation=interpolation, squash=True)
    )
    return Classifier(
        module, mean, std, classes, preprocessing, architecture, card={"architecture": architecture.partition(":")[2]}
    )


def _architecture(
    name: str, arguments: dict[str, Any], outputs: int, drop_path: float, drop: float, size: int
) -> nn.Module:
    if name == "small-cnn":
        return SmallCNN(outputs)
    if not name.startswith("timm:"):
        made, _ = make(name)
        return made
    import timm

    name = check_name(name.removeprefix("timm:"))
    if drop_path:
        arguments["drop_path_rate"] = drop_path
    if drop:
        arguments["drop_rate"] = drop
    try:
        return timm.create_model(name, pretrained=False, num_classes=outputs, **arguments)
    except TypeError as error:
        raise ModelError(f"timm:{name} cannot be built: {error}", "see model.arguments and model.drop_path") from error


def _activate(module: nn.Module, kind: type[nn.Module]) -> None:
    """Put a smooth activation in place of every ReLU."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, kind())
        else:
            _activate(child, kind)
