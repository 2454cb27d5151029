"""Record how older programs name the zoo's tensors, and what they answer: tests/models/zoo-originals.json.gz.

Run where timm is 0.6.7 and the sources of `robustness` 1.2.1 can be imported, for example with both wheels unpacked:
PYTHONPATH=unpacked python scripts/zoo_fixtures.py OUT.json.gz
What OUT.json.gz holds besides is kept: T2T-ViT and feature denoising were recorded in the same way, by hand, from the
programs of their authors (of ARES 2.0 for the latter, with ReLU for GELU), which do not install.
"""

from __future__ import annotations

import gzip
import importlib
import json
import sys
import types
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from timm.models.layers import GELU
from timm.models.xcit import XCiT
from torch import nn

FIXED = ("relative_position_index", "attn_mask", "num_batches_tracked")  # buffers that are no weights
SIZES = ("small", "base", "large")


def planted(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights that depend on a tensor's name and shape only; the tests make the same ones."""
    stream = np.random.RandomState(zlib.crc32(name.encode()))  # its stream is frozen for good
    numbers = stream.random_sample(shape).astype(np.float32) * 2 - 1
    if len(shape) > 1:
        return numbers * np.float32((3 / np.prod(shape[1:])) ** 0.5)
    if name.endswith("running_var"):
        return 1 + numbers / 2
    return numbers / 10 + (1 if name.endswith("weight") else 0)


def robustness(name: str) -> nn.Module:
    """A network of the library robustness, without importing the rest of it and what that needs."""
    root = next(Path(p, "robustness") for p in sys.path if Path(p, "robustness").is_dir())
    for part in ("", ".tools", ".imagenet_models"):
        package = types.ModuleType(f"robustness{part}")
        package.__path__ = [str(root / part.lstrip("."))]
        sys.modules[f"robustness{part}"] = package
    made: nn.Module = getattr(importlib.import_module("robustness.imagenet_models.resnet"), name)()
    return made


def xcit(width: int, heads: int) -> nn.Module:
    """The 12-layer XCiTs of Debenedetti et al. (2022), which timm 0.6.7 has no names for."""
    return XCiT(patch_size=16, embed_dim=width, depth=12, num_heads=heads, eta=1.0, tokens_norm=True)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {
    "timm resnet50": partial(timm.create_model, "resnet50"),
    "timm resnet101": partial(timm.create_model, "resnet101"),
    "timm resnet152 gelu": partial(timm.create_model, "resnet152", act_layer=GELU),
    "timm wide_resnet50_2 gelu": partial(timm.create_model, "wide_resnet50_2", act_layer=GELU),
    **{f"timm convnext_{s}": partial(timm.create_model, f"convnext_{s}") for s in SIZES},
    **{f"timm swin_{s}": partial(timm.create_model, f"swin_{s}_patch4_window7_224") for s in SIZES},
    **{f"timm vit_{s}": partial(timm.create_model, f"vit_{s}_patch16_224") for s in SIZES},
    **{
        f"timm vit_{s} avg": partial(timm.create_model, f"vit_{s}_patch16_224", global_pool="avg")
        for s in ("base", "large")
    },
    "timm xcit_small_12": partial(timm.create_model, "xcit_small_12_p16_224"),
    "timm xcit_medium_12": partial(xcit, 512, 8),
    "timm xcit_large_12": partial(xcit, 768, 16),
    "robustness resnet50": partial(robustness, "resnet50"),
    "robustness wide_resnet50_2": partial(robustness, "wide_resnet50_2"),
}
ANSWERING = (
    "timm convnext_small",
    "timm swin_small",
    "timm vit_base avg",
    "timm xcit_small_12",
    "robustness resnet50",
)


def record(name: str) -> dict[str, object]:
    """Names and shapes of an original's tensors; eight logits of one image under planted weights, for some."""
    module = ORIGINALS[name]().eval()
    state = module.state_dict()
    found: dict[str, object] = {"shapes": {k: list(v.shape) for k, v in state.items()}}
    if name in ANSWERING:
        weights = {
            k: v if k.endswith(FIXED) else torch.as_tensor(planted(k, tuple(v.shape)), dtype=torch.float32)
            for k, v in state.items()
        }
        module.load_state_dict(weights)
        image = np.random.RandomState(0).random_sample((1, 3, 224, 224)).astype(np.float32)
        with torch.no_grad():
            logits = module(torch.from_numpy(image))[0, :8]
        found["logits"] = [float(f"{value:.6g}") for value in logits.tolist()]
    return found


if __name__ == "__main__":
    assert timm.__version__ == "0.6.7", timm.__version__
    target = Path(sys.argv[1])
    kept = json.loads(gzip.decompress(target.read_bytes())) if target.is_file() else {}
    text = json.dumps(
        {name: record(name) for name in ORIGINALS} | {k: v for k, v in kept.items() if k not in ORIGINALS}
    )
    target.write_bytes(gzip.compress(text.encode(), mtime=0))
