"""What a dataset is: labelled images with stable ids in a fixed, published order."""

from __future__ import annotations

import copy
import hashlib
import io
import os
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from PIL import Image

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError
from aresbench.core.flag import Flag
from aresbench.core.preprocessing import Preprocessing
from aresbench.data.spans import Span
from aresbench.ops.resize import apply, to_rgb

if TYPE_CHECKING:
    from torch import Tensor

# What Pillow raises on broken files, by format and place in the file.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def published_order(ids: Sequence[str]) -> np.ndarray:
    """The places of ``ids`` sorted by the BLAKE2b hash of each id: a fixed order, and a random one.

    The first n images are therefore a random sample. The order depends on the ids alone, so that a dataset
    with the same ids as another (a corrupted copy) has its images in the same order.
    """
    joined = b"".join(hashlib.blake2b(image_id.encode(), digest_size=8).digest() for image_id in ids)
    digests = np.frombuffer(joined, ">u8").astype(np.uint64)  # as numbers they stand in the order of their bytes
    order = np.argsort(digests, kind="stable").astype(np.int64)
    if np.any(np.diff(digests[order]) == 0):
        return np.array(sorted(range(len(ids)), key=lambda k: (digests[k], ids[k])), dtype=np.int64)
    return order


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of a dataset by name, label and place, before any is decoded.

    Args:
        name: canonical name without machine paths; it enters the keys of results.
        classes: the classes that ``labels`` point into.
        ids: one stable id per image, unique.
        labels: int64 [n].
        images: one file path, one ``Span`` of a larger file or one uint8 array [H, W] or [H, W, 3] per image.
        positions: int64 [n], the places of these images in the published order of the whole dataset, where
            the files at hand are only a part of it; by default the order of the ids given here.
        notes: what a reader of the results should know about how the files were read.
        accepted: for each image every label that counts as right, where there may be several; ``labels`` holds the
            first of them.

    Raises:
        DataError: no image, doubled ids, labels that are not in range.
    """

    name: str
    classes: Classes
    ids: tuple[str, ...]
    labels: np.ndarray
    images: Sequence[Path | Span | np.ndarray] | Sequence[Path] | Sequence[Span] | np.ndarray
    positions: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    accepted: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        n = len(self.ids)
        if n == 0:
            raise DataError(f"{self.name} has no images")
        if len(self.labels) != n or len(self.images) != n:
            raise DataError(f"{self.name}: {n} ids, {len(self.labels)} labels and {len(self.images)} images")
        if len(set(self.ids)) != n:
            seen: set[str] = set()
            twice = next(i for i in self.ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise DataError(f"{self.name} has the image id {twice!r} twice", "each image needs an id of its own")
        if self.accepted is not None:
            if len(self.accepted) != n or any(y not in a for y, a in zip(self.labels, self.accepted, strict=True)):
                raise DataError(f"{self.name}: each image's label must be among those that count as right")
            if max(map(max, self.accepted)) >= len(self.classes) or min(map(min, self.accepted)) < 0:
                raise DataError(f"{self.name}: labels that count as right are out of range")
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
        if len(wrong):
            first = int(wrong[0])
            raise DataError(
                f"{self.name}: {len(wrong)} labels are out of range; the first is {self.labels[first]} "
                f"(image {self.ids[first]!r}) where there are {len(self.classes)} classes",
                f"labels count from 0 to {len(self.classes) - 1}; check for labels that start at 1",
            )


class Dataset(ABC):
    """Labelled images with stable ids in a published order; slices and lists of places give views of it.

    A new dataset is one class: its facts (the literals below), its settings as fields of a frozen dataclass, and
    ``read``. Nothing is decoded before ``picture`` or ``load_images`` asks for it.

    Facts of the class:
        title, licence, citation, obtain, image_size: its card, for readers.
        terms: what the licence allows: ``free`` (commercial use too), ``attribution`` (commercial use with the
            authors named), ``non-commercial``, or ``unclear``.
        standard_order: is the class index order a public standard (ImageNet's, CIFAR-10's)?
        class_rule: does a model choose among all of its outputs (``full``), or among the classes of these data
            alone (``subset``, a mask)?
        ready_size: (height, width) at which the pictures are published to be used as they are: a model of this
            input size takes them without resize and crop.
        parent: of a shift, the registered dataset that its accuracy is compared with.
    """

    title: ClassVar[str]
    licence: ClassVar[str]
    citation: ClassVar[str]
    obtain: ClassVar[str]
    image_size: ClassVar[str]
    terms: ClassVar[str] = "unclear"
    standard_order: ClassVar[bool] = False
    class_rule: ClassVar[str] = "full"
    ready_size: ClassVar[tuple[int, int] | None] = None
    parent: ClassVar[str] = ""

    @abstractmethod
    def read(self) -> Listing:
        """List the images, in any order.

        Raises:
            DataError: files are missing or do not fit together.
        """

    def check(self, n: int | None = None) -> list[Flag]:
        """What is wrong with these files beyond what any dataset is examined for; the first n images only."""
        return []

    @property
    def corrupted_by(self) -> tuple[str, int] | None:
        """Name and severity of the corruption that published files already bear (ImageNet-C); None: they bear none."""
        return None

    @property
    def standard(self) -> Classes | None:
        """The public order of classes that models of these data follow when they name none; None: there is none."""
        return self.classes if self.standard_order else None

    def prepared_by(self, preprocessing: Preprocessing | None) -> Preprocessing | None:
        """How these pictures become the input of a model that resizes and crops others by ``preprocessing``."""
        if preprocessing is not None and preprocessing.size == self.ready_size:
            return Preprocessing(preprocessing.size)
        return preprocessing

    @cached_property
    def _listing(self) -> Listing:
        return self.read()

    @cached_property
    def _rows(self) -> np.ndarray:
        """Where this view's images stand in the listing, in published order."""
        if self._listing.positions is not None:
            return np.argsort(self._listing.positions, kind="stable")
        return published_order(self._listing.ids)

    @cached_property
    def positions(self) -> np.ndarray:
        """int64 [n]: the place of each image in the published order of the whole dataset; views keep it."""
        if self._listing.positions is not None:
            return self._listing.positions[self._rows]
        return np.arange(len(self._rows), dtype=np.int64)

    @property
    def name(self) -> str:
        """Canonical name, part of the keys of results."""
        return self._listing.name

    @property
    def classes(self) -> Classes:
        """The classes that labels point into."""
        return self._listing.classes

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results should know about how the files were read."""
        return self._listing.notes

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The stable id of each image, in published order."""
        return tuple(self._listing.ids[k] for k in self._rows)

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 [n]: index into ``classes``."""
        return np.asarray(self._listing.labels, dtype=np.int64)[self._rows]

    @cached_property
    def accepted(self) -> tuple[tuple[int, ...], ...] | None:
        """For each image every label that counts as right; None where its label alone does."""
        whole = self._listing.accepted
        return None if whole is None else tuple(whole[k] for k in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self)} images, {len(self.classes)} classes>"

    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Dataset:
        """The images at some places, as a view that keeps ids, labels and positions.

        Raises:
            DataError: a place lies outside, or comes twice.
        """
        if isinstance(index, slice):
            return self._view(np.arange(len(self))[index])
        if isinstance(index, int | np.integer):
            raise DataError(
                f"data[{index}] is no view: images are chosen by a slice or a list of places",
                f"write data[[{index}]], or data.picture({index}) for the picture itself",
            )
        chosen = np.asarray(index, dtype=np.int64 if len(index) == 0 else None)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise DataError(f"images are chosen by a slice or a list of places, not by {index!r}")
        outside = chosen[(chosen < -len(self)) | (chosen >= len(self))]
        if len(outside):
            raise DataError(f"there is no image {outside[0]} in {self.name}: it has {len(self)} images here")
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        if len(np.unique(chosen)) != len(chosen):
            raise DataError(f"a view of {self.name} cannot hold an image twice")
        return self._view(chosen)

    def take(self, n: int, balanced: bool = False) -> Dataset:
        """The first n images in published order: a random sample that a larger n only extends.

        Args:
            n: how many.
            balanced: take the first image of every class, then the second of every class, and so on.

        Raises:
            DataError: fewer than n images are there, or n is not positive.
        """
        if n < 1:
            raise DataError(f"n must be at least 1, got {n}")
        if n > len(self):
            raise DataError(f"{self.name} has {len(self)} images here, {n} were asked for", f"use n ≤ {len(self)}")
        if not balanced:
            return self[:n]
        by_class = np.argsort(self.labels, kind="stable")
        starts = np.searchsorted(self.labels[by_class], self.labels[by_class])
        turn = np.empty(len(self), dtype=np.int64)
        turn[by_class] = np.arange(len(self)) - starts
        return self._view(np.argsort(turn, kind="stable")[:n])

    def _view(self, chosen: np.ndarray) -> Dataset:
        view = copy.copy(self)
        view.__dict__.update(_rows=self._rows[chosen], positions=self.positions[chosen])
        for derived in ("ids", "labels", "accepted"):
            view.__dict__.pop(derived, None)
        return view

    def source(self, i: int) -> Path | None:
        """The file of image ``i``, or the larger one it lies in; None where it lies in an array."""
        image = self._listing.images[self._rows[i]]
        return image.file if isinstance(image, Span) else image if isinstance(image, Path) else None

    def file_bytes(self, i: int) -> bytes | None:
        """The picture file of image ``i`` as it is on the disk; None where the image lies in an array.

        Raises:
            OSError: it cannot be read.
        """
        image = self._listing.images[self._rows[i]]
        return image.read_bytes() if isinstance(image, Path) else image.read() if isinstance(image, Span) else None

    def picture(self, i: int) -> Image.Image:
        """Image ``i`` at its native size, as RGB (``aresbench.ops.resize.to_rgb`` says how).

        Raises:
            DataError: the file is missing, truncated or not a picture; id and path are named.
        """
        image = self._listing.images[self._rows[i]]
        if not isinstance(image, Path | Span):
            return Image.fromarray(image).convert("RGB")
        try:
            with Image.open(image if isinstance(image, Path) else io.BytesIO(image.read())) as opened:
                opened.load()
                return to_rgb(opened)
        except _BROKEN as error:
            who = f"image {self._listing.ids[self._rows[i]]!r} of {self.name}"
            remedy = 'restore the file, or leave it out with on_bad="skip"'
            if isinstance(error, DataError):
                raise DataError(f"{who} cannot be used: {image}: {error.problem}", error.remedy) from None
            if isinstance(error, FileNotFoundError):
                raise DataError(f"{who} is missing: there is no file {image}", remedy) from None
            raise DataError(f"{who} cannot be read: {image}: {error}", remedy) from error


def _workers() -> int:
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def load_pictures(
    dataset: Dataset,
    indices: Sequence[int],
    preprocessing: Preprocessing | None,
    on_bad: Literal["raise", "skip"] = "raise",
) -> tuple[Tensor, list[int], list[tuple[str, str]]]:
    """Decode, resize and crop some images of a dataset, in the order asked for.

    Args:
        dataset: the dataset or a view of it.
        indices: places in ``dataset``.
        preprocessing: resize and crop; None takes the pictures as they are, all of one size.
        on_bad: ``"raise"`` stops at the first image that cannot be read; ``"skip"`` goes on without it.

    Returns:
        uint8 [m, 3, H, W]; the m places that were read; (id, reason) of each one that was not.

    Raises:
        DataError: an unreadable image under ``on_bad="raise"``; pictures of different sizes.
    """
    import torch

    if on_bad not in ("raise", "skip"):
        raise DataError(f"on_bad is {on_bad!r}", 'write "raise" or "skip"')

    def read(i: int) -> Tensor | DataError:
        try:
            picture = dataset.picture(i)
        except DataError as error:
            if on_bad == "raise":
                raise
            return error
        return apply(picture, preprocessing)

    # Pillow decodes and resizes without holding the interpreter's lock; arrays have nothing to decode.
    if len(indices) > 1 and dataset.source(indices[0]) is not None:
        with ThreadPoolExecutor(_workers()) as pool:
            results = list(pool.map(read, indices))
    else:
        results = [read(i) for i in indices]
    kept: list[int] = []
    bad: list[tuple[str, str]] = []
    tensors: list[Tensor] = []
    for i, result in zip(indices, results, strict=True):
        if isinstance(result, DataError):
            bad.append((dataset.ids[i], result.problem))
        else:
            kept.append(i)
            tensors.append(result)
    sizes = {tuple(t.shape[1:]) for t in tensors}
    if len(sizes) > 1:
        first, second = sorted(sizes)[:2]
        raise DataError(
            f"the images of {dataset.name} have different sizes ({first[0]}×{first[1]}, {second[0]}×{second[1]}, …)",
            "give the model a preprocessing (size and resize)",
        )
    if not tensors:
        height, width = preprocessing.size if preprocessing is not None else (0, 0)
        return torch.empty(0, 3, height, width, dtype=torch.uint8), kept, bad
    return torch.stack(tensors), kept, bad


def load_images(
    dataset: Dataset,
    indices: Sequence[int],
    preprocessing: Preprocessing | None,
    on_bad: Literal["raise", "skip"] = "raise",
) -> tuple[Tensor, list[int], list[tuple[str, str]]]:
    """``load_pictures``, as what a classifier takes: float32 [m, 3, H, W] in [0,1]."""
    import torch

    pictures, kept, bad = load_pictures(dataset, indices, preprocessing, on_bad)
    return pictures.to(torch.float32).div_(255), kept, bad
