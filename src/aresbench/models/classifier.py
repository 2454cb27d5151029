"""A classifier: RGB images in [0, 1] in, logits out, normalisation inside."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aresbench.core.classes import Classes
from aresbench.core.errors import ModelError
from aresbench.core.preprocessing import Preprocessing
from aresbench.models.fingerprint import behaviour_hash, weights_hash

UNDECLARED = "no mean and std declared: the module receives images in [0,1] as they are"


class Classifier(nn.Module):
    """Any module as a classifier of images in [0, 1]: it is wrapped, never changed.

    Only cheap things are checked here; ``aresbench doctor`` looks deeper (input range, softmax
    outputs, gradients, clean accuracy). The wrapped module keeps its mode, device and gradients.

    Args:
        module: takes [N, 3, H, W] normalised images and returns logits [N, K].
        mean: per channel (or one number for all), in [0,1] units; subtracted before ``module`` sees the image.
        std: per channel (or one number for all), in [0,1] units; the image is divided by it afterwards.
            Without mean and std the module receives images in [0,1] as they are.
        classes: what each output means: ``Classes``, a list of label texts in output order, or only
            their number.
        preprocessing: how a picture becomes an input, or the input size in pixels (the shorter side is
            resized to it, the middle cut out), or ``None``: pictures must already have the right size.
        name: the name in results; by default the module's class name.
        card: facts for reports (``licence``, ``family``, ``architecture``, ``notes`` …), JSON-able.
        published: accuracies others have measured, as shares, e.g. ``{"imagenet top1": 0.751, "source": "…"}``.
        source: program text the module was made by, if any; it takes part in the fingerprint.

    Raises:
        ModelError: not a module, or mean, std, classes and size do not make sense.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        module: nn.Module,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        classes: Classes | Sequence[str] | int | None = None,
        preprocessing: Preprocessing | int | tuple[int, int] | None = None,
        name: str | None = None,
        *,
        card: Mapping[str, Any] | None = None,
        published: Mapping[str, Any] | None = None,
        source: str = "",
    ) -> None:
        super().__init__()
        _require_module(module)
        self.module = module
        self.training = module.training
        means, stds = _statistics(mean, std)
        for key, values in (("mean", means), ("std", stds)):
            tensor = torch.tensor(values, dtype=torch.float32)[:, None, None] if values else None
            self.register_buffer(key, tensor, persistent=False)
        self.classes, self.num_classes = _read_classes(classes, module)
        self.preprocessing = _read_preprocessing(preprocessing)
        self.name = name or type(module).__name__
        self.published = dict(published or {})
        self.card = _make_card(module, means, stds, card or {})
        # What is settled at construction is hashed once; the weights are hashed when asked for.
        self._behaviour = behaviour_hash(module, source)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of images [N, C, H, W] in [0, 1].

        Raises:
            ModelError: the module returns something other than a tensor [N, K], or another K than declared.
        """
        if self.mean is not None and self.std is not None:
            x = (x - self.mean) / self.std
        logits = self.module(x)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"{self.name} returns {got} where logits [N, classes] belong",
                "wrap the module in one whose forward returns the logits alone",
            )
        if self.num_classes is not None and logits.shape[1] != self.num_classes:
            raise ModelError(
                f"{self.name} returns {logits.shape[1]} logits, and {self.num_classes} classes are declared",
                "give one class name for each output, in output order",
            )
        return logits

    def named(self, name: str, source: str = "") -> Classifier:
        """The same classifier (sharing its tensors) under another name, made by the program text ``source``."""
        other = copy.copy(self)
        other.name = name
        other._behaviour = behaviour_hash(self.module, source)
        return other

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with weights, buffers, mean, std, structure or program text.

        Read from the tensors as they are now: about a second for each gigabyte.
        """
        statistics = {"mean": self.mean, "std": self.std}
        return weights_hash({**self.module.state_dict(prefix="module."), **statistics}, self._behaviour)

    def extra_repr(self) -> str:
        """Name, classes and preprocessing, for ``repr``."""
        return f"name={self.name!r}, num_classes={self.num_classes}, preprocessing={self.preprocessing}"


def _require_module(module: object) -> None:
    if isinstance(module, Classifier):
        raise ModelError("this is a Classifier already", "use it as it is, or wrap its .module")
    if isinstance(module, type) and issubclass(module, nn.Module):
        raise ModelError(f"{module.__name__} is a class, not a module", f"make one first: {module.__name__}()")
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"a {type(module).__name__} is not a torch module", "give a torch.nn.Module; wrap a function in one"
        )


def _statistics(
    mean: float | Sequence[float] | None, std: float | Sequence[float] | None
) -> tuple[list[float], list[float]]:
    """Mean and std per channel as lists; both empty where neither is given."""
    if (mean is None) != (std is None):
        given, missing = ("std", "mean") if mean is None else ("mean", "std")
        raise ModelError(
            f"{given} is given without {missing}", f"give both, or write {missing}={int(missing == 'std')}"
        )
    if mean is None or std is None:
        return [], []
    means, stds = (list(map(float, v)) if isinstance(v, Sequence) else [float(v)] * 3 for v in (mean, std))
    if len(means) != len(stds) or not means:
        raise ModelError(f"mean has {len(means)} channels and std {len(stds)}", "give one number per channel for both")
    if max(map(abs, means)) > 1:
        raise ModelError(
            f"mean {means} does not belong to images in [0,1]", "divide mean and std by 255; images here are in [0,1]"
        )
    if not all(0 < s < float("inf") for s in stds):
        raise ModelError(f"std must be positive, got {stds}")
    return means, stds


def _read_classes(
    classes: Classes | Sequence[str] | int | None, module: nn.Module
) -> tuple[Classes | None, int | None]:
    """The classes, if they have names, and their number, if it is known."""
    declared = getattr(module, "num_classes", None)
    if classes is None:
        return None, declared if isinstance(declared, int) and declared > 0 else None
    if isinstance(classes, int):
        if classes < 2:
            raise ModelError(f"a classifier has at least two classes, not {classes}")
        return None, classes
    if isinstance(classes, str):
        raise ModelError(f"classes={classes!r} is one text", "give a list of label texts, one for each output")
    if not isinstance(classes, Classes):
        classes = Classes(tuple(map(str, classes)))
    if isinstance(declared, int) and declared > 0 and declared != len(classes):
        raise ModelError(
            f"{len(classes)} class names for a module with {declared} outputs",
            "give one name for each output, in output order",
        )
    return classes, len(classes)


def _read_preprocessing(value: Preprocessing | int | tuple[int, int] | None) -> Preprocessing | None:
    if value is None or isinstance(value, Preprocessing):
        return value
    size = (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
    # Where the input is not square, no single length fits the shorter side of every picture.
    return Preprocessing(size, resize=size[0]) if size[0] == size[1] else Preprocessing(size, squash=True)


def _make_card(module: nn.Module, mean: list[float], std: list[float], given: Mapping[str, Any]) -> dict[str, Any]:
    """Facts for reports; another classifier's card may be given, its mean, std and notes are brought up to date."""
    kind = type(module).__name__
    notes = [note for note in given.get("notes", ()) if note != UNDECLARED]
    return {
        "architecture": kind,
        "family": kind,
        **given,
        "parameters": sum(p.numel() for p in module.parameters()),
        "mean": mean or None,
        "std": std or None,
        "notes": notes if mean else [UNDECLARED, *notes],
    }
