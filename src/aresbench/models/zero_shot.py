"""A model of images and words as a classifier: the words go through it once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aresbench.core.errors import ModelError
from aresbench.core.preprocessing import Preprocessing


class ZeroShot(nn.Module):
    """The image tower, and one direction for each class.

    Args:
        visual: normalised images [N, 3, H, W] → embeddings [N, D].
        directions: [K, D], each of length 1.
        scale: what the cosine is multiplied by.
    """

    directions: Tensor

    def __init__(self, visual: nn.Module, directions: Tensor, scale: float) -> None:
        super().__init__()
        self.visual = visual
        self.scale = scale
        self.num_classes = len(directions)
        self.register_buffer("directions", directions)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]."""
        return self.scale * F.normalize(self.visual(x), dim=-1) @ self.directions.T

    def extra_repr(self) -> str:
        """Scale, which takes part in the fingerprint."""
        return f"scale={self.scale!r}"


@dataclass(frozen=True)
class Built:
    """A zero-shot module and how pictures come to it; mean and std in [0,1] units."""

    module: ZeroShot
    mean: list[float]
    std: list[float]
    preprocessing: Preprocessing


def build(architecture: str, weights: str | Path, words: Sequence[str], templates: Sequence[str]) -> Built:
    """Make a classifier of words.

    Args:
        architecture: OpenCLIP's name.
        weights: OpenCLIP's tag, or a file of a state dict.
        words: what each class is called.
        templates: sentences with ``{}`` for the class; their embeddings are averaged.

    Raises:
        ModelError: the weights cannot be had, read or fitted; or a model of another kind.
    """
    import open_clip
    from open_clip.model import CLIP, CustomTextCLIP

    from aresbench.models.checkpoint import read_checkpoint

    if isinstance(weights, Path):
        read_checkpoint(weights)  # refuses what is damaged or would run code
    try:
        model = open_clip.create_model(
            architecture, pretrained=str(weights), require_pretrained=True, weights_only=True
        )
        tokenizer = open_clip.get_tokenizer(architecture)
    except Exception as error:  # a download or a checkpoint fails in many ways
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"open-clip:{architecture}/{weights} could not be loaded: {type(error).__name__}: {reason}",
            "check the network; or give a file of its weights: open-clip:MODEL//path/weights.safetensors",
        ) from None
    if not isinstance(model, CLIP | CustomTextCLIP):
        raise ModelError(f"{architecture} is a {type(model).__name__}, not a plain CLIP", "choose another model")
    model.eval()
    visual = model.visual
    assert isinstance(visual, nn.Module)
    directions = torch.stack(
        [_direction(model, tokenizer, [t.replace("{}", word) for t in templates]) for word in words]
    )
    found = open_clip.get_model_preprocess_cfg(model)
    scale = float(model.logit_scale.detach().exp())
    preprocessing = preprocessing_of(architecture, found)
    return Built(ZeroShot(visual, directions, scale), list(found["mean"]), list(found["std"]), preprocessing)


def _direction(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    """The normalised mean of the normalised embeddings of sentences."""
    with torch.no_grad():
        return F.normalize(model.encode_text(tokenizer(texts), normalize=True).mean(0), dim=-1)


def preprocessing_of(architecture: str, found: dict[str, Any]) -> Preprocessing:
    """OpenCLIP's evaluation transform.

    Raises:
        ModelError: it pads the longer side.
    """
    size = found["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if found["resize_mode"] == "squash":
        return Preprocessing((height, width), None, found["interpolation"], squash=True)
    if found["resize_mode"] != "shortest" or height != width:
        raise ModelError(f"the preprocessing of {architecture} ({found}) is not one this version knows")
    return Preprocessing((height, width), height, found["interpolation"])
