"""ImageNet's training set: found, named and refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aresbench.core.errors import DataError
from aresbench.data import imagenet_train
from aresbench.data.base import published_order
from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.load import load_dataset

WNIDS = imagenet_classes().ids


@pytest.fixture
def train(tmp_path: Path, photographs: list[Path]) -> Path:
    """Two pictures in each of the 1,000 class folders."""
    for k, wnid in enumerate(WNIDS):
        (tmp_path / "train" / wnid).mkdir(parents=True)
        for number in (3, 21):
            os.link(photographs[(k + number) % 20], tmp_path / "train" / wnid / f"{wnid}_{number}.JPEG")
    return tmp_path


def test_the_whole_set(train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="there are 2,000 images here; ImageNet's training set has 1,281,167"):
        load_dataset(f"imagenet-train:{train}")
    monkeypatch.setattr(imagenet_train, "TOTAL", 2000)
    data = load_dataset(f"imagenet-train:{train}")
    assert (data.name, len(data), data.classes) == ("imagenet-train", 2000, imagenet_classes())
    assert {"n01440764/n01440764_3", "n01440764/n01440764_21"} <= set(data.ids)
    assert [WNIDS[y] for y in data.labels] == [image_id[:9] for image_id in data.ids]
    assert list(published_order(sorted(data.ids))) == [sorted(data.ids).index(k) for k in data.ids]
    k = data.ids.index("n01440764/n01440764_21")
    with Image.open(train / "train/n01440764/n01440764_21.JPEG") as picture:
        assert np.array_equal(np.asarray(data.picture(k)), np.asarray(picture.convert("RGB")))
    assert data.source(k) == train / "train/n01440764/n01440764_21.JPEG"
    assert [flag.name for flag in data.check()] == ["resized-copies", "class-sizes"]


def test_the_folder_itself_and_the_environment(train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet_train, "TOTAL", 2000)
    whole = load_dataset(f"imagenet-train:{train}")
    assert load_dataset("imagenet-train", root=train / "train").ids == whole.ids
    (train / "data").mkdir()
    (train / "train").rename(train / "data/train")
    (train / "data").rename(train / "imagenet")
    monkeypatch.setenv("ARESBENCH_DATA", str(train))
    assert load_dataset("imagenet-train").ids == whole.ids


def test_a_part_has_a_name_of_its_own(train: Path) -> None:
    part = load_dataset(f"imagenet-train(partial=true):{train}")
    assert part.name.startswith("imagenet-train-part-") and len(part) == 2000
    shutil.rmtree(train / "train" / WNIDS[0])
    with pytest.raises(DataError, match=f"has 999 of ImageNet's 1000 class folders; missing: {WNIDS[0]}") as caught:
        load_dataset("imagenet-train", root=train)
    assert "partial=True" in caught.value.remedy
    smaller = load_dataset("imagenet-train", root=train, partial=True)
    assert len(smaller) == 1998 and smaller.name != part.name
    assert [k for k in part.ids if not k.startswith(WNIDS[0])] == list(smaller.ids)


def test_wrong_trees(train: Path) -> None:
    folder = train / "train" / WNIDS[5]
    (folder / ".hidden.JPEG").touch()
    (folder / "notes.txt").touch()
    assert len(load_dataset("imagenet-train", root=train, partial=True)) == 2000
    (train / "train/n01440765").mkdir()
    with pytest.raises(DataError, match="no class of ImageNet-1k: n01440765") as caught:
        load_dataset("imagenet-train", root=train, partial=True)
    assert "'n01440764'" in caught.value.remedy
    (train / "train/n01440765").rmdir()
    for name in (f"{WNIDS[6]}_7.JPEG", "mine.jpg", f"{WNIDS[5]}_x.JPEG"):
        (folder / name).touch()
        with pytest.raises(DataError, match=f"{name} is not named as ImageNet's training images"):
            load_dataset("imagenet-train", root=train, partial=True)
        (folder / name).unlink()
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(DataError, match=f"the class folder {folder} holds no picture"):
        load_dataset("imagenet-train", root=train)
    assert len(load_dataset("imagenet-train", root=train, partial=True)) == 1998
    (train / "train" / WNIDS[6] / f"{WNIDS[6]}_3.jpeg").touch()
    with pytest.raises(DataError, match=f"the image id '{WNIDS[6]}/{WNIDS[6]}_3' twice"):
        load_dataset("imagenet-train", root=train, partial=True)
