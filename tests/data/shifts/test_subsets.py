"""ImageNet-A and -R and their clean counterparts: masks, labels, names, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aresbench.core.classes import match_classes
from aresbench.core.errors import DataError
from aresbench.data.base import Dataset
from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.imagenet_subsets import subset_classes, subset_indices
from aresbench.data.load import load_dataset
from aresbench.ops.class_map import Reduction

WNIDS = imagenet_classes().ids
Trees = Callable[[str], Path]

# SHA-256 of the indices as compact JSON, [6,11,13,…], computed from the authors' own masks.
MASKS = {
    "A": "e5ce3e8a08365ce06111d9762b64b11eba26be290d3283c92e1d68c31b38d963",
    "R": "3e907704eb85df5dc454d4c1a68429f9d71a4711555026eccd8bdf7b568ed6f2",
}


@pytest.mark.parametrize("letter", MASKS)
def test_the_masks_are_the_published_ones(letter: str) -> None:
    indices = subset_indices(letter)
    digest = hashlib.sha256(json.dumps(indices, separators=(",", ":")).encode()).hexdigest()
    assert digest == MASKS[letter]
    assert subset_classes(letter).ids == tuple(WNIDS[k] for k in indices)
    assert list(subset_classes(letter).ids) == sorted(subset_classes(letter).ids)
    import timm.data

    with open(
        os.path.join(os.path.dirname(timm.data.__file__), f"_info/imagenet_{letter.lower()}_synsets.txt")
    ) as file:
        assert file.read().split() == list(subset_classes(letter).ids)


def test_the_two_share_86_classes() -> None:
    assert len(set(subset_indices("A")) & set(subset_indices("R"))) == 86


@pytest.mark.parametrize(("name", "count"), [("imagenet-a", 7_500), ("imagenet-r", 30_000)])
def test_labels_are_positions_in_the_mask(shift: Trees, name: str, count: int) -> None:
    data = load_dataset(name, root=shift(name))  # the parent of the folder; the folder itself below
    assert data.name == name and len(data) == count and len(data.classes) == 200
    for image_id, label in zip(data.ids[:500], data.labels[:500], strict=True):
        assert image_id.split("/")[0] == data.classes.ids[label]
    again = load_dataset(f"{name}:{shift(name) / name}")
    assert again.ids == data.ids and np.array_equal(again.labels, data.labels)
    assert data.parent == f"{name}-clean" and data.terms == "unclear"


def test_a_model_chooses_among_200_or_1000(shift: Trees, logits: np.ndarray) -> None:
    masked = load_dataset("imagenet-a", root=shift("imagenet-a"))
    free = load_dataset(f"imagenet-a(root={shift('imagenet-a')}, rule=full)")
    assert (masked.name, free.name) == ("imagenet-a", "imagenet-a-1000-way")
    assert masked.ids == free.ids and masked.standard is free.standard is imagenet_classes()
    index = list(subset_indices("A"))
    labels = masked.labels[: len(logits)]

    def right(data: Dataset, rule: str) -> np.ndarray:
        assert data.class_rule == rule
        found = match_classes(data.classes, imagenet_classes(), subset=rule == "subset")
        chosen = Reduction(found)(torch.from_numpy(logits)) if found.outputs else torch.from_numpy(logits)
        return chosen.argmax(1).numpy() == np.array(found.target)[labels]

    expected = logits[:, index].argmax(1) == labels
    assert np.array_equal(right(masked, "subset"), expected)
    assert np.array_equal(right(free, "full"), logits.argmax(1) == np.array(index)[labels])
    with pytest.raises(DataError, match="no rule 'subst'") as caught:
        load_dataset("imagenet-a", root=shift("imagenet-a"), rule="subst")
    assert "'subset'" in caught.value.remedy


@pytest.fixture
def part(shift: Trees, tmp_path: Path) -> Path:
    """Three class folders of ImageNet-A."""
    for wnid in subset_classes("A").ids[:3]:
        shutil.copytree(shift("imagenet-a") / "imagenet-a" / wnid, tmp_path / "a" / wnid, copy_function=os.link)
    return tmp_path / "a"


def test_a_part_gets_a_name_of_its_own(part: Path) -> None:
    with pytest.raises(DataError, match="has 3 of ImageNet-A's 200 class folders; missing: n01558993") as caught:
        load_dataset("imagenet-a", root=part)
    assert "partial=True" in caught.value.remedy
    some = load_dataset("imagenet-a", root=part, partial=True)
    assert some.name.startswith("imagenet-a-part-") and len(some) == 114 and set(some.labels) == {0, 1, 2}
    next((part / WNIDS[6]).iterdir()).unlink()
    assert load_dataset("imagenet-a", root=part, partial=True).name != some.name


def test_a_wrong_count_is_refused(shift: Trees, tmp_path: Path) -> None:
    tree = shift("imagenet-a") / "imagenet-a"
    extra = tree / WNIDS[6] / "one_too_many.jpg"
    os.link(next((tree / WNIDS[11]).iterdir()), extra)
    try:
        with pytest.raises(DataError, match="there are 7,501 images here; ImageNet-A has 7,500"):
            load_dataset("imagenet-a", root=tree)
        assert load_dataset("imagenet-a", root=tree, partial=True).name.startswith("imagenet-a-part-")
    finally:
        extra.unlink()


def test_another_set_in_its_place_is_named(shift: Trees, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="200 class folders of ImageNet-R, not the 200 of ImageNet-A"):
        load_dataset("imagenet-a", root=shift("imagenet-r") / "imagenet-r")
    with pytest.raises(DataError, match="1,000 class folders of ImageNet or ImageNet-Sketch") as caught:
        load_dataset("imagenet-r", root=shift("imagenet-sketch") / "sketch")
    assert "imagenet-r-clean" in caught.value.remedy
    for wnid in (WNIDS[6], WNIDS[0]):
        (tmp_path / wnid).mkdir()
    with pytest.raises(DataError, match=f"1 folders that are no class of ImageNet-A: {WNIDS[0]}"):
        load_dataset("imagenet-a", root=tmp_path, partial=True)


def test_empty_folders_and_no_folder(part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for picture in (part / WNIDS[6]).iterdir():
        picture.unlink()
    assert len(load_dataset("imagenet-a", root=part, partial=True)) == 76
    for wnid in subset_classes("A").ids[3:]:
        (part / wnid).mkdir()
    with pytest.raises(DataError, match=f"class folder .*{WNIDS[6]} holds no picture"):
        load_dataset("imagenet-a", root=part)
    monkeypatch.delenv("ARESBENCH_DATA", raising=False)
    with pytest.raises(DataError, match="ImageNet-R is not on this machine") as caught:
        load_dataset("imagenet-r")
    assert "hendrycks" in caught.value.remedy
    monkeypatch.setenv("ARESBENCH_DATA", str(tmp_path))
    (tmp_path / "imagenet-a").mkdir()
    (tmp_path / "imagenet-a/imagenet-a").symlink_to(part)  # as the archive unpacks
    assert len(load_dataset("imagenet-a", partial=True)) == 76


@pytest.mark.parametrize("letter", MASKS)
def test_clean_counterparts(imagenet: Path, letter: str) -> None:
    name = f"imagenet-{letter.lower()}-clean"
    tree = load_dataset(name, root=imagenet / "tree")
    assert tree.name == name and len(tree) == 10_000 and tree.class_rule == "subset" and tree.parent == ""
    numbers = np.array([int(i[-8:]) for i in tree.ids])
    index = np.array(subset_indices(letter))
    assert np.array_equal(index[tree.labels], 37 * numbers % 1000)
    assert tree.classes == subset_classes(letter)
    assert load_dataset(name, root=imagenet / "tree", rule="full").name == f"{name}-1000-way"


def test_clean_photographs_in_a_flat_folder(imagenet: Path) -> None:
    tree, flat = (load_dataset("imagenet-a-clean", root=imagenet / kind) for kind in ("tree", "flat"))
    assert tree.name == flat.name and tree.ids == flat.ids and np.array_equal(tree.labels, flat.labels)


def test_two_hundred_folders_of_imagenet_are_enough(imagenet: Path, clean: Dataset, tmp_path: Path) -> None:
    for wnid in subset_classes("A").ids:
        (tmp_path / wnid).symlink_to(imagenet / "tree/val" / wnid)
    whole = load_dataset("imagenet-a-clean", root=imagenet / "tree")
    assert load_dataset("imagenet-a-clean", root=tmp_path).ids == whole.ids
    with pytest.raises(DataError, match="has 86 of ImageNet's 200 class folders"):
        load_dataset("imagenet-r-clean", root=tmp_path)
    (tmp_path / subset_classes("A").ids[0]).unlink()
    some = load_dataset("imagenet-a-clean", root=tmp_path, partial=True)
    assert some.name.startswith("imagenet-a-clean-part-") and len(some) == 9_950
    assert [clean.ids[p] for p in some.positions] == list(some.ids)


def test_one_photograph_too_few_and_one_in_a_wrong_folder(imagenet: Path, tmp_path: Path) -> None:
    for wnid in subset_classes("A").ids:
        (tmp_path / wnid).symlink_to(imagenet / "tree/val" / wnid)
    first, second = subset_classes("A").ids[:2]
    for wnid in (first, second):
        (tmp_path / wnid).unlink()
        shutil.copytree(imagenet / "tree/val" / wnid, tmp_path / wnid, copy_function=os.link)
    moved = next((tmp_path / first).iterdir())
    moved.rename(tmp_path / second / moved.name)
    with pytest.raises(DataError, match=f"2 classes do not have .* the first is {first} with 49"):
        load_dataset("imagenet-a-clean", root=tmp_path)
    (tmp_path / second / moved.name).unlink()
    with pytest.raises(DataError, match="has 9,999 of the 10,000 photographs"):
        load_dataset("imagenet-a-clean", root=tmp_path)


def test_resized_copies_are_found(shift: Trees, part: Path) -> None:
    data = load_dataset("imagenet-a", root=shift("imagenet-a"))
    assert data.check() == []
    for file in part.rglob("*.jpg"):
        with Image.open(file) as opened:
            small = opened.convert("RGB").resize((2 * opened.width * 64 // opened.height, 64))
        file.unlink()
        small.save(file)
    part_of_it, found = load_dataset("imagenet-a", root=part, partial=True).check()
    assert found.name == "resized-copies" and found.level == "warning" and found.evidence["looked_at"] == 64
    assert "shorter side of 64 pixels" in found.message
    assert part_of_it.level == "info" and part_of_it.evidence == {"images": 114, "published": [7500]}
    for file in part.rglob("*.jpg"):
        with Image.open(file) as opened:
            square = opened.resize((64, 64))
        square.save(file)
    _, found = load_dataset("imagenet-a", root=part, partial=True).check(n=10)
    assert "64×64" in found.message and found.evidence["looked_at"] == 10
    few = load_dataset("imagenet-a", root=part, partial=True).check(n=7)  # too few to tell
    assert [flag.name for flag in few] == ["not-the-whole-set"]
