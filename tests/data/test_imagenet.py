"""ImageNet in both layouts, whole and in part, and everything that can be wrong with it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from aresbench.core.classes import Classes, match_classes
from aresbench.core.errors import DataError
from aresbench.data.imagenet import read_labels
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid
from aresbench.data.load import load_dataset

WNIDS = imagenet_classes().ids


def test_the_table_of_classes() -> None:
    classes = imagenet_classes()
    assert len(classes) == 1000 and list(WNIDS) == sorted(WNIDS)
    digest = hashlib.sha256("\n".join(WNIDS).encode()).hexdigest()
    assert digest == "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
    assert classes.names[0] == "tench, Tinca tinca" and classes.names[99] == "goose"
    assert index_of_wnid()["n01443537"] == 1


def test_every_name_means_one_class() -> None:
    nameless = Classes(imagenet_classes().names)  # no wnids: matched by text alone
    assert match_classes(nameless, nameless).rule == "identity"
    from torchvision.models import ResNet18_Weights

    short = list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    short.remove("Cardigan")  # the dog, which text alone cannot tell from the cardigan
    dog = index_of_wnid()["n02113186"]
    assert match_classes(Classes(tuple(short)), nameless).target == tuple(k for k in range(1000) if k != dog)


def test_both_layouts_are_the_same_dataset(imagenet: Path) -> None:
    tree, flat = load_dataset(f"imagenet:{imagenet / 'tree'}"), load_dataset("imagenet", root=imagenet / "flat/val")
    assert tree.name == flat.name == "imagenet"
    assert len(tree) == 50_000 and tree.ids == flat.ids
    assert np.array_equal(tree.labels, flat.labels)
    assert tree.classes == imagenet_classes()
    numbers = np.array([int(i.removeprefix("ILSVRC2012_val_")) for i in tree.ids])
    assert np.array_equal(tree.labels, 37 * numbers % 1000)
    assert tree.picture(0).tobytes() == flat.picture(0).tobytes() and tree.picture(0).size == (96, 64)
    balanced = tree.take(2000, balanced=True)
    assert np.bincount(balanced.labels).tolist() == [2] * 1000


def test_the_folder_from_the_environment(imagenet: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ARESBENCH_DATA", raising=False)
    with pytest.raises(DataError, match="neither root nor ARESBENCH_DATA"):
        load_dataset("imagenet")
    monkeypatch.setenv("ARESBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match="there is no folder") as caught:
        load_dataset("imagenet")
    assert "image-net.org" in caught.value.remedy
    (tmp_path / "imagenet").symlink_to(imagenet / "tree")
    assert len(load_dataset("imagenet")) == 50_000


@pytest.fixture
def part(imagenet: Path, tmp_path: Path) -> Path:
    """val/ with three of the class folders, as links."""
    for label in (0, 1, 999):
        shutil.copytree(imagenet / "tree/val" / WNIDS[label], tmp_path / "val" / WNIDS[label])
    return tmp_path


def test_a_part_keeps_its_places_and_gets_its_own_name(imagenet: Path, part: Path) -> None:
    with pytest.raises(DataError, match=rf"3 of ImageNet's 1000 class folders; missing: {WNIDS[2]}") as caught:
        load_dataset("imagenet", root=part)
    assert "partial=True" in caught.value.remedy and "folder:" in caught.value.remedy
    some, whole = load_dataset(f"imagenet(root={part}, partial=true)"), load_dataset("imagenet", root=imagenet / "tree")
    assert len(some) == 150 and some.name.startswith("imagenet-part-")
    assert [whole.ids[p] for p in some.positions] == list(some.ids)
    assert np.array_equal(whole.labels[some.positions], some.labels)
    assert np.all(np.diff(some.positions) > 0)
    (part / "val" / WNIDS[0] / "ILSVRC2012_val_00001000.JPEG").unlink()
    fewer = load_dataset("imagenet", root=part, partial=True)
    assert len(fewer) == 149 and fewer.name != some.name
    whole_by_name = load_dataset("imagenet", root=imagenet / "tree", partial=True)
    assert whole_by_name.name == "imagenet"


def test_one_missing_image_is_named(imagenet: Path, tmp_path: Path) -> None:
    tree = imagenet / "tree"
    gone = tree / "val" / WNIDS[37 * 293 % 1000] / "ILSVRC2012_val_00000293.JPEG"
    gone.rename(tmp_path / "kept.JPEG")
    try:
        with pytest.raises(DataError, match=r"49,999 of ImageNet's 50,000 images; missing: ILSVRC2012_val_00000293\n"):
            load_dataset("imagenet", root=tree)
    finally:
        (tmp_path / "kept.JPEG").rename(gone)


def test_images_in_a_wrong_folder(imagenet: Path) -> None:
    wrong, right = imagenet / "tree/val" / WNIDS[5], imagenet / "tree/val" / WNIDS[37]
    name = "ILSVRC2012_val_00000001.JPEG"
    (right / name).rename(wrong / name)
    try:
        with pytest.raises(DataError, match=rf"2 classes do not have .* the first is {WNIDS[5]} with 51"):
            load_dataset("imagenet", root=imagenet / "tree")
    finally:
        (wrong / name).rename(right / name)


def test_wrong_trees(part: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    val = part / "val"
    (val / ".hidden").mkdir()
    (val / WNIDS[0] / "notes.txt").write_text("not a picture")
    assert len(load_dataset("imagenet", root=part, partial=True)) == 150
    (val / "n01440765").mkdir()
    with pytest.raises(DataError, match="no class of ImageNet-1k: n01440765") as caught:
        load_dataset("imagenet", root=part, partial=True)
    assert "'n01440764'" in caught.value.remedy
    (val / "n01440765").rmdir()
    with pytest.raises(DataError, match="does not exist"):
        load_dataset("imagenet", root=part / "nowhere")
    with pytest.raises(DataError, match="is a file"):
        load_dataset("imagenet", root=val / WNIDS[0] / "notes.txt")
    (val / WNIDS[1] / "mine.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"'mine.jpg' is not a file name of ImageNet's validation set"):
        load_dataset("imagenet", root=part, partial=True)
    (val / WNIDS[1] / "mine.jpg").rename(val / WNIDS[1] / "ILSVRC2012_val_00050001.JPEG")
    with pytest.raises(DataError, match="00050001"):
        load_dataset("imagenet", root=part, partial=True)
    (val / WNIDS[1] / "ILSVRC2012_val_00050001.JPEG").unlink()
    shutil.copy(val / WNIDS[0] / "ILSVRC2012_val_00001000.JPEG", val / WNIDS[1])
    with pytest.raises(DataError, match="ILSVRC2012_val_00001000 is there twice"):
        load_dataset("imagenet", root=part, partial=True)
    with pytest.raises(DataError, match="holds no pictures"):
        load_dataset("imagenet", root=tmp_path_factory.mktemp("empty"))


def test_empty_class_folders(imagenet: Path, tmp_path: Path) -> None:
    for wnid in WNIDS:
        (tmp_path / wnid).mkdir()
    with pytest.raises(DataError, match=f"{WNIDS[0]} holds no picture"):
        load_dataset("imagenet", root=tmp_path)
    with pytest.raises(DataError, match="holds no picture of ImageNet"):
        load_dataset("imagenet", root=tmp_path, partial=True)


@pytest.fixture
def flat(tmp_path: Path, photographs: list[Path]) -> Path:
    (tmp_path / "val").mkdir()
    for number, photograph in enumerate(photographs[:3], 1):
        shutil.copy(photograph, tmp_path / f"val/ILSVRC2012_val_{number:08d}.JPEG")
    return tmp_path


def test_flat_lists_with_indices_and_wnids(flat: Path) -> None:
    with pytest.raises(DataError, match="is flat") as caught:
        load_dataset("imagenet", root=flat, partial=True)
    assert "labels_file" in caught.value.remedy
    mine = flat / "mine.txt"
    mine.write_text(f"val/ILSVRC2012_val_00000003.JPEG 7\nILSVRC2012_val_00000001 {WNIDS[999]}\n\n")
    with pytest.raises(DataError, match="the list of labels lacks ILSVRC2012_val_00000002"):
        load_dataset("imagenet", root=flat, labels_file=mine)
    data = load_dataset("imagenet", root=flat, labels_file=str(mine), partial=True)
    assert dict(zip(data.ids, data.labels.tolist(), strict=True)) == {
        "ILSVRC2012_val_00000003": 7,
        "ILSVRC2012_val_00000001": 999,
    }
    with pytest.raises(DataError, match="there is no list of labels"):
        load_dataset("imagenet", root=flat, labels_file=flat / "nowhere.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("490\n361\n171\n", "one label per line .* ambiguous"),
        (f"{WNIDS[0]}\n{WNIDS[1]}\n{WNIDS[2]}\n", "ambiguous"),
        ("ILSVRC2012_val_00000001.JPEG 1000\n", "line 1: '1000' is neither a wnid of ImageNet-1k nor an index"),
        ("ILSVRC2012_val_00000001.JPEG -1\n", "line 1: '-1' is neither"),
        ("\nILSVRC2012_val_00000001.JPEG n01440765\n", "line 2: 'n01440765' is neither"),
        ("ILSVRC2012_val_00000001.JPEG tench, Tinca\n", "line 1: expected `path label`"),
        ("ILSVRC2012_val_00000001.JPEG 1\nval/ILSVRC2012_val_00000001.JPEG 1\n", "line 2: .* comes twice"),
        ("cat.jpg 1\n", "'cat.jpg' is not a file name of ImageNet"),
    ],
)
def test_lists_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "val.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / "val.txt")


def test_bare_wnids_for_all_images_are_in_file_name_order(tmp_path: Path) -> None:
    path = tmp_path / "synset_labels.txt"
    path.write_text("".join(f"{WNIDS[37 * k % 1000]}\n" for k in range(1, 50_001)))
    labels = read_labels(path)
    assert len(labels) == 50_000 and labels["ILSVRC2012_val_00000293"] == 37 * 293 % 1000
    path.write_text("".join(f"{37 * k % 1000}\n" for k in range(1, 50_001)))
    with pytest.raises(DataError, match="ambiguous"):
        read_labels(path)
