"""Arrays in a .npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aresbench.core.errors import DataError
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset

X = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
Y = np.array([0, 2, 1, 0, 2, 1])


def save(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "mine.npz", **arrays)
    return f"npz:{folder / 'mine.npz'}"


def pixels(spec: str) -> np.ndarray:
    """uint8 [N, H, W, 3] in the order of the ids' numbers."""
    data = load_dataset(spec)
    x, _, _ = load_images(data, np.argsort(data.ids).tolist(), None)
    return (x * 255).round().numpy().astype(np.uint8).transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    "x",
    [
        X,
        X.transpose(0, 3, 1, 2),
        (X / 255).astype(np.float32),
        (X / 255).astype(np.float16),
        (X / 255).astype(np.float64).transpose(0, 3, 1, 2),
    ],
)
def test_layouts_and_types_give_the_same_pixels(tmp_path: Path, x: np.ndarray) -> None:
    spec = save(tmp_path, x=x, y=Y)
    assert np.array_equal(pixels(spec), X)
    assert load_dataset(spec).notes == ()


@pytest.mark.parametrize("x", [X[..., 0], X[..., :1], X[:, None, :, :, 0]])
def test_grey_is_repeated(tmp_path: Path, x: np.ndarray) -> None:
    assert np.array_equal(pixels(save(tmp_path, x=x, y=Y)), np.repeat(X[..., :1], 3, axis=3))


def test_ids_classes_and_labels(tmp_path: Path) -> None:
    data = load_dataset(save(tmp_path, x=X, y=Y.astype(np.uint8)))
    assert set(data.ids) == {f"{i:05d}" for i in range(6)} and data.classes.names == ("0", "1", "2")
    assert [Y[int(i)] for i in data.ids] == data.labels.tolist() and data.labels.dtype == np.int64
    names = np.array(["ape", "bear", "cow", "dog"])
    named = load_dataset(save(tmp_path, x=X, y=Y, classes=names, ids=np.array(list("abcdef"))))
    assert named.classes.names == tuple(names) and set(named.ids) == set("abcdef")


def test_the_name_follows_the_contents(tmp_path: Path) -> None:
    name = load_dataset(save(tmp_path, x=X, y=Y)).name
    assert load_dataset(save(tmp_path, x=(X / 255), y=Y)).name == name
    other = X.copy()
    other[0, 0, 0, 0] ^= 1
    assert load_dataset(save(tmp_path, x=other, y=Y)).name != name
    assert load_dataset(save(tmp_path, x=X, y=Y[::-1])).name != name


def test_rounding_to_8_bits_is_noted(tmp_path: Path) -> None:
    x = np.full((1, 4, 4, 3), 0.5, dtype=np.float32)
    spec = save(tmp_path, x=x, y=[0])
    assert load_dataset(spec).notes == ("floating-point pixels were rounded to 8 bits, by at most 0.5/255",)
    assert set(pixels(spec).ravel()) == {128}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X, "y": Y, "classes": ["a", "b"]}, "2 labels are out of range; the first is 2"),
        ({"x": X, "y": Y - 1}, "the first is -1"),
        ({"x": X, "y": Y[:5]}, "6 images but 5 labels"),
        ({"x": X, "y": Y[:, None]}, "one integer per image"),
        ({"x": X, "y": Y + 0.5}, "one integer per image"),
        ({"images": X, "y": Y}, "no array 'x'; it holds images, y"),
        ({"x": X, "Y": Y}, "no array 'y'"),
        ({"x": X / 255 * 2 - 1, "y": Y}, r"runs from -1 to 1; it must lie in \[0,1\]"),
        ({"x": X.astype(np.float32), "y": Y}, r"(?s)runs from 0 to 255.*divide by 255"),
        ({"x": np.full((1, 4, 4, 3), np.nan), "y": [0]}, "runs from nan"),
        ({"x": X.astype(np.int64), "y": Y}, "x has type int64"),
        ({"x": X[:, :3], "y": Y}, r"could be \[N, H, W, C\] or \[N, C, H, W\]"),
        ({"x": X[:, :, :, :2], "y": Y}, "no axis of 1 or 3 channels"),
        ({"x": X.reshape(6, -1), "y": Y}, r"x has shape \[6, 105\]"),
        ({"x": X[:0], "y": Y[:0]}, "holds no pixels"),
        ({"x": X, "y": Y, "ids": list("aabcde")}, "the image id 'a' twice"),
        ({"x": X, "y": Y, "ids": np.arange(6)}, "ids must be a list of texts"),
        ({"x": X, "y": Y, "classes": np.array(["a", "b", None])}, "Python objects"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(save(tmp_path, **arrays))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    with pytest.raises(DataError, match="there is no file"):
        load_dataset(f"npz:{path}")
    save(tmp_path, x=X, y=Y)
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2], whole[:200] + b"\0" * 40 + whole[240:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"not a readable .npz file(?!.*unsafe)"):
            load_dataset(f"npz:{path}")
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match="a single array"):
        load_dataset(f"npz:{path}")
