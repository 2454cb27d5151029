"""Small trees in the layouts of the published corrupted sets, made of real photographs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from aresbench.data.imagenet_classes import imagenet_classes

# As ImageNet-C was saved: Pillow's default chroma is 4:2:0.
PUBLISHED = {"quality": 85, "optimize": True}

Save = Callable[..., list[Path]]
Tree = Callable[..., Path]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory, photographs: list[Path]) -> Save:
    """The photographs at a size, saved as JPEG with some options (by default as ImageNet-C was)."""

    def save(size: tuple[int, int] = (224, 224), **options: object) -> list[Path]:
        folder = tmp_path_factory.mktemp("saved")
        for file in photographs:
            with Image.open(file) as opened:
                ImageOps.fit(opened, size).save(folder / file.name, **(options or PUBLISHED))
        return sorted(folder.iterdir())

    return save


@pytest.fixture(scope="session")
def jpegs(saved: Save) -> list[Path]:
    """The photographs as ImageNet-C publishes its pictures."""
    return saved()


@pytest.fixture
def tree(tmp_path: Path, jpegs: list[Path]) -> Tree:
    """Make <folder>/<wnid>/ILSVRC2012_val_*.JPEG: five images of four classes, linked to ``files``."""

    def make(folder: str, files: Sequence[Path] = jpegs, labels: Sequence[int] = (0, 1, 5, 999)) -> Path:
        for place, label in enumerate(labels):
            target = tmp_path / folder / imagenet_classes().ids[label]
            target.mkdir(parents=True)
            for k in range(5):
                name = f"ILSVRC2012_val_{1 + label + 1000 * k:08d}.JPEG"
                os.link(files[(5 * place + k) % len(files)], target / name)
        return tmp_path

    yield make
    shutil.rmtree(tmp_path, ignore_errors=True)
