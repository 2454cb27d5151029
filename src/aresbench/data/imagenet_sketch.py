"""ImageNet-Sketch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing
from aresbench.data.class_folders import dataset_folder, not_whole, read_class_folders, resized_copies, whole_or_part
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid

# All files of the archive; those of the authors' own list; and what their paper says.
EDITIONS = {50_889: "", 50_874: "-50874", 50_000: "-50000"}


@dataclass(frozen=True, eq=False, repr=False)
class ImageNetSketch(Dataset):
    """Some 50 black-and-white sketches of each of ImageNet's classes, 50,889 in all (Wang et al., 2019).

    The paper speaks of 50,000 images and the authors' list has 50,874; sets of those sizes are read under names of
    their own. Many sketches are there twice or mirrored. Ids are relative paths.

    Args:
        root: the folder of class folders or its parent; by default ``$ARESBENCH_DATA/imagenet-sketch``.
        partial: accept another number of images, under a name of its own.
    """

    title: ClassVar[str] = "ImageNet-Sketch"
    licence: ClassVar[str] = "code MIT; pictures from an image search, rights with their authors"
    citation: ClassVar[str] = (
        "H. Wang et al., Learning Robust Global Representations by Penalizing Local Predictive Power, NeurIPS 2019, "
        "arXiv:1905.13549"
    )
    obtain: ClassVar[str] = "ImageNet-Sketch.zip, linked from github.com/HaohanWang/ImageNet-Sketch (about 7.5 GB)"
    image_size: ClassVar[str] = "grey or RGB, many sizes, resized and cropped by a model's preprocessing"
    terms: ClassVar[str] = "unclear"
    standard_order: ClassVar[bool] = True
    parent: ClassVar[str] = "imagenet"
    known: ClassVar[dict[str, float]] = {
        "resnet50.tv_in1k": 24.064,
        "resnet18.tv_in1k": 20.238,
        "resnet50.a1_in1k": 29.641,
        "convnext_base.fb_in1k": 38.236,
        "vit_base_patch16_224.augreg_in1k": 27.973,
    }
    known_source: ClassVar[str] = "timm's published results: top-1 in %, 224 pixels, each model's own crop"

    root: str | Path | None = None
    partial: bool = False

    def read(self) -> Listing:
        folder = dataset_folder(
            self.title, "imagenet-sketch", self.root, ("sketch", "imagenet-sketch", "images"), self.obtain
        )
        found = read_class_folders(self.title, folder, index_of_wnid(), partial=self.partial)
        name = whole_or_part(self.title, "imagenet-sketch", found.ids, EDITIONS, self.partial)
        return Listing(name, imagenet_classes(), found.ids, found.labels, found.files)

    def check(self, n: int | None = None) -> list[Flag]:
        flags = not_whole(self, *EDITIONS) + resized_copies(self, n)
        edition = next((count for count, ending in EDITIONS.items() if ending and self.name.endswith(ending)), None)
        if edition is not None:
            flags.append(
                Flag(
                    "another-edition",
                    "info",
                    "data",
                    f"there are {edition:,} images here; the published archive has {max(EDITIONS):,}",
                    "compare with results on the same number of images; the results carry another name",
                    {"images": edition},
                )
            )
        return flags
