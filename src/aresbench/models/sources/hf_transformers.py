"""Image classifiers of the library transformers: the module, its preprocessing and its labels."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from aresbench.core.errors import ModelError
from aresbench.core.preprocessing import Preprocessing
from aresbench.ops import resize

TOLERANCE = 0.004  # mean difference in [0,1] units: rounding of another resizer, not another picture
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


@dataclass(frozen=True)
class Found:
    """A classifier of transformers and what belongs to it.

    Args:
        module: images, normalised → logits.
        preprocessing: how its processor makes an input of a picture, without the normalisation.
        mean, std: per channel, in [0,1] units.
        labels: the name of each output.
    """

    module: nn.Module
    preprocessing: Preprocessing
    mean: list[float]
    std: list[float]
    labels: list[str]


class LogitsOf(nn.Module):
    """The logits alone of a model of transformers, which answers with a record."""

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of normalised images [N, 3, H, W]."""
        return self.model(pixel_values=x).logits


def load(place: str, revision: str | None, name: str, *, local_only: bool) -> Found:
    """Read a classifier from a folder or the hub.

    Args:
        place: folder or ``organisation/name``.
        revision: branch, tag or commit; None: the newest.
        name: for errors.
        local_only: ask nothing of the network.

    Raises:
        ModelError: transformers is not installed; it is no image classifier; tensors are missing, too many or of
            another shape; weights that would run code; or a preprocessing that cannot be said as resize and crop.
    """
    try:
        from transformers import AutoImageProcessor, AutoModelForImageClassification
    except ImportError:
        raise ModelError(f"{name} needs the library transformers", 'pip install "aresbench[hf]"') from None
    where: dict[str, Any] = {"revision": revision, "local_files_only": local_only, "trust_remote_code": False}
    with _quiet():
        try:
            model, said = AutoModelForImageClassification.from_pretrained(
                place, **where, output_loading_info=True, dtype=torch.float32
            )
        except Exception as error:  # as many kinds as there are ways for a repository to be wrong
            raise _explain(name, error) from None
        _require_complete(name, said)
        try:
            processor = AutoImageProcessor.from_pretrained(place, **where)
        except Exception as error:
            raise _explain(name, error) from None
    labels = model.config.id2label
    preprocessing, mean, std = _processor(name, processor)
    names = [str(labels[i]) for i in range(len(labels))]
    return Found(LogitsOf(model, model.config.num_labels).eval(), preprocessing, mean, std, names)


@contextmanager
def _quiet() -> Iterator[None]:
    """No tables of missing tensors on the terminal: they become an error of our own."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _explain(name: str, error: Exception) -> ModelError:
    """Why transformers could not read it, in one line."""
    text = " ".join(str(error).split())
    if "weights_only" in text or "Weights only" in text or "UnpicklingError" in text:
        return ModelError(
            f"{name}: its weights are a pickle that would run code when loaded: refused",
            "ask its authors for model.safetensors",
        )
    if "mismatch" in text:
        return ModelError(f"{name}: its weights do not fit its configuration: {text[:300]}", "correct its config.json")
    return ModelError(
        f"{name} could not be read by transformers: {type(error).__name__}: {text[:300]}",
        "it must be a model for image classification; check its name and the network",
    )


def _require_complete(name: str, said: Mapping[str, Any]) -> None:
    """Refuse a model of which a part was left at random."""
    for word in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        keys = [str(key) for key in said.get(word) or ()]
        if keys:
            shown = ", ".join(sorted(keys)[:4]) + (" …" if len(keys) > 4 else "")
            raise ModelError(
                f"{name}: its weights do not fit its configuration: {len(keys)} {word.replace('_keys', '')} ({shown})",
                "is it a classifier, with a head that was trained?",
            )


def _processor(name: str, processor: Any) -> tuple[Preprocessing, list[float], list[float]]:
    """Preprocessing, mean and std of a processor, proven on two pictures.

    Raises:
        ModelError: what it does is not resize, centre crop and normalisation.
    """
    settings = processor.to_dict()
    kind = type(processor).__name__
    preprocessing = preprocessing_of(kind, settings)
    mean, std = [0.0] * 3, [1.0] * 3
    if settings.get("do_normalize", True) and settings.get("image_mean") is not None:
        mean, std = ([float(v) for v in settings[key]] for key in ("image_mean", "image_std"))
    if settings.get("include_top"):  # EfficientNet's divides by std once more
        std = [v * v for v in std]
    if preprocessing is None or not _agrees(processor, preprocessing, mean, std):
        raise ModelError(
            f"{name}: the preprocessing of its {kind} is not one this version knows",
            "prepare the images yourself and wrap the module: aresbench.Classifier(module, mean=…, std=…)",
        )
    return preprocessing, mean, std


def _agrees(processor: Any, preprocessing: Preprocessing, mean: list[float], std: list[float]) -> bool:
    """Does the processor itself make nearly the same of a landscape and a portrait?"""
    for width, height in ((640, 470), (350, 520)):
        across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
        waves = np.stack([across, down, (np.sin(40 * across) * np.cos(30 * down) + 1) / 2], axis=-1)
        picture = Image.fromarray((255 * waves).astype(np.uint8))
        made = processor(images=picture, return_tensors="pt")["pixel_values"][0]
        ours = resize.apply(picture, preprocessing).float() / 255
        if made.shape != ours.shape:
            return False
        back = made * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
        if not (back - ours).abs().mean() < TOLERANCE:
            return False
    return True


def preprocessing_of(kind: str, settings: Mapping[str, Any]) -> Preprocessing | None:
    """A processor of transformers as resize and centre crop; None where it cannot be said so.

    Args:
        kind: name of its class.
        settings: its ``to_dict()``.
    """
    interpolation = _FILTERS.get(int(settings.get("resample") or 2))
    size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
    if interpolation is None or not settings.get("do_resize", True):
        return None
    edge, both = size.get("shortest_edge"), _sides(size)
    final = _sides(crop) if settings.get("do_center_crop") else None
    if kind.startswith("ConvNext") and edge:
        if edge >= 384:
            return Preprocessing((edge, edge), None, interpolation, squash=True)
        return Preprocessing((edge, edge), int(edge / settings["crop_pct"]), interpolation)
    if kind.startswith("Levit") and edge:
        edge = int(256 / 224 * edge)
    if kind.startswith("PoolFormer") and edge and settings.get("crop_pct"):
        edge = int(edge / settings["crop_pct"])
    if edge:
        return Preprocessing(final, edge, interpolation) if final else None
    if both is None:
        return None
    if final is None or final == both:
        return Preprocessing(both, None, interpolation, squash=True)
    return Preprocessing(final, both[0], interpolation, squash=True) if both[0] == both[1] else None


def _sides(size: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width, where both are given."""
    height, width = size.get("height"), size.get("width")
    return (int(height), int(width)) if height and width else None
