"""ImageNet-V2: numeric class folders, and every way in which they are got wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from aresbench.core.errors import DataError
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid
from aresbench.data.imagenet_v2 import VARIANTS, known_images, string_sorted
from aresbench.data.load import load_dataset

WNIDS = imagenet_classes().ids
FOLDER = "imagenetv2-matched-frequency-format-val"
Trees = Callable[[str], Path]
Make = Callable[..., Path]


def test_folders_are_numbers(shift: Trees) -> None:
    data = load_dataset("imagenet-v2", root=shift("imagenet-v2"))
    assert data.name == "imagenet-v2-matched-frequency" and len(data) == 10_000
    assert np.array_equal(np.bincount(data.labels), np.full(1000, 10))
    assert all(int(image_id.split("/")[0]) == label for image_id, label in zip(data.ids, data.labels, strict=True))
    truth = {name: index_of_wnid()[wnid] for name, wnid in known_images("matched-frequency").items()}
    found = {i.split("/")[1].split(".")[0]: y for i, y in zip(data.ids, data.labels.tolist(), strict=True)}
    assert {name: found[name] for name in truth} == truth
    assert data.check() == [] and data.parent == "imagenet"


def test_the_usual_reader_gets_988_classes_wrong(shift: Trees) -> None:
    usual = ImageFolder(str(shift("imagenet-v2") / FOLDER)).class_to_idx
    assert sum(int(name) != label for name, label in usual.items()) == 988
    assert all(string_sorted(int(name)) == label for name, label in usual.items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_variant_is_in_the_name(v2: Make, variant: str) -> None:
    folder = VARIANTS[variant][0]
    root = v2(variant, {k: str(k) for k in range(0, 1000, 9)}, folder).parent
    some = load_dataset(f"imagenet-v2(variant={variant}, root={root}, partial=true)")
    assert some.name.startswith(f"imagenet-v2-{variant}-part-") and len(some) == 1120
    other = next(v for v in VARIANTS if v != variant)
    with pytest.raises(DataError, match=f"is the variant {variant} by its name, and {other} was asked for") as caught:
        load_dataset("imagenet-v2", root=root / folder, variant=other, partial=True)
    assert f"variant={variant}" in caught.value.remedy
    with pytest.raises(DataError, match=f"has no folder .*; it has {folder}"):
        load_dataset("imagenet-v2", root=root, variant=other, partial=True)


def test_another_variant_under_a_neutral_name(v2: Make) -> None:
    index = index_of_wnid()
    labels = sorted(index[wnid] for wnid in known_images("top-images").values())
    folder = v2("top-images", {k: str(k) for k in labels}, "v2")
    with pytest.raises(DataError, match="holds the images of top-images, not of matched-frequency"):
        load_dataset("imagenet-v2", root=folder, partial=True)
    assert len(load_dataset("imagenet-v2", root=folder, variant="top-images", partial=True)) == 10 * len(labels)
    with pytest.raises(DataError, match="no variant 'top-image'") as caught:
        load_dataset("imagenet-v2", root=folder, variant="top-image")
    assert "'top-images'" in caught.value.remedy


def test_folders_renamed_to_wnids(shift: Trees, v2: Make) -> None:
    numeric = load_dataset("imagenet-v2", root=shift("imagenet-v2"))
    renamed = load_dataset("imagenet-v2", root=v2("matched-frequency", dict(enumerate(WNIDS))))
    assert renamed.name == numeric.name and renamed.ids == numeric.ids
    assert np.array_equal(renamed.labels, numeric.labels) and renamed.check() == []


def test_folders_renamed_in_the_order_of_texts(v2: Make) -> None:
    """One of the 24 lies right all the same: it is of one of the 12 classes that sort alike."""
    by_text = {label: WNIDS[place] for place, label in enumerate(sorted(range(1000), key=str))}
    with pytest.raises(DataError, match=r"are wrong: 23 of 24 images .* renamed in the order of texts") as caught:
        load_dataset("imagenet-v2", root=v2("matched-frequency", by_text))
    assert "0 to 999" in caught.value.remedy


def test_folders_in_any_other_wrong_order(v2: Make) -> None:
    backwards = {label: str(999 - label) for label in range(1000)}
    with pytest.raises(DataError, match="do not lie in their own classes' folders"):
        load_dataset("imagenet-v2", root=v2("matched-frequency", backwards))


def test_an_order_that_nothing_shows_is_said(v2: Make) -> None:
    folder = v2("matched-frequency", {label: WNIDS[label] for label in range(20)})
    _, flag = load_dataset("imagenet-v2", root=folder, partial=True).check()
    assert flag.name == "class-order-unknown" and flag.evidence == {"known_images": 0}
    numbers = v2("matched-frequency", {label: str(label) for label in range(20)}, "numbers")
    assert [f.name for f in load_dataset("imagenet-v2", root=numbers, partial=True).check()] == ["not-the-whole-set"]


def test_leading_zeros_and_wrong_numbers(shift: Trees, v2: Make) -> None:
    numeric = load_dataset("imagenet-v2", root=shift("imagenet-v2"))
    padded = load_dataset("imagenet-v2", root=v2("matched-frequency", {k: f"{k:03d}" for k in range(1000)}))
    assert padded.ids == numeric.ids and np.array_equal(padded.labels, numeric.labels)
    from_one = v2("matched-frequency", {k: str(k + 1) for k in (0, 1, 999)}, "from-one")
    with pytest.raises(DataError, match="has a class folder 1000"):
        load_dataset("imagenet-v2", root=from_one, partial=True)
    twice = v2("matched-frequency", {1: "1", 2: "01"}, "twice")
    with pytest.raises(DataError, match="twice, once with leading zeros"):
        load_dataset("imagenet-v2", root=twice, partial=True)
    mixed = v2("matched-frequency", {1: "1", 2: WNIDS[2]}, "mixed")
    with pytest.raises(DataError, match="1 folders that are no class of ImageNet-V2: 1"):
        load_dataset("imagenet-v2", root=mixed, partial=True)


def test_missing_folders_and_wrong_counts(v2: Make) -> None:
    folder = v2("matched-frequency", {k: str(k) for k in range(1000)})
    first = min((folder / "5").iterdir())
    first.rename(folder / "6" / first.name)
    with pytest.raises(DataError, match=r"2 classes in .* do not have 10 images, the first is 5 with 9"):
        load_dataset("imagenet-v2", root=folder)
    (folder / "6" / first.name).unlink()
    with pytest.raises(DataError, match="there are 9,999 images here; ImageNet-V2 has 10,000"):
        load_dataset("imagenet-v2", root=folder)
    for picture in (folder / "5").iterdir():
        picture.unlink()
    (folder / "5").rmdir()
    with pytest.raises(DataError, match="has 999 of ImageNet-V2's 1000 class folders; missing: 5"):
        load_dataset("imagenet-v2", root=folder)
    assert len(load_dataset("imagenet-v2", root=folder, partial=True)) == 9_990
