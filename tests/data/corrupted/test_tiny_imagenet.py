"""Tiny-ImageNet and Tiny-ImageNet-C: both layouts, and the traps of each."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aresbench.core.classes import Classes, match_classes
from aresbench.core.errors import DataError
from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.load import load_dataset
from aresbench.data.tiny_imagenet import WNIDS, tiny_imagenet_classes


def test_the_classes_are_imagenets() -> None:
    assert len(WNIDS) == len(set(WNIDS)) == 200 and list(WNIDS) == sorted(WNIDS)
    digest = hashlib.sha256("\n".join(WNIDS).encode()).hexdigest()
    assert digest == "add4bf0c8712ef7fb4bca98e3bbaf07101636c5db62cce486fd2af71cc11caf8"
    found = match_classes(tiny_imagenet_classes(), imagenet_classes())
    assert found.target[0] == 1 and len(found.target) == 200
    assert match_classes(Classes(tiny_imagenet_classes().names), imagenet_classes()).target == found.target


@pytest.fixture(scope="session")
def small(saved: Any) -> list[Path]:
    return saved((64, 64))


@pytest.fixture
def published(tmp_path: Path, small: list[Path]) -> Path:
    """tiny-imagenet-200/val as published; image k has class 7 k mod 200."""
    folder = tmp_path / "tiny-imagenet-200/val"
    (folder / "images").mkdir(parents=True)
    lines = []
    for k in range(10_000):
        os.link(small[k % 20], folder / f"images/val_{k}.JPEG")
        lines.append(f"val_{k}.JPEG\t{WNIDS[7 * k % 200]}\t0\t0\t63\t63\n")
    (folder / "val_annotations.txt").write_text("".join(lines))
    return tmp_path


def test_both_layouts_are_the_same(published: Path) -> None:
    data = load_dataset(f"tiny-imagenet:{published}")
    assert (data.name, len(data), data.ready_size) == ("tiny-imagenet", 10_000, (64, 64))
    numbers = np.array([int(i.removeprefix("val_")) for i in data.ids])
    assert np.array_equal(data.labels, 7 * numbers % 200)
    assert data.standard == imagenet_classes() and not data.standard_order
    assert data.check() == []
    val = published / "tiny-imagenet-200/val"
    for wnid in WNIDS:
        (val / wnid / "images").mkdir(parents=True)
    for k in range(10_000):
        (val / f"images/val_{k}.JPEG").rename(val / WNIDS[7 * k % 200] / f"images/val_{k}.JPEG")
    (val / "images").rmdir()
    sorted_out = load_dataset("tiny-imagenet", root=published / "tiny-imagenet-200")
    assert sorted_out.ids == data.ids and np.array_equal(sorted_out.labels, data.labels)


def test_what_can_be_wrong_with_the_published_layout(published: Path) -> None:
    val = published / "tiny-imagenet-200/val"
    notes, kept = val / "val_annotations.txt", (val / "val_annotations.txt").read_text()
    (val / "images/val_5.JPEG").rename(val / "val_5.JPEG")
    with pytest.raises(DataError, match=r"1 pictures of .* are not in .*images, e.g. val_5"):
        load_dataset(f"tiny-imagenet:{published}")
    (val / "val_5.JPEG").rename(val / "images/val_5.JPEG")
    notes.write_text(kept.replace(WNIDS[7], "n00000007"))
    with pytest.raises(DataError, match=r"line 2: expected `val_0.JPEG"):
        load_dataset(f"tiny-imagenet:{published}")
    notes.write_text(kept + kept.splitlines()[0] + "\n")
    with pytest.raises(DataError, match="val_0 is there twice"):
        load_dataset(f"tiny-imagenet:{published}")
    notes.write_text("".join(kept.splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=r"9,999 of Tiny-ImageNet's 10,000 images.* has 49"):
        load_dataset(f"tiny-imagenet:{published}")
    notes.unlink()
    with pytest.raises(DataError, match="pictures without labels"):
        load_dataset(f"tiny-imagenet:{published}")


def corrupted_tree(root: Path, files: list[Path], wnids: tuple[str, ...] = WNIDS) -> Path:
    for label, wnid in enumerate(wnids):
        (root / wnid).mkdir(parents=True)
        for k in range(50):
            os.link(files[(label + k) % 20], root / wnid / f"test_{50 * label + k}.JPEG")
    return root


def test_corrupted_files(tmp_path: Path, small: list[Path]) -> None:
    corrupted_tree(tmp_path / "Tiny-ImageNet-C/fog/2", small)
    data = load_dataset(f"tiny-imagenet-c(corruption=fog, severity=2):{tmp_path}")
    assert (data.name, len(data), data.parent) == ("tiny-imagenet-c/fog/2", 10_000, "tiny-imagenet")
    assert data.corrupted_by == ("fog", 2) and data.classes == tiny_imagenet_classes()
    assert "n01443537/test_3" in data.ids
    assert {flag.name for flag in data.check(20)} == {"set-incomplete"}
    wrong = tmp_path / "Tiny-ImageNet-C/fog/2" / WNIDS[3]
    next(wrong.iterdir()).unlink()
    with pytest.raises(DataError, match=f"9,999 of Tiny-ImageNet-C's 10,000 images.*{WNIDS[3]} has 49"):
        load_dataset(f"tiny-imagenet-c(corruption=fog, severity=2):{tmp_path}")
    wrong.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=f"199 of Tiny-ImageNet-C's 200 class folders; {WNIDS[3]} is missing"):
        load_dataset(f"tiny-imagenet-c(corruption=fog, severity=2):{tmp_path}")


def test_the_frost_of_the_first_archive(tmp_path: Path) -> None:
    for wnid in imagenet_classes().ids:
        (tmp_path / "frost/1" / wnid).mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"1000 class folders where Tiny-ImageNet-C has 200 \(as in the frost"
    ) as caught:
        load_dataset("tiny-imagenet-c", tmp_path, corruption="frost", severity=1)
    assert "corrected copy" in caught.value.remedy and "8206060" in caught.value.remedy
    (tmp_path / "frost").rename(tmp_path / "snow")
    with pytest.raises(DataError, match=r"1000 class folders where Tiny-ImageNet-C has 200; n01440764") as caught:
        load_dataset("tiny-imagenet-c", tmp_path, corruption="snow", severity=1)


def test_pictures_of_another_size_are_found(tmp_path: Path, jpegs: list[Path]) -> None:
    corrupted_tree(tmp_path / "fog/2", jpegs)
    data = load_dataset(f"tiny-imagenet-c(corruption=fog, severity=2):{tmp_path}")
    found = {flag.name: flag for flag in data.check(10)}
    assert "10 of 10 pictures are not 64×64, most of them 224×224" in found["resized"].message
