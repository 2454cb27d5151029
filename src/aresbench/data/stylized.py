"""Stylized-ImageNet."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.errors import DataError
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing
from aresbench.data.class_folders import dataset_folder, digest_of, not_whole, sizes
from aresbench.data.imagenet import CLASSES, TOTAL, all_ids, check_counts, find_images, places
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid


@dataclass(frozen=True, eq=False, repr=False)
class StylizedImageNet(Dataset):
    """ImageNet's validation photographs painted in the styles of random paintings (Geirhos et al., 2019).

    Shapes stay, textures go: a model that recognises textures fails. Everybody makes these pictures themselves, with
    the authors' code and a collection of paintings, so numbers of different copies differ a little. They are 224×224
    and given to a model of that size as they are. Ids are those of ``imagenet``.

    Args:
        root: the ``val`` folder of class folders or its parent; by default ``$ARESBENCH_DATA/imagenet-stylized``.
        partial: accept a part of the 50,000 pictures, under a name of its own.
    """

    title: ClassVar[str] = "Stylized-ImageNet"
    licence: ClassVar[str] = "code MIT; made from ImageNet and paintings, not to be passed on: non-commercial research"
    citation: ClassVar[str] = (
        "R. Geirhos et al., ImageNet-trained CNNs are biased towards texture, ICLR 2019, arXiv:1811.12231"
    )
    obtain: ClassVar[str] = (
        "made from ImageNet and Painter by Numbers with github.com/rgeirhos/Stylized-ImageNet (val: about 5 GB)"
    )
    image_size: ClassVar[str] = "RGB, 224×224, used as they are by models of this size"
    terms: ClassVar[str] = "non-commercial"
    standard_order: ClassVar[bool] = True
    ready_size: ClassVar[tuple[int, int] | None] = (224, 224)
    parent: ClassVar[str] = "imagenet"
    known: ClassVar[dict[str, float]] = {"resnet50.tv_in1k": 7.4}
    known_source: ClassVar[str] = (
        "top-1 in % on the authors' own pictures; on those of imagenet-testbed, made anew, it is 20.5"
    )

    root: str | Path | None = None
    partial: bool = False

    def read(self) -> Listing:
        folder = dataset_folder(self.title, "imagenet-stylized", self.root, ("val",), self.obtain)
        found = find_images(folder, None, index_of_wnid(), partial=self.partial)
        name, positions = "imagenet-stylized", None
        if len(found) < TOTAL:
            if not self.partial:
                raise DataError(
                    f"{folder} has {len(found):,} of {self.title}'s {TOTAL:,} pictures",
                    "complete it, or say partial=True to go on without them under a name of its own",
                )
            name, positions = f"{name}-part-{digest_of(found)}", places(found, all_ids())
        else:
            check_counts((label for label, _ in found.values()), range(CLASSES))
        return Listing(
            name=name,
            classes=imagenet_classes(),
            ids=tuple(found),
            labels=np.array([label for label, _ in found.values()], dtype=np.int64),
            images=[file for _, file in found.values()],
            positions=positions,
        )

    def check(self, n: int | None = None) -> list[Flag]:
        flags = not_whole(self, TOTAL)
        found = sizes(self, n)
        others = Counter(size for size in found if size != self.ready_size)
        if not others:
            return flags
        (width, height), count = others.most_common(1)[0]
        return [
            *flags,
            Flag(
                "not-ready-made",
                "error",
                "data",
                f"{sum(others.values())} of {len(found)} pictures looked at are not 224×224, "
                f"{count} of them {width}×{height}: they are no pictures as the authors' code makes them",
                "make them anew at 224×224; a resized picture has lost its texture, which is what is measured",
                {"looked_at": len(found), "others": sum(others.values()), "size": [width, height]},
            ),
        ]
