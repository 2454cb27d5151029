"""Trees in the true layouts of ImageNet's natural shifts, real class names and counts, a few real photographs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from aresbench.data.base import Dataset
from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.imagenet_subsets import subset_indices
from aresbench.data.imagenet_v2 import known_images
from aresbench.data.load import load_dataset
from aresbench.data.objectnet import kinds

WNIDS = imagenet_classes().ids
Trees = Callable[[str], Path]


@pytest.fixture(scope="session")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sixteen pieces of two real photographs, each of another size, as JPEG files."""
    folder = tmp_path_factory.mktemp("pieces")
    for k in range(16):
        whole = Image.fromarray(load_sample_images().images[k % 2])
        left, top, width, height = 30 * k, 10 * k, 60 + 3 * k, 50 + 2 * k
        whole.crop((left, top, left + width, top + height)).save(folder / f"{k:02d}.jpg")
    return sorted(folder.iterdir())


def fill(folder: Path, names: Sequence[str], count: int, files: Sequence[Path], pattern: str) -> None:
    """``count`` links to ``files`` spread over the class folders ``names``, the first ones getting one more."""
    for place, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for k in range(count // len(names) + (place < count % len(names))):
            os.link(files[(place + 5 * k) % len(files)], folder / name / pattern.format(k=k, place=place))


def fill_v2(folder: Path, variant: str, files: Sequence[Path], name_of: Mapping[int, str]) -> None:
    """A variant of V2: ten images in each of the class folders ``name_of``, those whose class is known among them."""
    for label, name in name_of.items():
        (folder / name).mkdir(parents=True)
        known = [image for image, wnid in known_images(variant).items() if wnid == WNIDS[label]]
        names = known + [f"{label:036x}{k:04x}" for k in range(10 - len(known))]
        for k, image in enumerate(names):
            os.link(files[(label + k) % len(files)], folder / name / f"{image}.jpeg")


@pytest.fixture(scope="session")
def shift(tmp_path_factory: pytest.TempPathFactory, pieces: list[Path]) -> Trees:
    """The whole of a shift by name, made when it is first asked for; tests must leave it as it is."""
    made: dict[str, Path] = {}

    def tree(name: str) -> Path:
        if name in made:
            return made[name]
        base = made[name] = tmp_path_factory.mktemp(name)
        match name:
            case "imagenet-a" | "imagenet-r":
                chosen = [WNIDS[k] for k in subset_indices(name[-1].upper())]
                count = {"imagenet-a": 7_500, "imagenet-r": 30_000}[name]
                fill(base / name, chosen, count, pieces, "0.{k:06d}_some _ name_0.9.jpg")
                (base / name / "README.txt").write_text("the archives bring one")
            case "imagenet-sketch":
                fill(base / "sketch", WNIDS, 50_889, pieces, "sketch_{k}.JPEG")
            case "imagenet-v2":
                folder = base / "imagenetv2-matched-frequency-format-val"
                fill_v2(folder, "matched-frequency", pieces, {k: str(k) for k in range(1000)})
            case "objectnet":
                framed = framed_pieces(tmp_path_factory.mktemp("framed"), pieces)
                images = base / "objectnet-1.0/images"
                fill(images, [k.folder for k in kinds() if k.wnids], 18_574, framed, "{place:06x}{k:09x}.png")
                others = [k.folder for k in kinds() if not k.wnids]
                fill(images, others, 50_273 - 18_574, framed, "f{place:05x}{k:09x}.png")
        return base

    return tree


def framed_pieces(folder: Path, pieces: Sequence[Path]) -> list[Path]:
    """The pieces as PNG with the red border of one pixel that ObjectNet's pictures have."""
    for file in pieces:
        with Image.open(file) as opened:
            ImageOps.expand(opened.convert("RGB"), 1, (255, 0, 0)).save(folder / f"{file.stem}.png")
    return sorted(folder.iterdir())


@pytest.fixture
def framed(tmp_path: Path, pieces: list[Path]) -> list[Path]:
    folder = tmp_path / "framed"
    folder.mkdir()
    return framed_pieces(folder, pieces)


@pytest.fixture
def v2(tmp_path: Path, pieces: list[Path]) -> Callable[..., Path]:
    """Make a variant of V2 under class folders of any names."""

    def make(variant: str, name_of: Mapping[int, str], folder: str = "v2") -> Path:
        fill_v2(tmp_path / folder, variant, pieces, name_of)
        return tmp_path / folder

    return make


@pytest.fixture(scope="session")
def logits() -> np.ndarray:
    """Outputs of a model of ImageNet's 1,000 classes for 400 images: noise, but no ties."""
    return np.random.default_rng(0).normal(size=(400, 1000))


@pytest.fixture(scope="session")
def clean(imagenet: Path) -> Dataset:
    """The whole ImageNet of the tests, read once."""
    return load_dataset("imagenet", root=imagenet / "tree")
