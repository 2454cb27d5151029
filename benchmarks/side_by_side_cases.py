"""The models and images of ``side_by_side.py``; what is not installed or not at hand is left out by name."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from common import digits
from PIL import Image
from torch import Tensor, nn

from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.models.load import load_model

INF = float("inf")


@dataclass(frozen=True)
class Case:
    """A model, images with labels, and the budgets at which about half of them break.

    Args:
        title: for the page.
        model: in eval mode; [0,1] images → logits.
        budgets: norm → radius.
        source: a second model that transfer attacks search on.
    """

    title: str
    model: nn.Module
    x: Tensor
    y: Tensor
    budgets: dict[str, float]
    source: nn.Module | None = None

    @property
    def right(self) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.model(x[None]) for x in self.x]).argmax(1) == self.y

    def take(self, n: int) -> Case:
        return Case(self.title, self.model, self.x[:n], self.y[:n], self.budgets, self.source)


def digits_case(name: str, budgets: dict[str, float]) -> Case:
    model, x, y, _ = digits(80, name)
    words = {"plain": "plainly trained", "robust": "adversarially trained"}[name]
    return Case(f"Digits, {words} (the committed model)", model, x, y, budgets)


def digits_with_errors() -> Case:
    """40 digits that the model gets right among as many that it gets wrong as there are, 40 at most."""
    model, x, y, _ = digits(len(load_dataset("digits")), "robust")
    with torch.no_grad():
        right = model(x).argmax(1) == y
    rows = torch.cat([right.nonzero()[:40, 0], (~right).nonzero()[:40, 0]])
    wrong = int((~right[rows]).sum())
    return Case(
        f"Digits, adversarially trained, 40 right and {wrong} wrong ones", model, x[rows], y[rows], {"linf": 0.1}
    )


def digits_transfer() -> Case:
    model, x, y, _ = digits(80, "plain")
    title = "Transfer: searched on the adversarially trained digits model, judged on the plain one"
    return Case(title, model, x, y, {"linf": 0.12}, load_model("samples:digits-robust").eval())


@cache
def advertorch() -> object:
    """advertorch, which imports a function that torch has dropped."""
    import torch.autograd.gradcheck  # noqa: F401

    gone = sys.modules["torch.autograd.gradcheck"]
    gone.zero_gradients = lambda x: x.grad is not None and x.grad.zero_()  # type: ignore[attr-defined]
    import advertorch.attacks

    return advertorch.attacks


def mnist(weights: str, budgets: dict[str, float]) -> Case:
    advertorch()
    import advertorch_examples
    import foolbox
    from advertorch.test_utils import LeNet5

    model = LeNet5()
    folder = Path(next(iter(advertorch_examples.__path__))) / "trained_models"
    model.load_state_dict(torch.load(folder / f"mnist_lenet5_{weights}.pt", map_location="cpu", weights_only=True))
    files = sorted((Path(foolbox.__file__).parent / "data").glob("mnist_*.png"))
    x = np.stack([np.asarray(Image.open(f).convert("L"), np.float32) / 255 for f in files])[:, None]
    y = torch.tensor([int(f.stem.split("_")[-1]) for f in files])
    words = {"clntrained": "plainly trained", "advtrained": "adversarially trained"}[weights]
    return Case(f"MNIST, advertorch's LeNet, {words}, foolbox's 20 digits", model.eval(), torch.tensor(x), y, budgets)


def development(name: str) -> Path | None:
    where = os.environ.get("ARESBENCH_DEV_DATA")
    return Path(where) / name if where else None


def photographs() -> Case:
    """10 of the sample photographs, and 10 of the development ones where they are at hand."""
    model = load_model("samples:efficientnet-lite0").eval()
    data = load_dataset("samples")[:10]
    assert model.preprocessing is not None
    x, _, _ = load_images(data, range(len(data)), model.preprocessing)
    y, more = torch.tensor(data.labels), development("imagenet-like-photos")
    title = "Photographs, EfficientNet-Lite0 at 224 px, 10 samples"
    if more is not None:
        with open(more / "labels.csv", newline="", encoding="utf-8") as table:
            rows = list(csv.DictReader(table))[:10]
        pictures = [Image.open(more / row["file"]).convert("RGB").resize((224, 224), Image.BICUBIC) for row in rows]
        extra = np.stack([np.asarray(p, np.float32) / 255 for p in pictures]).transpose(0, 3, 1, 2)
        x = torch.cat([x, torch.tensor(extra)])
        y = torch.cat([y, torch.tensor([int(row["imagenet_index"]) for row in rows])])
        title += " and 10 development photographs"
    return Case(title, model, x, y, {"linf": 0.25 / 255, "l2": 0.15})


def cifar() -> Case:
    import pyautoattack

    files = development("cifar10-jpeg/lossless-300.npz")
    if files is None:
        raise ImportError("the development data (ARESBENCH_DEV_DATA)")
    examples = Path(pyautoattack.__file__).parent / "examples"
    sys.path.insert(0, str(examples))
    from resnet import ResNet18

    sys.path.remove(str(examples))
    model = ResNet18()
    model.load_state_dict(torch.load(examples / "model_test.pt", map_location="cpu", weights_only=True))
    held = np.load(files)
    x = torch.tensor(held["x"][:30].transpose(0, 3, 1, 2).astype(np.float32) / 255)
    title = "CIFAR-10, pyautoattack's ResNet-18 (plainly trained), 30 exact test images"
    return Case(title, model.eval(), x, torch.tensor(held["y"][:30].astype(np.int64)), {"linf": 0.5 / 255, "l2": 0.1})


CASES: dict[str, Callable[[], Case]] = {
    "digits-plain": lambda: digits_case("plain", {"linf": 0.02, "l2": 0.7}),
    "digits-robust": lambda: digits_case("robust", {"linf": 0.15, "l2": 1.6}),
    "digits-errors": digits_with_errors,
    "digits-transfer": digits_transfer,
    "mnist-plain": lambda: mnist("clntrained", {"linf": 0.1, "l2": 1.5}),
    "mnist-robust": lambda: mnist("advtrained", {"linf": 0.35, "l2": 2.0}),
    "photographs": photographs,
    "cifar": cifar,
}
