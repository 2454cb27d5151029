"""A dataset examined file by file, before a number is taken from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from aresbench.core.errors import DataError
from aresbench.core.flag import LEVELS, Flag
from aresbench.data.base import Dataset
from aresbench.data.licence import refuse_unless_commercial
from aresbench.data.load import load_dataset

_WORKERS = 8  # decoding holds no lock, and a disk answers several at once


def examine_dataset(
    spec: str,
    root: str | Path | None = None,
    n: int | None = None,
    *,
    commercial: bool = False,
    tell: Callable[[int, int], None] | None = None,
) -> tuple[Dataset | None, list[Flag]]:
    """Load a dataset and examine it; what keeps it from loading is the first finding.

    Args:
        spec: as for ``load_dataset``.
        root: where the data lie.
        n: look at the first n images only.
        commercial: find fault with data that may not be used commercially.
        tell: called with (images looked at, images to look at) now and then.

    Returns:
        The dataset (None where it cannot be loaded), and the findings, the gravest first.

    Raises:
        UnknownName: there is no such dataset.
        SpecError: the spec cannot be read.
    """
    try:
        data = load_dataset(spec, root)
    except DataError as error:
        return None, [Flag("cannot-be-loaded", "error", "data", error.problem, error.remedy)]
    flags = examine_data(data, n, tell)
    if commercial:
        try:
            refuse_unless_commercial(data)
        except DataError as error:
            flags.insert(0, Flag("not-for-commercial-use", "error", "data", error.problem, error.remedy))
    return data, flags


def examine_data(data: Dataset, n: int | None = None, tell: Callable[[int, int], None] | None = None) -> list[Flag]:
    """What cannot be read, what is there twice, classes without images, and what the dataset finds wrong with itself.

    Args:
        data: the dataset.
        n: look at the first n images only.
        tell: called with (images looked at, images to look at) now and then.

    Returns:
        The findings, the gravest first.
    """
    count = len(data) if n is None else min(n, len(data))
    unreadable: list[tuple[str, str]] = []
    copies: dict[str, list[int]] = {}
    with ThreadPoolExecutor(_WORKERS) as pool:
        for k, found in enumerate(pool.map(lambda k: _digest(data, k), range(count))):
            if isinstance(found, DataError):
                unreadable.append((data.ids[k], found.problem))
            else:
                copies.setdefault(found, []).append(k)
            if tell is not None and (k % 100 == 99 or k == count - 1):
                tell(k + 1, count)
    flags = [*unreadable_flags(unreadable), *_copies(data, copies), *_empty_classes(data), *data.check(n)]
    return sorted(flags, key=lambda flag: LEVELS.index(flag.level))


def _digest(data: Dataset, k: int) -> str | DataError:
    """What stands for the pixels of image ``k``, however its file is written."""
    try:
        pixels = np.asarray(data.picture(k))
    except DataError as error:
        return error
    return hashlib.blake2b(pixels.tobytes(), digest_size=16, person=b"%dx%d" % pixels.shape[:2]).hexdigest()


def _copies(data: Dataset, copies: dict[str, list[int]]) -> list[Flag]:
    """Images that are there twice; worse, under two labels."""
    groups = [places for places in copies.values() if len(places) > 1]
    torn = [places for places in groups if len(set(data.labels[places].tolist())) > 1]
    flags = []
    if torn:
        first = ", ".join(f"{data.ids[k]} ({data.classes.names[data.labels[k]]})" for k in torn[0][:3])
        flags.append(
            Flag(
                "two-labels",
                "warning",
                "data",
                f"{len(torn)} pictures stand under more than one label, e.g. {first}",
                "no model can be right on both: in data of your own, find out which label is meant and remove the "
                "other file; a published set stays as it is",
                {"groups": [[data.ids[k] for k in places[:5]] for places in torn[:20]]},
            )
        )
    if groups:
        extra = sum(len(places) - 1 for places in groups)
        flags.append(
            Flag(
                "duplicates",
                "warning",
                "data",
                f"{extra} images are copies of others, e.g. {' = '.join(data.ids[k] for k in groups[0][:3])}",
                "an image that counts twice narrows intervals without adding evidence: remove the copies from data of "
                "your own; a published set stays as it is",
                {"groups": [[data.ids[k] for k in places[:5]] for places in groups[:20]]},
            )
        )
    return flags


def _empty_classes(data: Dataset) -> list[Flag]:
    empty = sorted(set(range(len(data.classes))) - set(data.labels.tolist()))
    if not empty:
        return []
    names = ", ".join(data.classes.names[k] for k in empty[:5]) + (" …" if len(empty) > 5 else "")
    return [
        Flag(
            "classes-without-images",
            "info",
            "data",
            f"{len(empty)} of {len(data.classes)} classes have no image here ({names})",
            "nothing to do if this is a subset on purpose",
            {"classes": len(empty)},
        )
    ]


def unreadable_flags(bad: list[tuple[str, str]]) -> list[Flag]:
    """What a result must say about images that were left out."""
    if not bad:
        return []
    return [
        Flag(
            "unreadable-images",
            "error",
            "data",
            f"{len(bad)} images could not be read and are left out, e.g. {bad[0][1]}",
            "restore the files and run the same command again: only these images are then computed",
            {"ids": [image_id for image_id, _ in bad[:50]], "count": len(bad)},
        )
    ]
