"""Fashion-MNIST from its published IDX files."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, did_you_mean
from aresbench.data.base import Dataset, Listing
from aresbench.data.local import download, download_folder, given_folder, shared_folder

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_PREFIX = {"test": "t10k", "train": "train"}
_RAW = Path("FashionMNIST/raw")  # where torchvision puts the files


@dataclass(frozen=True, eq=False, repr=False)
class FashionMNIST(Dataset):
    """70,000 grey photographs of clothes in 10 classes, 10,000 of them for testing (Xiao et al., 2017).

    Read from local files first: ``root``, ``$ARESBENCH_DATA/fashion-mnist``, Debian's package
    ``dataset-fashion-mnist``, the user's cache; else downloaded through torchvision. Ids are ``test/00017``.

    Args:
        root: folder that holds ``t10k-images-idx3-ubyte.gz`` and the like (or torchvision's folder above it).
        split: ``"test"`` or ``"train"``.
    """

    title: ClassVar[str] = "Fashion-MNIST"
    licence: ClassVar[str] = "MIT"
    terms: ClassVar[str] = "free"
    citation: ClassVar[str] = (
        "H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning "
        "Algorithms, 2017, arXiv:1708.07747"
    )
    obtain: ClassVar[str] = "apt install dataset-fashion-mnist (31 MB), else downloaded by torchvision"
    image_size: ClassVar[str] = "28×28 grey"
    standard_order: ClassVar[bool] = True

    root: str | Path | None = None
    split: str = "test"

    def read(self) -> Listing:
        if self.split not in _PREFIX:
            raise DataError(
                f"Fashion-MNIST has no split {self.split!r}",
                did_you_mean(self.split, _PREFIX) or "use 'test' or 'train'",
            )
        names = [f"{_PREFIX[self.split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
        images, labels = self._files(names)
        x, y = _read_idx(images, 3), _read_idx(labels, 1)
        if len(x) != len(y):
            raise DataError(f"{images} has {len(x)} images but {labels} {len(y)} labels", "restore the files")
        return Listing(
            name="fashion-mnist" if self.split == "test" else "fashion-mnist-train",
            classes=Classes(
                (
                    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
                    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
                )
            ),
            ids=tuple(f"{self.split}/{i:05d}" for i in range(len(x))),
            labels=y.astype(np.int64),
            images=x,
        )

    def _files(self, names: list[str]) -> list[Path]:
        target = download_folder("fashion-mnist")
        if self.root is not None:
            places = [given_folder(self.root)]
        else:
            shared = shared_folder("fashion-mnist")
            places = [*([shared] if shared else []), DEBIAN, target]
        for place in places:
            for folder in (place, place / _RAW):
                found = [p for name in names for p in (folder / f"{name}.gz", folder / name) if p.is_file()]
                if {p.name.removesuffix(".gz") for p in found} == set(names):
                    return [next(p for p in found if p.name.startswith(name)) for name in names]
        if self.root is not None:
            raise DataError(f"{places[0]} does not hold {names[0]}.gz and {names[1]}.gz", self.obtain)
        download("Fashion-MNIST", target, _fetch)
        return [target / _RAW / f"{name}.gz" for name in names]


def _fetch(folder: Path) -> None:
    from torchvision.datasets import FashionMNIST as Published

    Published(str(folder), train=False, download=True)


def _read_idx(path: Path, dims: int) -> np.ndarray:
    """The uint8 array of an IDX file: two zero bytes, type 8, number of axes, their sizes (big-endian), the values."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        header = 4 + 4 * dims
        shape = [int(size) for size in np.frombuffer(data[4:header], ">u4")]
        if data[:4] != bytes((0, 0, 8, dims)) or len(shape) != dims:
            raise ValueError("its first bytes are not those of such a file")
        return np.frombuffer(data[header:], np.uint8).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is not a readable IDX file: {error}", "restore the file") from error
