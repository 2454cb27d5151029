"""Make a classifier to be trained: an architecture with its changes, and the weights it begins with."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import nn

from aresbench.core.classes import Classes
from aresbench.core.errors import AresError, ModelError, SpecError, UnknownName, did_you_mean
from aresbench.core.preprocessing import Preprocessing
from aresbench.models.architectures.pre_activation import preact_resnet18, wide_resnet
from aresbench.models.architectures.small_cnn import SmallCNN
from aresbench.models.classifier import Classifier
from aresbench.models.first_weights import FirstWeights
from aresbench.models.modified import SMOOTH, put_convolutional_stem, relu_to_smooth, watched_relus
from aresbench.models.sources.python import make, short_name
from aresbench.models.sources.timm import check_name

# Architectures of this package, by their number of classes. Residual ones apply their activation as a function, and
# are told which.
_PLAIN: dict[str, Callable[[int], nn.Module]] = {"small-cnn": SmallCNN}
_RESIDUAL: dict[str, Callable[..., nn.Module]] = {
    "preact-resnet18": preact_resnet18,
    "wrn-28-10": partial(wide_resnet, 28, 10),
    "wrn-34-10": partial(wide_resnet, 34, 10),
}
OWN = (*_PLAIN, *_RESIDUAL)

# Arguments of timm's that a recipe says in its own words.
_SAID = {
    "num_classes": "the dataset says how many classes there are",
    "in_chans": "images have three channels",
    "pretrained": "write model.initial",
    "img_size": "write model.size",
    "drop_rate": "write model.drop",
    "drop_path_rate": "write model.drop_path",
}
_RATES = {"drop_rate": "model.drop", "drop_path_rate": "model.drop_path"}


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

    What is worth knowing of its beginning (which rows of the head are new, say) stands in its card's ``notes``.

    Raises:
        UnknownName: no such architecture, or no such first weights.
        SpecError: a change that this architecture does not take.
        ModelError: it cannot be built, or the first weights do not fit.
    """
    rates = {"drop_path_rate": drop_path, "drop_rate": drop}
    module, source = _architecture(architecture, dict(arguments), activation, len(classes), rates, size)
    with torch.random.fork_rng(devices=[]):  # what is drawn anew does not depend on how first weights are loaded
        first = FirstWeights.load(initial, module) if initial else None
    anew = put_convolutional_stem(module, architecture) if stem else ""
    changed = relu_to_smooth(module, activation) if activation and architecture not in _RESIDUAL else 1
    square = (size, size)
    preprocessing = (
        Preprocessing(square, resize=resize, interpolation=interpolation)
        if resize
        else Preprocessing(square, interpolation=interpolation, squash=True)
    )
    classifier = Classifier(
        module, mean, std, classes, preprocessing, architecture, card=_facts(architecture, module), source=source
    )
    relus = _rehearse(classifier, size)
    if activation and relus:
        raise ModelError(
            f"model.activation: {architecture} applies ReLU inside its forward, where it cannot be replaced",
            f"leave it empty, and write {activation} into the architecture",
        )
    if not changed:
        raise SpecError(f"model.activation: {architecture} has no ReLU to replace", "leave it empty")
    if first is not None:
        classifier.card["notes"] += first.into(classifier, anew)
    return classifier


def _rehearse(classifier: Classifier, size: int) -> int:
    """Give it an image, so that what does not fit is found now; how many ReLUs it applied."""
    classifier.eval()
    try:
        with torch.no_grad(), watched_relus() as watched:
            classifier(torch.zeros(1, 3, size, size))
    except AresError:
        raise
    except Exception as error:
        raise ModelError(
            f"{classifier.name} cannot take images of {size}×{size} pixels: {type(error).__name__}: {error}",
            "set model.size to a size that the architecture is made for",
        ) from error
    classifier.train()
    return watched.count


def _architecture(
    name: str, arguments: dict[str, Any], activation: str, outputs: int, rates: Mapping[str, float], size: int
) -> tuple[nn.Module, str]:
    """The module with random weights, and the program text that made it, if that is the user's."""
    if name.startswith("timm:"):
        return _of_timm(name.removeprefix("timm:"), arguments, outputs, rates, size), ""
    settings = [*(f"model.arguments.{key}" for key in arguments), *(_RATES[key] for key, r in rates.items() if r)]
    if settings:
        raise SpecError(f"{settings[0]} is for architectures of timm, and not for {name}", "leave it out")
    if name in _PLAIN:
        return _PLAIN[name](outputs), ""
    if name in _RESIDUAL:
        return _RESIDUAL[name](classes=outputs, **({"activation": SMOOTH[activation]} if activation else {})), ""
    if ":" not in name:
        raise UnknownName(f"there is no architecture called {name!r}", _nearest(name))
    made, source = make(name)
    if isinstance(made, Classifier):
        raise ModelError(
            f"{short_name(name)} makes a Classifier, and a recipe says mean, std and classes itself",
            "let the factory return the module inside",
        )
    return copy.deepcopy(made), source  # where the name stands for a module, not a factory, it must stay as it is


def _nearest(name: str) -> str:
    import timm

    known = timm.list_models()
    if name in known:
        return f"write timm:{name}"
    return did_you_mean(name, [*OWN, *known]) or f"there are {', '.join(OWN)}, timm:NAME and ./file.py:factory"


def _of_timm(name: str, arguments: dict[str, Any], outputs: int, rates: Mapping[str, float], size: int) -> nn.Module:
    import timm

    if "." in check_name(name):
        plain = name.partition(".")[0]
        raise SpecError(
            f"model.architecture = 'timm:{name}' names weights as well",
            f"write architecture = 'timm:{plain}', and initial = 'timm:{name}' if training begins with them",
        )
    for key in arguments:
        if key in _SAID:
            raise SpecError(f"model.arguments.{key} is said elsewhere", _SAID[key])
    cfg = timm.get_pretrained_cfg(name)
    given = arguments | {key: rate for key, rate in rates.items() if rate}
    usual = cfg.input_size[-1] if cfg is not None else 224
    try:
        if size != usual:
            try:
                return timm.create_model(name, pretrained=False, num_classes=outputs, img_size=size, **given)
            except TypeError as error:
                if "'img_size'" not in str(error):
                    raise
        return timm.create_model(name, pretrained=False, num_classes=outputs, **given)
    except TypeError as error:
        raise _explained(name, error) from error
    except Exception as error:
        raise ModelError(
            f"timm:{name} cannot be built: {type(error).__name__}: {error}", "see model.arguments and model.size"
        ) from error


def _explained(name: str, error: TypeError) -> AresError:
    """Which setting timm's class does not know."""
    from timm.models import model_entrypoint

    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if not found:
        return ModelError(f"timm:{name} cannot be built: {error}", "see model.arguments")
    kind, key = found.groups()
    if key in _RATES:
        return SpecError(f"{_RATES[key]}: timm:{name} has no {key}", "leave it at 0")
    there = vars(sys.modules[model_entrypoint(name).__module__]).get(kind)
    known = [k for k in signature(there).parameters if k not in _SAID] if there else []
    return SpecError(
        f"model.arguments: timm:{name} has no argument {key!r}",
        did_you_mean(key, known) or f"it has {', '.join(known)}",
    )


def _facts(architecture: str, module: nn.Module) -> dict[str, str]:
    """Architecture and family, for reports."""
    if not architecture.startswith("timm:"):
        return {"architecture": short_name(architecture)}
    return {
        "architecture": architecture.removeprefix("timm:"),
        "family": type(module).__module__.rpartition(".")[2],
    }
