"""Published ``.npy`` files: opened without reading them whole, and never with pickles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aresbench.core.errors import DataError


def open_npy(path: Path, restore: str) -> np.ndarray:
    """A memory-mapped, read-only array.

    Args:
        path: the file.
        restore: what to do where it is missing or damaged.

    Raises:
        DataError: missing, cut short, or no plain array (a pickle could run code).
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}", restore) from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is no readable array: {error}", restore) from error


def open_pictures(path: Path, title: str, count: int, size: int, restore: str, meaning: str = "") -> np.ndarray:
    """A memory-mapped uint8 array [count, size, size, 3].

    Args:
        path: the file.
        title: the set's name for readers.
        count: how many pictures were published.
        size: their side in pixels.
        restore: where the published file comes from.
        meaning: why there are so many, for the error message.

    Raises:
        DataError: the type or the shape is not the published one.
    """
    x = open_npy(path, restore)
    if x.dtype != np.uint8:
        raise DataError(
            f"{path} holds numbers of type {x.dtype}; {title} is published as uint8, from 0 to 255",
            f"{restore}; pictures that were scaled or normalised cannot be brought back for certain",
        )
    if x.shape == (count, 3, size, size):
        raise DataError(
            f"{path} has its channels first, {list(x.shape)}; {title} is published as {[count, size, size, 3]}",
            f"{restore}, or save x.transpose(0, 2, 3, 1)",
        )
    if x.shape != (count, size, size, 3):
        reason = f" ({meaning})" if meaning else ""
        raise DataError(
            f"{path} holds an array of shape {list(x.shape)} where {title} has {[count, size, size, 3]}{reason}",
            f"{restore}; a part or a mixture of the published array is another dataset (npz:/path.npz reads your own)",
        )
    return x


def open_labels(path: Path, count: int, restore: str) -> np.ndarray:
    """int64 [count].

    Raises:
        DataError: the type or the length is not the published one.
    """
    y = open_npy(path, restore)
    if y.shape != (count,) or y.dtype.kind not in "iu":
        raise DataError(
            f"{path} holds an array of shape {list(y.shape)} and type {y.dtype}; it must be {count:,} integers", restore
        )
    return np.asarray(y, dtype=np.int64)
