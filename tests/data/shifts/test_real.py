"""ImageNet ReaL: sets of right labels, images without any, and lists of the wrong length, order or contents."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

from aresbench.core.errors import DataError
from aresbench.data.base import Dataset
from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.imagenet_real import PUBLISHED, digest_of_sets, read_label_sets
from aresbench.data.load import load_dataset

WNIDS = imagenet_classes().ids


@pytest.fixture(scope="session")
def published() -> list[list[int]]:
    """The published list, from timm's copy."""
    timm = importlib.util.find_spec("timm")
    assert timm is not None and timm.origin is not None
    return read_label_sets(Path(timm.origin).parent / "data/_info/imagenet_real_labels.json")


def labels_of(sets: list[list[int]], path: Path) -> Path:
    """A list of single labels that agrees with label sets; images without a set are class 0."""
    lines = [f"ILSVRC2012_val_{k:08d}.JPEG {(labels or [0])[0]}\n" for k, labels in enumerate(sets, 1)]
    path.write_text("".join(lines))
    return path


def test_the_published_list(published: list[list[int]]) -> None:
    assert digest_of_sets(published) == PUBLISHED
    counts = np.array([len(labels) for labels in published])
    assert (len(counts), np.sum(counts > 0), np.sum(counts == 0), np.sum(counts > 1)) == (50_000, 46_837, 3_163, 7_443)
    assert published[:3] == [[], [970, 795], [230, 231]]  # as printed on the authors' page


@pytest.fixture(scope="session")
def whole(imagenet: Path, published: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The flat ImageNet of the tests, listed with labels that agree with the published sets."""
    labels = labels_of(published, tmp_path_factory.mktemp("labels") / "val.txt")
    return load_dataset("imagenet-real", root=imagenet / "flat/val", labels_file=labels)


def test_every_right_label_is_accepted(whole: Dataset, published: list[list[int]]) -> None:
    assert whole.name == "imagenet-real" and len(whole) == 46_837 and whole.parent == "imagenet"
    assert "3163 images" in whole.notes[0]
    assert whole.accepted is not None and sum(len(labels) > 1 for labels in whole.accepted) == 7_443
    for image_id, label, accepted in zip(whole.ids[:2000], whole.labels[:2000], whole.accepted[:2000], strict=True):
        labels = published[int(image_id[-8:]) - 1]
        assert accepted == tuple(labels) and label == labels[0]
    assert "ILSVRC2012_val_00000001" not in whole.ids and "ILSVRC2012_val_00000002" in whole.ids
    assert whole[5:7].accepted == whole.accepted[5:7]
    assert [flag.name for flag in whole.check(8)] == ["resized-copies"]  # this tree's pictures are 96×64 throughout


def test_a_list_of_ones_own_has_a_name_of_its_own(imagenet: Path, tmp_path: Path) -> None:
    sets = [[37 * k % 1000] if k % 2 else [] for k in range(1, 50_001)]
    (tmp_path / "val").symlink_to(imagenet / "tree/val")
    (tmp_path / "real.json").write_text(json.dumps(sets, indent=1))  # found beside the folder
    data = load_dataset("imagenet-real", root=tmp_path)
    assert data.name == f"imagenet-real-{digest_of_sets(sets)[:8]}" and len(data) == 25_000
    flag = next(flag for flag in data.check(1) if flag.name == "labels-not-published")
    assert flag.level == "warning" and flag.evidence["labelled"] == 25_000 and "46,837" in flag.message


def some_images(base: Path, labels: list[int], pieces: list[Path]) -> Path:
    """The first images of ImageNet in the class folders of some labels."""
    for k, label in enumerate(labels):
        folder = base / "val" / WNIDS[label]
        folder.mkdir(parents=True, exist_ok=True)
        os.link(pieces[k % 16], folder / f"ILSVRC2012_val_{k + 1:08d}.JPEG")
    return base


def test_a_part(whole: Dataset, pieces: list[Path], tmp_path: Path, published: list[list[int]]) -> None:
    root = some_images(tmp_path, [(labels or [0])[0] for labels in published[:300]], pieces)
    with pytest.raises(DataError, match="class folders; missing"):
        load_dataset("imagenet-real", root=root)
    some = load_dataset("imagenet-real", root=root, partial=True)
    labelled = sum(1 for labels in published[:300] if labels)
    assert len(some) == labelled < 300 and some.name.startswith("imagenet-real-part-")
    assert [flag.name for flag in some.check()] == ["not-the-whole-set"]
    assert [whole.ids[p] for p in some.positions] == list(some.ids)


def test_a_list_in_another_order_is_refused(pieces: list[Path], tmp_path: Path, published: list[list[int]]) -> None:
    root = some_images(tmp_path, [(labels or [0])[0] for labels in published[:300]], pieces)
    walked = sorted(range(50_000), key=lambda k: (published[k] or [1000])[0])  # class by class
    path = tmp_path / "walked.json"
    path.write_text(json.dumps([published[k] for k in walked]))
    with pytest.raises(DataError, match=r"walked\.json is in another order than the images: only 1%") as caught:
        load_dataset("imagenet-real", root=root, real_labels=path, partial=True)
    assert "file names" in caught.value.remedy


def test_folders_with_wrong_images_are_refused(pieces: list[Path], tmp_path: Path) -> None:
    root = some_images(tmp_path, [7 * k % 1000 for k in range(300)], pieces)
    with pytest.raises(DataError, match=r"imagenet_real_labels\.json is in another order than the images"):
        load_dataset("imagenet-real", root=root, partial=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[1], [2]]", "has 2 label sets for ImageNet's 50,000 images"),
        ('{"1": [2]}', "is no list of label sets"),
        ("[1, 2]", "is no list of label sets"),
        ("[[1], ", "cannot be read"),
        (json.dumps([[1]] * 49_999 + [[1000]]), r"label set of image 50000 is \[1000\]"),
        (json.dumps([["n01440764"]] + [[1]] * 49_999), "label set of image 1 "),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "real.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_label_sets(path)
    assert "published real.json" in caught.value.remedy


def test_no_such_list(pieces: list[Path], tmp_path: Path) -> None:
    root = some_images(tmp_path, [0], pieces)
    with pytest.raises(DataError, match="there is no list of label sets"):
        load_dataset("imagenet-real", root=root, real_labels=tmp_path / "nowhere.json", partial=True)
