"""Published order, views, and reading images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image, features

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError
from aresbench.core.preprocessing import Preprocessing
from aresbench.data.base import Dataset, Listing, load_images, published_order
from aresbench.data.load import load_dataset

SMALL = Preprocessing((16, 16), 16, "bilinear")


@dataclass(frozen=True, eq=False, repr=False)
class Toy(Dataset):
    """Twelve grey squares in three classes of unequal size."""

    title: ClassVar[str] = "toy"
    labels_: tuple[int, ...] = (0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2)
    ids_: tuple[str, ...] = tuple("abcdefghijkl")
    n_classes: int = 3

    def read(self) -> Listing:
        n = len(self.ids_)
        images = np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), dtype=np.uint8)
        return Listing("toy", Classes(tuple("xyz"[: self.n_classes])), self.ids_, np.array(self.labels_), images)


def test_published_order_is_the_order_of_hashes() -> None:
    toy = Toy()
    assert list(toy.ids) == sorted("abcdefghijkl", key=lambda i: hashlib.blake2b(i.encode(), digest_size=8).digest())
    assert toy.ids != tuple("abcdefghijkl")
    assert toy.positions.tolist() == list(range(12))
    for i, image_id in enumerate(toy.ids):  # label and picture follow the id
        place = "abcdefghijkl".index(image_id)
        assert toy.labels[i] == toy.labels_[place]
        assert np.asarray(toy.picture(i))[0, 0].tolist() == [place] * 3


def test_views_keep_ids_labels_positions_and_pictures() -> None:
    toy = Toy()
    view = toy[2:10][[5, 0, -1]]
    assert view.positions.tolist() == [7, 2, 9]
    assert view.ids == tuple(toy.ids[k] for k in (7, 2, 9))
    assert view.labels.tolist() == [toy.labels[k] for k in (7, 2, 9)]
    assert view.picture(0).tobytes() == toy.picture(7).tobytes()
    assert (view.name, view.classes, view.title) == (toy.name, toy.classes, toy.title)
    assert len(toy) == 12 and len(view) == 3 and len(toy[:0]) == 0 and len(toy[[]]) == 0
    assert repr(view) == "<toy: 3 images, 3 classes>"


def test_take_extends_and_balances() -> None:
    toy = Toy()
    assert toy.take(5).positions.tolist() == [0, 1, 2, 3, 4]
    six = toy.take(6, balanced=True)
    assert np.bincount(six.labels).tolist() == [2, 2, 2]
    # one round of all classes after the other, each round in published order; a larger n only adds
    assert sorted(six.labels[:3]) == sorted(six.labels[3:]) == [0, 1, 2]
    assert six.positions[:3].tolist() == sorted(six.positions[:3])
    assert toy.take(12, balanced=True).ids[:6] == six.ids
    assert np.bincount(toy.take(9, balanced=True).labels).tolist() == [4, 3, 2]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda d: d.take(13), "toy has 12 images here, 13 were asked for"),
        (lambda d: d.take(0), "at least 1"),
        (lambda d: d[[12]], "no image 12"),
        (lambda d: d[:3][[3]], "it has 3 images here"),
        (lambda d: d[[1, 1]], "twice"),
        (lambda d: d[[1, -11]], "twice"),
        (lambda d: d[[True, False]], "a slice or a list of places"),
        (lambda d: d[[0.5]], "a slice or a list of places"),
        (lambda d: load_images(d, [0], None, on_bad="ignore"), "on_bad is 'ignore'"),
    ],
)
def test_impossible_selections(ask, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ask(Toy())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_classes": 2}, r"2 labels are out of range; the first is 2 \(image 'k'\) where there are 2 classes"),
        ({"labels_": (-1,), "ids_": ("a",)}, "the first is -1"),
        ({"labels_": (0, 1), "ids_": ("a", "a")}, "the image id 'a' twice"),
        ({"labels_": (0, 1), "ids_": ("a",)}, "1 ids, 2 labels"),
        ({"labels_": (), "ids_": ()}, "no images"),
    ],
)
def test_listings_that_do_not_fit(settings: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        len(Toy(**settings))


def test_same_ids_same_order() -> None:
    ids = [f"val/{i}" for i in range(100)]
    order = published_order(ids)
    assert sorted(order) == list(range(100))
    shuffled = list(reversed(ids))
    assert [shuffled[k] for k in published_order(shuffled)] == [ids[k] for k in order]


@pytest.fixture
def broken(tmp_path: Path, photographs: list[Path]) -> Path:
    """A folder dataset in which one file is truncated, one is no picture, and one is a link to nowhere."""
    for k, source in enumerate(photographs[:8]):
        target = tmp_path / ("cat" if k % 2 else "dog") / source.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source.read_bytes())
    cut = tmp_path / "cat/01.jpg"
    cut.write_bytes(cut.read_bytes()[:-400])
    (tmp_path / "dog/04.jpg").write_text("no picture")
    (tmp_path / "cat/05.jpg").unlink()
    (tmp_path / "cat/05.jpg").symlink_to("nowhere.jpg")
    return tmp_path


def test_bad_files_are_named(broken: Path) -> None:
    data = load_dataset(f"folder:{broken}")
    for image_id, reason in [("cat/01.jpg", "truncated"), ("dog/04.jpg", "cannot identify"), ("cat/05.jpg", "no file")]:
        where = data.ids.index(image_id)
        with pytest.raises(DataError) as caught:
            data.picture(where)
        assert image_id in str(caught.value) and str(broken / image_id) in str(caught.value)
        assert reason in str(caught.value) and 'on_bad="skip"' in caught.value.remedy
    first = min(("cat/01.jpg", "dog/04.jpg", "cat/05.jpg"), key=data.ids.index)
    with pytest.raises(DataError, match=first):
        load_images(data, range(len(data)), SMALL)


def test_bad_files_are_left_out_only_when_asked(broken: Path) -> None:
    data = load_dataset(f"folder:{broken}")
    x, kept, bad = load_images(data, range(8), SMALL, on_bad="skip")
    assert x.shape == (5, 3, 16, 16) and len(kept) == 5 and len(bad) == 3
    assert {image_id for image_id, _ in bad} == {"cat/01.jpg", "dog/04.jpg", "cat/05.jpg"}
    assert {data.ids[i] for i in kept} | {i for i, _ in bad} == set(data.ids)
    assert all(str(broken / image_id) in reason for image_id, reason in bad)
    alone, _, _ = load_images(data, [kept[3]], SMALL)
    assert torch.equal(x[3], alone[0])
    empty, kept, bad = load_images(data, [data.ids.index("dog/04.jpg")], SMALL, on_bad="skip")
    assert empty.shape == (0, 3, 16, 16) and kept == [] and len(bad) == 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp", "bmp", "ppm"])
def test_every_truncated_format_is_reported(tmp_path: Path, photographs: list[Path], suffix: str) -> None:
    if suffix == "webp":
        assert features.check("webp")
    (tmp_path / "a").mkdir()
    file = tmp_path / f"a/1.{suffix}"
    with Image.open(photographs[0]) as opened:
        opened.save(file)
    whole = file.read_bytes()
    for share in (0.0, 0.02, 0.5, 0.9):
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match="cannot be read"):
            load_dataset(f"folder:{tmp_path}").picture(0)


def test_images_come_in_the_order_asked_for_as_float32() -> None:
    samples = load_dataset("samples")
    pre = Preprocessing((64, 64), 72)
    x, kept, bad = load_images(samples, [7, 2, 19], pre)
    assert x.dtype == torch.float32 and x.shape == (3, 3, 64, 64) and kept == [7, 2, 19] and bad == []
    assert x.min() >= 0 and 0.9 < x.max() <= 1
    for row, place in enumerate(kept):
        assert torch.equal(x[row], load_images(samples, [place], pre)[0][0])
    again, _, _ = load_images(samples[5:], [2], pre)
    assert torch.equal(again[0], x[0])


def test_pictures_of_different_sizes_need_a_preprocessing(broken: Path) -> None:
    with pytest.raises(DataError, match="different sizes"):
        load_images(load_dataset("samples"), range(20), None)
    with pytest.raises(DataError, match="takes 30×30"):
        load_images(load_dataset("digits"), [0], Preprocessing((30, 30)), on_bad="skip")


def test_a_single_place_is_no_view() -> None:
    with pytest.raises(DataError, match=r"data\[\[3\]\]"):
        load_dataset("digits")[3]  # type: ignore[index]
