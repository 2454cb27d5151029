"""Models of the library torchvision, each with the preprocessing that belongs to its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aresbench.core.errors import ModelError, SpecError, UnknownName, did_you_mean
from aresbench.core.preprocessing import Preprocessing
from aresbench.models.sources.base import Source

if TYPE_CHECKING:
    from torch import nn

    from aresbench.models.classifier import Classifier


class TorchvisionSource(Source):
    """Pretrained classifiers of torchvision: ``torchvision:resnet50?weights=IMAGENET1K_V2``.

    ``weights`` is a name of torchvision's enumeration, or ``DEFAULT``; a model with only one set needs none, and
    ``none`` makes the architecture with fixed random weights, without a network. Size, crop, interpolation,
    mean and std are those of the weights. The files are kept where torchvision keeps them.
    """

    example: ClassVar[str] = "torchvision:resnet50?weights=IMAGENET1K_V2"
    quick: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ("weights",)

    def names(self) -> list[str]:
        """Every classifier of torchvision (imports it)."""
        import torchvision

        return list(torchvision.models.list_models(module=torchvision.models))

    def load(self, rest: str, options: Mapping[str, Any]) -> Classifier:
        """Fetch the weights (checked by the hash in their name), build the model and bind the preprocessing."""
        from torchvision.models import get_model_weights

        from aresbench.models.classifier import Classifier
        from aresbench.models.labels import recognised

        known = self.names()
        if rest not in known:
            hint = did_you_mean(rest, known) or "`aresbench list models 'torchvision:*'` shows them all"
            raise UnknownName(f"torchvision has no classifier called {rest!r}", hint)
        name = f"torchvision:{rest}"
        every = get_model_weights(rest)
        if "weights" in options and options["weights"] is None:
            from aresbench.models.sources.timm import RANDOM

            return Classifier(
                _build(rest, None),
                **_of_transform(every.DEFAULT),
                classes=1000,
                name=f"{name}?weights=none",
                card={"architecture": rest, "notes": [RANDOM]},
            )
        weights = _choose(rest, every, options.get("weights"))
        fetch_weights(weights)
        accuracy = weights.meta.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1")
        return Classifier(
            _build(rest, weights),
            **_of_transform(weights),
            classes=recognised(weights.meta["categories"]),
            name=f"{name}?weights={weights.name}",
            card={"architecture": rest, "weights": weights.url, "recipe": weights.meta.get("recipe")},
            published={"imagenet top1": accuracy / 100, "source": "torchvision"} if accuracy else None,
        )


def _choose(model: str, every: Any, wanted: object) -> Any:
    """One member of the enumeration of a model's weights.

    Raises:
        SpecError: none is named and there are several.
        UnknownName: there is none of that name.
    """
    names = [one.name for one in every if one.meta.get("categories")]  # others are features, without a head
    if wanted is None:
        if len(names) == 1:
            return every[names[0]]
        raise SpecError(
            f"torchvision:{model} could mean {len(names)} sets of weights",
            f"write torchvision:{model}?weights={every.DEFAULT.name} (torchvision's own choice), or another: "
            + ", ".join(n for n in names if n != every.DEFAULT.name),
        )
    if wanted == "DEFAULT":
        return every.DEFAULT
    if wanted not in names:
        raise UnknownName(
            f"torchvision has no weights {wanted!r} for {model}",
            did_you_mean(str(wanted), names) or f"there are {', '.join(names)}",
        )
    return every[wanted]


def fetch_weights(weights: Any) -> Path:
    """Put the file where torchvision looks for it, and see that it holds tensors only, before torchvision reads it.

    Raises:
        ModelError: it cannot be had, is damaged, or would run code.
    """
    import torch

    from aresbench.models.checkpoint import read_checkpoint
    from aresbench.models.download import fetch

    digits = re.search(r"-([0-9a-f]{8,})\.pth$", weights.url)
    if digits is None:
        raise ModelError(f"{weights.url} has no hash in its name", "fetch the file, and load it with FILE?arch=…")
    name = weights.url.rpartition("/")[2]
    path = fetch([weights.url], sha256=digits[1], name=name, folder=Path(torch.hub.get_dir(), "checkpoints"))
    read_checkpoint(path)
    return path


def _build(model: str, weights: Any) -> nn.Module:
    """The module in eval mode; without weights it is initialised from a fixed seed, on the CPU."""
    import torch
    from torchvision.models import get_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return get_model(model, weights=weights).eval()
        except RuntimeError as error:
            if weights is None:
                raise
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"the weights at {weights.url} do not fit torchvision's {model}: {reason}") from None


def _of_transform(weights: Any) -> dict[str, Any]:
    """Preprocessing, mean and std that belong to weights."""
    transform = weights.transforms()
    (crop,), (resize,) = transform.crop_size, transform.resize_size
    return {
        "mean": list(transform.mean),
        "std": list(transform.std),
        "preprocessing": Preprocessing((crop, crop), resize, transform.interpolation.value),
    }
