"""What the benchmarks share: photographs, digits, models and a fair clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.models.classifier import Classifier
from aresbench.models.load import load_model


def photographs(n: int) -> tuple[Classifier, Tensor, Tensor]:
    """EfficientNet-Lite0 with its ImageNet weights, and n of the 20 sample photographs at 224 px."""
    model = load_model("samples:efficientnet-lite0").eval()
    data = load_dataset("samples")[:n]
    x, _, _ = load_images(data, range(len(data)), model.preprocessing)
    return model, x, torch.tensor(data.labels)


def digits(n: int, name: str = "robust") -> tuple[Classifier, Tensor, Tensor, list[str]]:
    """A committed digits model and n held-out digits at 32 px."""
    model = load_model(f"samples:digits-{name}").eval()
    data = load_dataset("digits")[:n]
    x, _, _ = load_images(data, range(n), model.preprocessing)
    return model, x, torch.tensor(data.labels), list(data.ids)


def ratio(ours: Callable[[], object], theirs: Callable[[], object], rounds: int = 5) -> tuple[float, float, float]:
    """(median ratio, seconds of ours, seconds of theirs), both run alternately so that noise hits both alike."""
    ours(), theirs()  # warm up
    pairs = []
    for _ in range(rounds):
        times = []
        for run in (ours, theirs):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        pairs.append(times)
    quotients = sorted(a / b for a, b in pairs)
    return statistics.median(quotients), min(a for a, _ in pairs), min(b for _, b in pairs)
