"""ObjectNet: the map, the three protocols against their formulas, the red border."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from aresbench.core.classes import match_classes
from aresbench.core.errors import DataError
from aresbench.data.base import load_images
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid
from aresbench.data.load import load_dataset
from aresbench.data.objectnet import kinds
from aresbench.ops.class_map import Reduction

Trees = Callable[[str], Path]
INDEX = index_of_wnid()


def test_the_map_is_the_published_one() -> None:
    """ImageNet index → ObjectNet's label number, as compact JSON with sorted keys."""
    numbers = {INDEX[wnid]: k for k, kind in enumerate(kinds()) for wnid in kind.wnids}
    text = json.dumps({str(i): numbers[i] for i in sorted(numbers)}, sort_keys=True, separators=(",", ":"))
    expected = "408d0ea8c8c35e56f2d33d34cb1adf30cb9fb5175ad0bbe7c7a1e26ed0a73d26"
    assert hashlib.sha256(text.encode()).hexdigest() == expected
    assert len(numbers) == 125 and len(set(numbers.values())) == 113 and len(kinds()) == 313


def test_label_numbers_follow_the_names_and_not_the_folders() -> None:
    assert [kind.name for kind in kinds()] == sorted(kind.name for kind in kinds())
    by_folder = sorted(kinds(), key=lambda kind: kind.folder)
    assert sum(a != b for a, b in zip(kinds(), by_folder, strict=True)) == 138
    bath_towel = next(kind for kind in kinds() if kind.folder == "full_sized_towel")
    assert imagenet_classes().names[INDEX[bath_towel.wnids[0]]] == "bath towel"


def numbers_of(logits: np.ndarray) -> np.ndarray:
    """The official map, written out: the model's class among 1,000 → ObjectNet's label number, or −1."""
    numbers = {INDEX[wnid]: k for k, kind in enumerate(kinds()) for wnid in kind.wnids}
    return np.array([numbers.get(int(k), -1) for k in logits.argmax(1)])


def right(protocol: str, shift: Trees, logits: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Which images the front door counts as right, and their folders."""
    data = load_dataset(f"objectnet(protocol={protocol}, root={shift('objectnet')})")
    assert data.name == f"objectnet-{protocol}" and data.standard is imagenet_classes()
    found = match_classes(data.classes, imagenet_classes(), subset=data.class_rule == "subset")
    chosen = Reduction(found)(torch.from_numpy(logits)).argmax(1).numpy()
    view = data[: len(logits)]
    return chosen == np.array(found.target)[view.labels], [image_id.split("/")[0] for image_id in view.ids]


def played(logits: np.ndarray, folders: list[str]) -> np.ndarray:
    """Logits under which every protocol has something to decide.

    Every third image's own class is high, where it has one (the last of several), and for every other of those a class
    that means nothing to ObjectNet is higher still.
    """
    unmapped = next(
        k for k in range(1000) if imagenet_classes().ids[k] not in {w for kind in kinds() for w in kind.wnids}
    )
    wnids = {kind.folder: kind.wnids for kind in kinds()}
    high = logits.copy()
    for row, folder in enumerate(folders):
        if row % 3 == 0 and wnids[folder]:
            high[row, INDEX[wnids[folder][-1]]] = 9.0
            high[row, unmapped] = 10.0 if row % 2 else 0.0
    return high


@pytest.mark.parametrize("protocol", ["official", "all-images"])
def test_choose_among_all_then_map(protocol: str, shift: Trees, logits: np.ndarray) -> None:
    """(a) over the 113 classes, (c) over all 313, with the official script's own arithmetic."""
    _, folders = right(protocol, shift, logits)
    high = played(logits, folders)
    number = {kind.folder: k for k, kind in enumerate(kinds())}
    got, _ = right(protocol, shift, high)
    expected = numbers_of(high) == np.array([number[folder] for folder in folders])
    assert np.array_equal(got, expected) and 20 < got.sum() < 100
    mapped = np.array([bool(kinds()[number[folder]].wnids) for folder in folders])
    assert mapped.all() == (protocol == "official") and not got[~mapped].any()


def test_choose_among_the_113_by_their_largest_output(shift: Trees, logits: np.ndarray) -> None:
    """(b) as imagenet-testbed and wise-ft do it."""
    _, folders = right("sublist", shift, logits)
    high = played(logits, folders)
    overlap = sorted((kind for kind in kinds() if kind.wnids), key=lambda kind: kind.folder)
    largest = np.stack([high[:, [INDEX[w] for w in kind.wnids]].max(1) for kind in overlap], axis=1)
    place = {kind.folder: k for k, kind in enumerate(overlap)}
    got, _ = right("sublist", shift, high)
    assert np.array_equal(got, largest.argmax(1) == np.array([place[folder] for folder in folders]))
    assert got[::3].all() and got.sum() < 150  # classes that mean nothing here do not stand in the way


def test_counts(shift: Trees) -> None:
    sizes = {p: load_dataset("objectnet", root=shift("objectnet"), protocol=p) for p in ("official", "all-images")}
    assert len(sizes["official"]) == 18_574 and len(sizes["official"].classes) == 113
    assert len(sizes["all-images"]) == 50_273 and len(sizes["all-images"].classes) == 313
    inside = load_dataset("objectnet", root=shift("objectnet") / "objectnet-1.0/images")
    assert inside.ids == sizes["official"].ids and inside.terms == "attribution"
    with pytest.raises(DataError, match="no protocol 'offical'") as caught:
        load_dataset("objectnet", root=shift("objectnet"), protocol="offical")
    assert "'official'" in caught.value.remedy


@pytest.fixture
def small(tmp_path: Path, framed: list[Path]) -> Path:
    """images/ with two of the 113 classes and one of the others, eight pictures each."""
    for folder in ("chair", "t-shirt", "air_freshener"):
        (tmp_path / "images" / folder).mkdir(parents=True)
        for k in range(8):
            os.link(framed[k], tmp_path / "images" / folder / f"{k}.png")
    return tmp_path


def test_a_part(small: Path) -> None:
    with pytest.raises(DataError, match="has 2 of ObjectNet's 113 class folders; missing: alarm_clock"):
        load_dataset("objectnet", root=small)
    some = load_dataset("objectnet", root=small, partial=True)
    assert len(some) == 16 and some.name.startswith("objectnet-official-part-")
    assert {some.classes.names[y] for y in some.labels} == {"Chair", "T-shirt"}
    everything = load_dataset("objectnet", root=small, protocol="all-images", partial=True)
    assert len(everything) == 24 and {everything.classes.names[y] for y in everything.labels} > {"Air freshener"}
    (small / "images/armchair").mkdir()
    with pytest.raises(DataError, match="1 folders that are no class of ObjectNet: armchair"):
        load_dataset("objectnet", root=small, partial=True)


def test_the_border_is_cut_off(small: Path, pieces: list[Path]) -> None:
    data = load_dataset("objectnet", root=small, partial=True)
    for i in range(8):
        with Image.open(pieces[int(Path(data.ids[i]).stem)]) as opened:
            inner = opened.convert("RGB").crop((1, 1, opened.width - 1, opened.height - 1))
        assert data.picture(i).size == inner.size and data.picture(i).tobytes() == inner.tobytes()
    assert data[3:5].picture(0).tobytes() == data.picture(3).tobytes()
    one = data[:1]
    x, _, _ = load_images(one, [0], None)
    assert tuple(x.shape[2:]) == data.picture(0).size[::-1]  # what a model gets is without the border too
    assert [flag.name for flag in data.check()] == ["not-the-whole-set"]


def test_a_border_that_is_gone_is_found(small: Path) -> None:
    for k, file in enumerate(sorted((small / "images").rglob("*.png"))):
        with Image.open(file) as opened:
            cut = ImageOps.crop(opened.convert("RGB"), 2)
        file.unlink()
        cut.save(file)
        if k == 7:
            break
    data = load_dataset("objectnet", root=small, partial=True, protocol="all-images")
    _, flag = data.check()
    assert flag.name == "border-cut-off" and flag.level == "warning"
    assert 0 < flag.evidence["without_border"] <= 8 and flag.evidence["looked_at"] == 16


def test_nothing_but_border(small: Path) -> None:
    file = small / "images/chair/0.png"
    file.unlink()
    Image.new("RGB", (4, 9), (255, 0, 0)).save(file)
    data = load_dataset("objectnet", root=small, partial=True)
    with pytest.raises(DataError, match="is 4×9: all border"):
        data.picture(data.ids.index("chair/0.png"))
