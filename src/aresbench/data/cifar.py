"""CIFAR-10 from its published batch files."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, did_you_mean
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing
from aresbench.data.checksums import unlike_published
from aresbench.data.local import download, download_folder, given_folder, shared_folder

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FOLDER = "cifar-10-batches-py"
_BATCHES = {"test": ("test_batch",), "train": tuple(f"data_batch_{k}" for k in range(1, 6))}
_PUBLISHED = {
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}  # MD5

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
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR contains")
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
        batches = [read_batch(folder / name, "CIFAR-10", "labels", 10_000) for name in _BATCHES[self.split]]
        x = np.concatenate([pixels for pixels, _ in batches])
        return Listing(
            name="cifar10" if self.split == "test" else "cifar10-train",
            classes=Classes(CLASSES),
            ids=tuple(f"{self.split}/{i:05d}" for i in range(len(x))),
            labels=np.concatenate([labels for _, labels in batches]),
            images=x,
        )

    def check(self, n: int | None = None) -> list[Flag]:
        folder = self._folder()
        return unlike_published(
            {folder / name: _PUBLISHED[name] for name in _BATCHES[self.split]}, "CIFAR-10", self.obtain
        )

    def _folder(self) -> Path:
        return batch_folder("CIFAR-10", "cifar10", self.root, _FOLDER, "test_batch", _fetch)


def _fetch(folder: Path) -> None:
    from torchvision.datasets import CIFAR10 as Published

    Published(str(folder), train=False, download=True)


def batch_folder(
    title: str, name: str, root: str | Path | None, inside: str, probe: str, fetch: Callable[[Path], object]
) -> Path:
    """The folder of the published batch files: the one given, a local one, or a download.

    Args:
        title: the set's name for readers.
        name: its registered name.
        root: the folder that the user named.
        inside: the folder's name in the published archive.
        probe: a file that it must hold.
        fetch: downloads and unpacks the archive into a folder.

    Raises:
        DataError: it is not there, and could not be downloaded.
    """
    if root is not None:
        places = [given_folder(root)]
    else:
        places = [p for p in (shared_folder(name), download_folder(name)) if p is not None]
    for place in places:
        for folder in (place, place / inside):
            if (folder / probe).is_file():
                return folder
    if root is not None:
        raise DataError(f"{places[0]} does not hold {title}'s batch files", f"name the folder that holds {inside}")
    target = download_folder(name)
    download(title, target, fetch)
    return target / inside


def read_batch(path: Path, title: str, key: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [count, 32, 32, 3] and int64 [count] of one batch file; no code in it is run.

    Args:
        path: the file.
        title: the set's name for readers.
        key: under which name the labels are stored.
        count: images in the file.

    Raises:
        DataError: missing, damaged, or not what was published.
    """
    remedy = "remove the folder and load the dataset again, or restore the file"
    try:
        with path.open("rb") as file:
            batch = _ArrayUnpickler(file, encoding="latin1").load()
        x = np.asarray(batch["data"], dtype=np.uint8).reshape(count, 3, 32, 32)
        y = np.asarray(batch[key], dtype=np.int64).reshape(count)
    except FileNotFoundError:
        raise DataError(f"{title}'s file {path} is missing", remedy) from None
    except (OSError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not a batch file of {title}: {error}", remedy) from error
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)), y
