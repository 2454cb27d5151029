"""The 5,000 of ImageNet's validation images on which RobustBench measures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.errors import DataError
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing
from aresbench.data.class_folders import digest_of, not_whole, resized_copies, some
from aresbench.data.imagenet import canonical, find_images, places, val_folder
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid

_TOTAL = 5_000


@cache
def chosen() -> dict[str, int]:
    """id → class index of each of the 5,000, by class and number.

    RobustBench's choice (MIT licence), written anew as one line a class: its index, and the numbers of its images.
    """
    text = files("aresbench.data").joinpath("imagenet_robustbench.tsv").read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return {canonical(int(number)): int(index) for index, numbers in rows for number in numbers.split()}


@dataclass(frozen=True, eq=False, repr=False)
class ImageNetRobustBench(Dataset):
    """The 5,000 ImageNet validation photographs of RobustBench's ImageNet board (Croce et al., 2021).

    A random choice: between none and 12 of each class. A folder that holds these 5,000 alone is enough. Ids are those
    of ``imagenet``.

    Args:
        root: the ``val`` folder or its parent; by default ``$ARESBENCH_DATA/imagenet``.
        labels_file: the list of a flat folder, as for ``imagenet``.
        partial: accept a part of the images, under a name of its own.
    """

    title: ClassVar[str] = "ImageNet, RobustBench's 5,000 images"
    licence: ClassVar[str] = "the choice MIT; photographs under ImageNet's terms: non-commercial research"
    citation: ClassVar[str] = (
        "F. Croce et al., RobustBench: a standardized adversarial robustness benchmark, "
        "NeurIPS Datasets and Benchmarks 2021, arXiv:2010.09670"
    )
    obtain: ClassVar[str] = "the photographs as for imagenet; which of them are meant comes with this package"
    image_size: ClassVar[str] = "RGB, about 500×375, resized and cropped by a model's preprocessing"
    terms: ClassVar[str] = "non-commercial"
    standard_order: ClassVar[bool] = True

    root: str | Path | None = None
    labels_file: str | Path | None = None
    partial: bool = False

    def read(self) -> Listing:
        folder = val_folder(self.root)
        found = find_images(folder, self.labels_file, index_of_wnid(), partial=True)
        kept = [image_id for image_id in chosen() if image_id in found]
        name = "imagenet-robustbench"
        if len(kept) < _TOTAL:
            if not self.partial:
                raise DataError(
                    f"{folder} has {len(kept):,} of RobustBench's {_TOTAL:,} images; "
                    f"missing: {some(k for k in chosen() if k not in found)}",
                    "complete it, or say partial=True to go on without them under a name of its own",
                )
            if not kept:
                raise DataError(f"{folder} holds none of RobustBench's {_TOTAL:,} images", self.obtain)
            name += f"-part-{digest_of(kept)}"
        wrong = [image_id for image_id in kept if found[image_id][0] != chosen()[image_id]]
        if wrong:
            ids = imagenet_classes().ids
            first = wrong[0]
            raise DataError(
                f"{len(wrong):,} images in {folder} are labelled otherwise than by RobustBench; the first is {first}: "
                f"{ids[found[first][0]]}, which should be {ids[chosen()[first]]}",
                "files lie in wrong folders, or the list of labels is not ImageNet's",
            )
        return Listing(
            name=name,
            classes=imagenet_classes(),
            ids=tuple(kept),
            labels=np.array([chosen()[image_id] for image_id in kept], dtype=np.int64),
            images=[found[image_id][1] for image_id in kept],
            positions=places(kept, tuple(chosen())),
        )

    def check(self, n: int | None = None) -> list[Flag]:
        return not_whole(self, _TOTAL) + resized_copies(self, n)
