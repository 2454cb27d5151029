"""The models of the paper ARES-Bench, and ten robust models for CIFAR-10."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aresbench.core.errors import SpecError
from aresbench.core.registry import find
from aresbench.models.sources.base import KnownSource, wants_weights
from aresbench.models.zoo import Entry, checkpoint_path, entries, entry, sources

if TYPE_CHECKING:
    from torch import nn

    from aresbench.core.classes import Classes
    from aresbench.models.classifier import Classifier

# Facts that a classifier keeps elsewhere, and those that random weights do not have.
_TOLD_OTHERWISE = {"mean", "std", "published", "preprocessing"}
_OF_WEIGHTS = {"paradigm", "data", "weights", "mirrors", "sha256", "own_preprocessing", "licence", "verified"}


class ZooSource(KnownSource):
    """The 61 ImageNet models of ARES-Bench (Liu et al., IJCV 2024) and ten for CIFAR-10: ``zoo:swinb_at``.

    55 are named as in the paper's code; six stand for the journal version's additions, whose names are not known, and
    say so. All ImageNet models share the paper's preprocessing: shorter side to 256 pixels, bicubic, middle 224 (the
    crop that belongs to a timm tag is what ``timm:name.tag`` uses). The CIFAR-10 models are called ``cifar10/NAME``.

    Weights with a timm tag are fetched by timm; the others are files, read from the folder that
    ``$ARESBENCH_CHECKPOINTS`` names (and downloaded into it, or into the cache where it is not set) or from
    ``?file=PATH``, with ``?key=`` where a file holds several sets of weights. Names given by timm 0.6 and by other
    libraries are understood. ``?pretrained=false`` makes the architecture with fixed random weights.
    """

    example: ClassVar[str] = "zoo:swinb_at"
    quick: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("file", "key", "pretrained")

    def names(self) -> list[str]:
        """All 71."""
        return list(entries())

    def about(self, name: str) -> tuple[str, dict[str, Any]]:
        """One line and the card of a model, from the table."""
        one = entry(name)
        return one.summary, one.facts()

    def load(self, rest: str, options: Mapping[str, Any]) -> Classifier:
        """Build the architecture, read or fetch its weights, bind the protocol's preprocessing."""
        from aresbench.models.classifier import Classifier
        from aresbench.models.sources.timm import RANDOM

        one = entry(rest)
        pretrained = wants_weights(f"zoo:{rest}", options)
        left_out = _TOLD_OTHERWISE if pretrained else _TOLD_OTHERWISE | _OF_WEIGHTS
        card = {k: v for k, v in one.facts().items() if k not in left_out}
        if not pretrained:
            card["notes"] = [RANDOM]
        return Classifier(
            _weighted(one, options) if pretrained else build(one),
            one.mean,
            one.std,
            _classes(one),
            one.preprocessing,
            f"zoo:{rest}" + ("" if pretrained else "?pretrained=false"),
            card=card,
            published=_published(one) if pretrained else {},
        ).eval()


def build(one: Entry) -> nn.Module:
    """The architecture of a model with random weights from a fixed seed, in eval mode.

    Under ``torch.device("meta")`` it has names and shapes only, and costs nothing.
    """
    import timm
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if one.architecture.startswith("timm:"):
            name = one.architecture.removeprefix("timm:")
            module: nn.Module = timm.create_model(name, num_classes=one.classes, **one.arguments)
        else:
            module = find("models", one.architecture)(classes=one.classes, **one.arguments)
    return module.eval()


def _weighted(one: Entry, options: Mapping[str, Any]) -> nn.Module:
    """The network with its weights: from the user's file, from timm, or from the folder of checkpoints."""
    from aresbench.models.checkpoint import read_checkpoint
    from aresbench.models.sources.timm import build as fetch
    from aresbench.models.state_dicts import LAYOUTS, fill

    if one.tag and "file" not in options:
        if "key" in options:
            raise SpecError(f"the weights of zoo:{one.name} come from timm, not from a file with keys")
        return fetch(one.tag, pretrained=True)
    path = Path(str(options["file"])).expanduser() if "file" in options else checkpoint_path(one)
    tensors = read_checkpoint(path, options.get("key")).tensors
    module = build(one)
    fill(path, module, LAYOUTS[one.layout].read(tensors, module), f"zoo:{one.name}")
    return module


def _classes(one: Entry) -> Classes:
    """What the outputs mean."""
    from aresbench.core.classes import Classes
    from aresbench.models.labels import CIFAR10, imagenet_classes

    return imagenet_classes() if one.dataset == "imagenet" else Classes(CIFAR10)


def _published(one: Entry) -> dict[str, Any]:
    """Accuracies as shares, by source; as ``… top1`` only from a source whose preprocessing was the zoo's."""
    known = sources()
    found: dict[str, Any] = {}
    for name in ("robustbench", "ares"):  # the one with more images first
        if name in one.published:
            found |= {f"{one.dataset} top1": one.published[name]["clean"] / 100, "source": known[name]["title"]}
            break
    for name, numbers in one.published.items():
        shares = {what: value / 100 for what, value in numbers.items() if what not in ("id", "size")}
        found[known[name]["title"]] = {**shares, "protocol": known[name]["protocol"]}
    return found
