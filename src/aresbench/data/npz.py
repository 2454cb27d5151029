"""Images as arrays in one NumPy file."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, did_you_mean
from aresbench.data.base import Dataset, Listing
from aresbench.data.local import relative_hint

_CHANNELS = (1, 3)


@dataclass(frozen=True, eq=False, repr=False)
class Npz(Dataset):
    """Images and labels from one ``.npz`` file: arrays ``x`` and ``y``, optionally ``classes`` and ``ids``.

    ``x`` is uint8, or floating point in [0,1] (rounded to 8 bits, and noted where that changes pixels), as
    [N, H, W, C], [N, C, H, W] or [N, H, W] with 1 or 3 channels. ``y`` holds integers from 0. ``classes`` holds one
    name per class; without it classes are called "0", "1", … up to the largest label. ``ids`` holds one text per
    image; without it ids are the places in the file. The dataset's name is a hash of the contents.

    Args:
        root: the file.
    """

    title: ClassVar[str] = "Arrays in a .npz file"
    licence: ClassVar[str] = "yours"
    terms: ClassVar[str] = "free"
    citation: ClassVar[str] = ""
    obtain: ClassVar[str] = "np.savez('mine.npz', x=images, y=labels, classes=names) and write npz:mine.npz"
    image_size: ClassVar[str] = "any, resized and cropped by a model's preprocessing"

    root: str | Path

    def read(self) -> Listing:
        path = Path(self.root).expanduser()
        arrays = _read(path)
        for key in ("x", "y"):
            if key not in arrays:
                found = ", ".join(arrays) or "nothing"
                raise DataError(
                    f"{path} has no array {key!r}; it holds {found}", did_you_mean(key, arrays) or "save x= and y="
                )
        x, notes = _pixels(arrays["x"], path)
        y = arrays["y"]
        if y.ndim != 1 or y.dtype.kind not in "iu":
            raise DataError(
                f"{path}: y has shape {list(y.shape)} and type {y.dtype}; it must be one integer per image",
                "save y.reshape(-1).astype('int64')",
            )
        if len(x) != len(y):
            raise DataError(f"{path}: {len(x)} images but {len(y)} labels")
        y = y.astype(np.int64)
        names = _texts(arrays, "classes", path) or tuple(str(k) for k in range(int(y.max(initial=-1)) + 1))
        ids = _texts(arrays, "ids", path) or tuple(f"{i:05d}" for i in range(len(x)))
        digest = hashlib.sha256(repr((x.shape, names, ids)).encode())
        digest.update(x.tobytes())
        digest.update(y.tobytes())
        return Listing(
            name=f"npz-{digest.hexdigest()[:8]}",
            classes=Classes(names),
            ids=ids,
            labels=y,
            images=x,
            notes=notes,
        )


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.is_dir():
        raise DataError(
            f"{path} is a folder", "name the .npz file itself; folder:/path reads pictures in class folders"
        )
    if not path.is_file():
        raise DataError(f"there is no file {path}", relative_hint(path))
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded as file:
                return {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise DataError(
                f"{path} holds Python objects, which could run code when loaded",
                "save plain arrays: numbers for x and y, texts as np.array(names, dtype=str)",
            ) from error
        # numpy takes every unknown file for a pickle, and advises to load it unsafely
        reason = "it is of another format" if "pickle" in str(error) else error
        raise DataError(f"{path} is not a readable .npz file: {reason}", "save it again with np.savez") from error
    raise DataError(f"{path} holds a single array", "save x and y together with np.savez")


def _texts(arrays: Mapping[str, np.ndarray], key: str, path: Path) -> tuple[str, ...]:
    if key not in arrays:
        return ()
    array = arrays[key]
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise DataError(f"{path}: {key} must be a list of texts, found type {array.dtype}, shape {list(array.shape)}")
    return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in array)


def _pixels(x: np.ndarray, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 [N, H, W] or [N, H, W, 3], and what had to be done for it."""
    if x.ndim == 4:
        last, first = x.shape[3] in _CHANNELS, x.shape[1] in _CHANNELS
        if last and first:
            raise DataError(
                f"{path}: x of shape {list(x.shape)} could be [N, H, W, C] or [N, C, H, W]",
                "save it as [N, H, W] (grey) or with sides other than 1 and 3",
            )
        if first:
            x = np.moveaxis(x, 1, 3)
        elif not last:
            raise DataError(f"{path}: x of shape {list(x.shape)} has no axis of 1 or 3 channels")
        if x.shape[3] == 1:
            x = x[..., 0]
    elif x.ndim != 3:
        raise DataError(f"{path}: x has shape {list(x.shape)}", "save images as [N, H, W, C] or [N, C, H, W]")
    if x.size == 0:
        raise DataError(f"{path}: x of shape {list(x.shape)} holds no pixels")
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x), ()
    if x.dtype.kind != "f":
        raise DataError(f"{path}: x has type {x.dtype}", "save uint8 (0–255) or floating point in [0,1]")
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # also true of NaN
        raise DataError(
            f"{path}: floating-point x runs from {low:g} to {high:g}; it must lie in [0,1]",
            "divide by 255"
            if 1 < high <= 255 and low >= 0
            else "undo the normalisation: mean and std belong to the model",
        )
    scaled = x.astype(np.float64) * 255
    rounded = np.rint(scaled)
    change = float(np.abs(scaled - rounded).max())
    note = f"floating-point pixels were rounded to 8 bits, by at most {change:.2g}/255"
    # float16 and float32 copies of 8-bit pixels miss the grid by their own rounding, which is no change
    off_grid = change > 255 * float(np.finfo(x.dtype).eps)
    return np.ascontiguousarray(rounded.astype(np.uint8)), (note,) if off_grid else ()
