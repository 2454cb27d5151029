"""ImageNet-Sketch, Stylized-ImageNet and ImageNet-V."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from aresbench.core.errors import DataError
from aresbench.core.preprocessing import Preprocessing
from aresbench.core.registry import TABLES, card
from aresbench.data.base import Dataset
from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.imagenet_nerf import objects
from aresbench.data.load import load_dataset

WNIDS = imagenet_classes().ids
Trees = Callable[[str], Path]
SHIFTS = [name for name, path in TABLES["datasets"].items() if "imagenet" in name or name == "objectnet"]


@pytest.mark.parametrize("name", SHIFTS)
def test_cards(name: str) -> None:
    """What `aresbench show` says, read without an import."""
    facts = card("datasets", name).facts
    for fact in ("title", "licence", "citation", "obtain", "image_size", "terms"):
        assert facts[fact], fact
    assert facts["terms"] in ("free", "attribution", "non-commercial", "unclear")
    assert not facts.get("parent") or facts["parent"] in TABLES["datasets"]
    known = facts.get("known", {})
    assert all(0 <= value <= 100 for value in known.values()) and (not known or facts["known_source"])


def test_sketch(shift: Trees) -> None:
    data = load_dataset("imagenet-sketch", root=shift("imagenet-sketch"))
    assert data.name == "imagenet-sketch" and len(data) == 50_889 and data.check() == []
    for image_id, label in zip(data.ids[:500], data.labels[:500], strict=True):
        assert image_id.startswith(f"{WNIDS[label]}/sketch_")


def test_sketch_has_editions(shift: Trees, tmp_path: Path) -> None:
    tree = shift("imagenet-sketch") / "sketch"
    gone = [file for wnid in WNIDS[:15] for file in [min((tree / wnid).iterdir())]]
    for k, file in enumerate(gone):
        file.rename(tmp_path / str(k))
    try:
        listed = load_dataset("imagenet-sketch", root=tree)
        assert listed.name == "imagenet-sketch-50874" and len(listed) == 50_874
        (flag,) = listed.check()
        assert flag.name == "another-edition" and "50,889" in flag.message
        (tmp_path / "0").rename(gone[0])
        with pytest.raises(
            DataError, match="there are 50,875 images here; ImageNet-Sketch has 50,889 or 50,874 or 50,000"
        ):
            load_dataset("imagenet-sketch", root=tree)
    finally:
        for k, file in enumerate(gone):
            if (tmp_path / str(k)).exists():
                (tmp_path / str(k)).rename(file)


@pytest.fixture
def stylized(tmp_path: Path, pieces: list[Path]) -> Path:
    """val/ with four class folders of 224×224 pictures."""
    for k, label in enumerate((0, 10, 100, 999)):
        (tmp_path / "val" / WNIDS[label]).mkdir(parents=True)
        for number in range(5):
            with Image.open(pieces[k + number]) as opened:
                fitted = ImageOps.fit(opened.convert("RGB"), (224, 224))
            fitted.save(tmp_path / "val" / WNIDS[label] / f"ILSVRC2012_val_{1 + 5 * k + number:08d}.JPEG")
    return tmp_path


def test_stylized_pictures_are_used_as_they_are(stylized: Path, clean: Dataset) -> None:
    with pytest.raises(DataError, match="has 4 of ImageNet's 1000 class folders"):
        load_dataset("imagenet-stylized", root=stylized)
    data = load_dataset("imagenet-stylized", root=stylized, partial=True)
    assert data.name.startswith("imagenet-stylized-part-") and set(data.labels) == {0, 10, 100, 999}
    assert data.ready_size == (224, 224) and [flag.name for flag in data.check()] == ["not-the-whole-set"]
    assert data.prepared_by(Preprocessing((224, 224), 256)) == Preprocessing((224, 224))
    resized = Preprocessing((160, 160), 182)
    assert data.prepared_by(resized) == resized
    assert [clean.ids[p] for p in data.positions] == list(data.ids)


def test_stylized_whole_pairs_with_imagenet(imagenet: Path, clean: Dataset) -> None:
    data = load_dataset("imagenet-stylized", root=imagenet / "tree")
    assert data.name == "imagenet-stylized" and data.ids == clean.ids and np.array_equal(data.labels, clean.labels)
    (flag,) = data.check()
    assert flag.name == "not-ready-made" and flag.level == "error" and "96×64" in flag.message
    assert [found.name for found in clean.check()] == ["resized-copies"]


def test_stylized_of_another_size_here_and_there(stylized: Path) -> None:
    file = stylized / "val" / WNIDS[10] / "ILSVRC2012_val_00000007.JPEG"
    with Image.open(file) as opened:
        larger = opened.resize((256, 256))
    larger.save(file)
    _, flag = load_dataset("imagenet-stylized", root=stylized, partial=True).check()
    assert flag.evidence == {"looked_at": 20, "others": 1, "size": [256, 256]}


def test_the_objects_of_imagenet_v() -> None:
    assert len(objects()) == 100 and len(set(objects().values())) < 100  # two hot dogs, three street signs …
    names = imagenet_classes().names
    assert names[objects()["apple_2"]] == "Granny Smith" and objects()["apple_2"] == 948  # as the authors say
    assert names[objects()["mic"]] == "microphone, mike" and names[objects()["glass"]] == "sunglass"


def objects_tree(base: Path, pieces: list[Path], count: int, prefix: str = "") -> Path:
    for place, name in enumerate(objects()):
        folder = base / f"{prefix}{name}" / "train"
        folder.mkdir(parents=True)
        for k in range(count // 100 + (place < count % 100)):
            os.link(pieces[k % 16], folder / f"{k}.jpg")
    return base


@pytest.mark.parametrize(("count", "name"), [(10_000, "imagenet-v"), (10_093, "imagenet-v-10093")])
def test_imagenet_v_by_object(tmp_path: Path, pieces: list[Path], count: int, name: str) -> None:
    data = load_dataset("imagenet-v", root=objects_tree(tmp_path, pieces, count))
    assert data.name == name and len(data) == count and data.check() == []
    assert all(objects()[i.split("/")[0]] == y for i, y in zip(data.ids, data.labels, strict=True))


def test_imagenet_v_in_part_and_by_list(tmp_path: Path, pieces: list[Path]) -> None:
    tree = objects_tree(tmp_path / "v", pieces, 200, prefix="3.14 ")
    with pytest.raises(DataError, match="there are 200 images here; ImageNet-V has 10,000 or 10,093"):
        load_dataset("imagenet-v", root=tree)
    data = load_dataset("imagenet-v", root=tree, partial=True)
    assert [flag.name for flag in data.check()] == ["not-the-whole-set"]
    assert dict(zip(data.ids, data.labels.tolist(), strict=True))["3.14 teapot/train/0.jpg"] == 849
    listed = tmp_path / "meta.txt"
    listed.write_text("3.14 teapot/train/0.jpg 849\n\n3.14 cup/train/1.jpg 968\n")
    some = load_dataset("imagenet-v", root=tree, labels_file=listed, partial=True)
    assert dict(zip(some.ids, some.labels.tolist(), strict=True)) == {
        "3.14 teapot/train/0.jpg": 849,
        "3.14 cup/train/1.jpg": 968,
    }
    some.picture(0)
    listed.write_text("3.14 teapot/train/0.jpg n04398044\n")
    with pytest.raises(DataError, match="line 1: expected `path label`"):
        load_dataset("imagenet-v", root=tree, labels_file=listed, partial=True)
    with pytest.raises(DataError, match="there is no list of labels"):
        load_dataset("imagenet-v", root=tree, labels_file=tmp_path / "nowhere.txt")
    (tree / "0").mkdir()
    with pytest.raises(DataError, match="no object of ImageNet-V: 0") as caught:
        load_dataset("imagenet-v", root=tree, partial=True)
    assert "imagenet-v2" in caught.value.remedy
    (tree / "0").rmdir()
    for file in (tree / "3.14 cup/train").iterdir():
        file.unlink()
    (tree / "3.14 cup/train").rmdir()
    (tree / "3.14 cup").rmdir()
    with pytest.raises(DataError, match="has 99 of ImageNet-V's 100 objects; missing: cup"):
        load_dataset("imagenet-v", root=tree)
