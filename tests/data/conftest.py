"""Real photographs, and folder trees made of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.load import load_dataset


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The 20 sample photographs, made small, as JPEG files."""
    folder = tmp_path_factory.mktemp("photographs")
    samples = load_dataset("samples")
    for i in range(len(samples)):
        samples.picture(i).resize((96, 64), Image.Resampling.BILINEAR).save(folder / f"{i:02d}.jpg")
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory: pytest.TempPathFactory, photographs: list[Path]) -> Path:
    """A whole ImageNet by name: tree/val/<wnid>/ and flat/val/ with flat/val.txt; the photographs behind 50,000 names.

    Image number k has label 37 k mod 1000.
    """
    base = tmp_path_factory.mktemp("imagenet")
    wnids = imagenet_classes().ids
    for wnid in wnids:
        (base / "tree/val" / wnid).mkdir(parents=True)
    (base / "flat/val").mkdir(parents=True)
    lines = []
    for number in range(1, 50_001):
        name, label = f"ILSVRC2012_val_{number:08d}.JPEG", 37 * number % 1000
        os.link(photographs[number % 20], base / "tree/val" / wnids[label] / name)
        os.link(photographs[number % 20], base / "flat/val" / name)
        lines.append(f"{name} {label}\n")
    (base / "flat/val.txt").write_text("".join(lines))
    return base


@pytest.fixture
def without_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No ARESBENCH_DATA, and an empty cache."""
    monkeypatch.delenv("ARESBENCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"
