"""Models of the library timm, each with the preprocessing that belongs to its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from aresbench.core.errors import ModelError, SpecError, UnknownName, did_you_mean
from aresbench.core.preprocessing import Preprocessing
from aresbench.models.sources.base import Source, wants_weights

if TYPE_CHECKING:
    from torch import nn

    from aresbench.models.classifier import Classifier

RANDOM = "random weights from a fixed seed: the model was never trained"


class TimmSource(Source):
    """Pretrained models of timm (Wightman, "PyTorch Image Models", 2019): ``timm:name.tag``.

    The tag says which weights. Size, crop, interpolation, mean and std come from timm's configuration
    of these weights, at the size timm evaluates them by default. ``?pretrained=false`` makes the
    architecture with fixed random weights, without a network.
    """

    example: ClassVar[str] = "timm:resnet50.a1_in1k"
    quick: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ("pretrained",)

    def names(self) -> list[str]:
        """Every ``name.tag`` that has weights (imports timm)."""
        import timm

        return list(timm.list_pretrained())

    def load(self, rest: str, options: Mapping[str, Any]) -> Classifier:
        """Make the architecture, fetch its weights (kept by huggingface_hub's cache) and bind the preprocessing."""
        from aresbench.models.classifier import Classifier
        from aresbench.models.labels import imagenet_classes

        pretrained = wants_weights(f"timm:{rest}", options)
        name = resolve(rest) if pretrained else check_name(rest)
        module = build(name, pretrained=pretrained)
        known = facts(module)
        cfg: Mapping[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
        known["card"] |= {"weights": cfg.get("hf_hub_id") or cfg.get("url")} if pretrained else {"notes": [RANDOM]}
        if known["classes"] == 1000 and "in1k" in (cfg.get("tag") or ""):
            known["classes"] = imagenet_classes()
        return Classifier(module, name=f"timm:{name}" + ("" if pretrained else "?pretrained=false"), **known)


def check_name(name: str) -> str:
    """The name if timm has this architecture, and this tag where one is given.

    Raises:
        UnknownName: it has not; the nearest right names are offered.
    """
    import timm
    from timm.models import get_arch_pretrained_cfgs

    architecture, _, tag = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        raise UnknownName(f"timm has no model called {architecture!r}", _offer(did_you_mean(architecture, known)))
    if tag and name not in (names := list(get_arch_pretrained_cfgs(architecture))):
        right = ", ".join(f"timm:{n}" for n in names)
        raise UnknownName(
            f"timm has no weights {tag!r} for {architecture}",
            did_you_mean(name, names)
            or (f"there are {right}" if right else "write it without a tag, ?pretrained=false"),
        )
    return name


def _offer(hint: str) -> str:
    return hint or "`aresbench list models 'timm:*'` shows them all"


def resolve(name: str) -> str:
    """The full ``name.tag`` of pretrained weights; a name without a tag must have only one.

    Raises:
        UnknownName: no such model or tag.
        SpecError: several weights go by this name; all are offered.
        ModelError: there are no weights.
    """
    from timm.models import get_arch_pretrained_cfgs, is_model_pretrained

    architecture, _, tag = check_name(name).partition(".")
    tags = [name] if tag else [n for n in get_arch_pretrained_cfgs(architecture) if "." in n]
    weights = [n for n in tags if is_model_pretrained(n)]
    if not weights:
        raise ModelError(
            f"timm has no weights for {name}", f"write timm:{name}?pretrained=false for fixed random weights"
        )
    if len(weights) > 1:
        raise SpecError(
            f"timm:{name} could mean {len(weights)} sets of weights",
            f"write timm:{weights[0]} (timm's own choice), or another tag: "
            + ", ".join(w.partition(".")[2] for w in weights[1:]),
        )
    return weights[0]


def build(name: str, *, pretrained: bool, num_classes: int | None = None, headless: bool = False) -> nn.Module:
    """A timm module in eval mode; without weights it is initialised from a fixed seed, on the CPU.

    Args:
        name: ``architecture`` or ``architecture.tag``.
        pretrained: fetch the weights.
        num_classes: outputs, where they differ from the configuration's.
        headless: weights that give features, not classes, are welcome too.

    Raises:
        ModelError: the weights cannot be fetched, or the model has no classes.
    """
    import timm
    import torch

    extra: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            module = timm.create_model(name, pretrained=pretrained, **extra)
        except Exception as error:
            if not pretrained:
                raise
            reason = str(error).strip().partition("\n")[0]
            raise ModelError(
                f"the weights of timm:{name} could not be fetched: {type(error).__name__}: {reason}",
                "check the network and try again (HF_HUB_OFFLINE=1 fails at once instead of retrying), or fetch the "
                f"file elsewhere and load it with path/to/model.safetensors?arch=timm:{name}",
            ) from error
    if not headless and getattr(module, "num_classes", 0) < 1:
        raise ModelError(
            f"timm:{name} gives features, not classes", "choose weights with a head, such as those tagged in1k"
        )
    return module.eval()


def preprocessing_of(cfg: Mapping[str, Any]) -> Preprocessing:
    """Timm's evaluation transform, from its resolved data configuration.

    Raises:
        ModelError: the transform cannot be written as resize and centre crop.
    """
    _, height, width = cfg["input_size"]
    pct, mode = cfg["crop_pct"], cfg["crop_mode"]
    if mode == "squash" and pct == 1:
        return Preprocessing((height, width), None, cfg["interpolation"], squash=True)
    if mode != "center" or height != width:
        raise ModelError(
            f"its preprocessing (size {height}×{width}, crop mode {mode!r}, crop {pct}) is not one this version knows",
            "prepare the images yourself and wrap the module: aresbench.Classifier(module, mean=…, std=…)",
        )
    return Preprocessing((height, width), math.floor(height / pct), cfg["interpolation"])


def facts(module: nn.Module) -> dict[str, Any]:
    """What timm's configuration says of a module, as arguments of ``Classifier``: all but the class names.

    Raises:
        ModelError: its preprocessing is not known here.
    """
    from timm.data import resolve_model_data_config

    cfg: Mapping[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    data = resolve_model_data_config(module)
    try:
        preprocessing = preprocessing_of(data)
    except ModelError as error:
        raise ModelError(f"timm:{cfg['architecture']}.{cfg['tag']}: {error.problem}", error.remedy) from None
    card = {
        "architecture": cfg["architecture"],
        "family": type(module).__module__.rpartition(".")[2],
        "licence": cfg.get("license"),
        "paper": cfg.get("paper_ids"),
    }
    return {
        "mean": list(data["mean"]),
        "std": list(data["std"]),
        "classes": module.num_classes,
        "preprocessing": preprocessing,
        "card": {k: v for k, v in card.items() if v},
    }
