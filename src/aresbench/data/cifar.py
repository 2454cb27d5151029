"""CIFAR-10 from its published batch files."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, did_you_mean
from aresbench.data.base import Dataset, Listing
from aresbench.data.local import download, download_folder, given_folder, shared_folder

_FOLDER = "cifar-10-batches-py"
_BATCHES = {"test": ("test_batch",), "train": tuple(f"data_batch_{k}" for k in range(1, 6))}
_SIZE = 10_000

# All that the published batches contain besides plain values; anything else could run code.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR-10 contains")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


@dataclass(frozen=True, eq=False, repr=False)
class CIFAR10(Dataset):
    """60,000 small colour photographs of 10 classes, 10,000 of them for testing (Krizhevsky, 2009).

    Read from local files first: the folder ``cifar-10-batches-py`` in ``root``, in ``$ARESBENCH_DATA/cifar10`` or in
    the user's cache; else downloaded through torchvision. Ids are ``test/00017``, the places in the published files.

    Args:
        root: folder that holds ``cifar-10-batches-py``, or that folder itself.
        split: ``"test"`` or ``"train"``.
    """

    title: ClassVar[str] = "CIFAR-10"
    licence: ClassVar[str] = "no explicit licence; free for research with citation"
    terms: ClassVar[str] = "unclear"
    citation: ClassVar[str] = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
    obtain: ClassVar[str] = "local files in root or ARESBENCH_DATA/cifar10, else downloaded by torchvision (170 MB)"
    image_size: ClassVar[str] = "32×32 RGB"
    standard_order: ClassVar[bool] = True

    root: str | Path | None = None
    split: str = "test"

    def read(self) -> Listing:
        if self.split not in _BATCHES:
            raise DataError(
                f"CIFAR-10 has no split {self.split!r}",
                did_you_mean(self.split, _BATCHES) or "use 'test' or 'train'",
            )
        folder = self._folder()
        batches = [_read_batch(folder / name) for name in _BATCHES[self.split]]
        x = np.concatenate([pixels for pixels, _ in batches])
        names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
        return Listing(
            name="cifar10" if self.split == "test" else "cifar10-train",
            classes=Classes(tuple(names)),
            ids=tuple(f"{self.split}/{i:05d}" for i in range(len(x))),
            labels=np.concatenate([labels for _, labels in batches]),
            images=x,
        )

    def _folder(self) -> Path:
        if self.root is not None:
            places = [given_folder(self.root)]
        else:
            places = [p for p in (shared_folder("cifar10"), download_folder("cifar10")) if p is not None]
        for place in places:
            for folder in (place, place / _FOLDER):
                if (folder / "test_batch").is_file():
                    return folder
        if self.root is not None:
            raise DataError(
                f"{places[0]} does not hold CIFAR-10's batch files", f"name the folder that holds {_FOLDER}"
            )
        target = download_folder("cifar10")
        download("CIFAR-10", target, _fetch)
        return target / _FOLDER


def _fetch(folder: Path) -> None:
    from torchvision.datasets import CIFAR10 as Published

    Published(str(folder), train=False, download=True)


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [10000, 32, 32, 3] and int64 [10000] of one batch file."""
    remedy = "remove the folder and load the dataset again, or restore the file"
    try:
        with path.open("rb") as file:
            batch = _ArrayUnpickler(file, encoding="latin1").load()
        x = np.asarray(batch["data"], dtype=np.uint8).reshape(_SIZE, 3, 32, 32)
        y = np.asarray(batch["labels"], dtype=np.int64).reshape(_SIZE)
    except FileNotFoundError:
        raise DataError(f"CIFAR-10's file {path} is missing", remedy) from None
    except (OSError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not a batch file of CIFAR-10: {error}", remedy) from error
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)), y
