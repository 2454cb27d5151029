"""ImageNet's validation set with its reassessed labels."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.errors import DataError
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset, Listing
from aresbench.data.class_folders import digest_of, not_whole, resized_copies
from aresbench.data.imagenet import CLASSES, TOTAL, all_ids, find_images, number_of, places, val_folder
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid
from aresbench.data.local import relative_hint

# SHA-256 of the published list as compact JSON (no spaces): 50,000 lists of class indices.
PUBLISHED = "571f454f8fe788a871fa87f5f3073972be208f1be818f0327258ed89d795f345"
_LABELLED = 46_837
_ENOUGH = 100  # images that can tell a right order from a wrong one


@dataclass(frozen=True, eq=False, repr=False)
class ImageNetReal(Dataset):
    """ImageNet's validation photographs with every label that people found right in them (Beyer et al., 2020).

    A prediction is right when it is any of an image's labels. The 3,163 images in which nobody agreed on a label are
    left out, so 46,837 remain, 7,443 of them with several labels. Ids are those of ``imagenet``.

    Args:
        root: the ``val`` folder or its parent; by default ``$ARESBENCH_DATA/imagenet``.
        real_labels: the list of label sets (``real.json``), one for each of the 50,000 images in the order of their
            file names; by default ``real.json`` in the root, else the copy that timm brings along.
        labels_file: the list of a flat folder, as for ``imagenet``; the original labels tell whether the label sets
            stand in the right order.
        partial: accept a part of the images, under a name of its own.
    """

    title: ClassVar[str] = "ImageNet ReaL"
    licence: ClassVar[str] = "labels Apache-2.0; photographs under ImageNet's terms: non-commercial research"
    citation: ClassVar[str] = "L. Beyer et al., Are we done with ImageNet?, 2020, arXiv:2006.07159"
    obtain: ClassVar[str] = (
        "the photographs as for imagenet; the labels come with timm, which is installed already, "
        "or as real.json from github.com/google-research/reassessed-imagenet (0.4 MB)"
    )
    image_size: ClassVar[str] = "RGB, about 500×375, resized and cropped by a model's preprocessing"
    terms: ClassVar[str] = "non-commercial"
    standard_order: ClassVar[bool] = True
    parent: ClassVar[str] = "imagenet"
    known: ClassVar[dict[str, float]] = {
        "resnet50.tv_in1k": 82.969,
        "resnet18.tv_in1k": 77.291,
        "resnet50.a1_in1k": 85.712,
        "convnext_base.fb_in1k": 88.377,
        "vit_base_patch16_224.augreg_in1k": 84.388,
    }
    known_source: ClassVar[str] = "timm's published results: top-1 in %, 224 pixels, each model's own crop"

    root: str | Path | None = None
    real_labels: str | Path | None = None
    labels_file: str | Path | None = None
    partial: bool = False

    def read(self) -> Listing:
        folder = val_folder(self.root)
        found = find_images(folder, self.labels_file, index_of_wnid(), partial=self.partial)
        path, sets = self._label_sets
        share = self._agreement(found)
        if share is not None and share < 0.5:
            raise DataError(
                f"{path} is in another order than the images: only {share:.0%} of the images have their own "
                "ImageNet label among its label sets (of the published list, about 90 %)",
                "the list must follow the file names, ILSVRC2012_val_00000001 first; use the published real.json",
            )
        labelled = [image_id for image_id in all_ids() if sets[number_of(image_id) - 1]]
        kept = [image_id for image_id in labelled if image_id in found]
        if not kept:
            raise DataError(f"none of the images in {folder} has a label in {path}")
        whole = digest_of_sets(sets) == PUBLISHED
        name = "imagenet-real" if whole else f"imagenet-real-{digest_of_sets(sets)[:8]}"
        if len(kept) < len(labelled):
            if not self.partial:
                raise DataError(
                    f"{folder} has {len(kept):,} of the {len(labelled):,} images with labels",
                    "complete it, or say partial=True to go on without them under a name of its own",
                )
            name += f"-part-{digest_of(kept)}"
        accepted = tuple(tuple(sets[number_of(image_id) - 1]) for image_id in kept)
        return Listing(
            name=name,
            classes=imagenet_classes(),
            ids=tuple(kept),
            labels=np.array([labels[0] for labels in accepted], dtype=np.int64),
            images=[found[image_id][1] for image_id in kept],
            positions=places(kept, labelled),
            notes=(f"{len(found) - len(kept)} images without a reassessed label were left out",),
            accepted=accepted,
        )

    def check(self, n: int | None = None) -> list[Flag]:
        flags = not_whole(self, _LABELLED) + resized_copies(self, n)
        path, sets = self._label_sets
        if digest_of_sets(sets) != PUBLISHED:
            labelled = sum(1 for labels in sets if labels)
            flags.append(
                Flag(
                    "labels-not-published",
                    "warning",
                    "data",
                    f"{path} is not the published list of label sets: {labelled:,} images have labels in it, "
                    f"{_LABELLED:,} in the published one",
                    "use real.json of github.com/google-research/reassessed-imagenet; the results carry another name",
                    {"labelled": labelled, "sha256": digest_of_sets(sets)},
                )
            )
        return flags

    @cached_property
    def _label_sets(self) -> tuple[Path, list[list[int]]]:
        path = self._list()
        return path, read_label_sets(path)

    def _list(self) -> Path:
        if self.real_labels is not None:
            path = Path(self.real_labels).expanduser()
            if not path.is_file():
                raise DataError(f"there is no list of label sets {path}", relative_hint(path))
            return path
        folder = val_folder(self.root)
        places_to_look = [folder / "real.json", folder.parent / "real.json"]
        timm = importlib.util.find_spec("timm")  # found, not imported: only its copy of the list is wanted
        if timm is not None and timm.origin is not None:
            places_to_look.append(Path(timm.origin).parent / "data/_info/imagenet_real_labels.json")
        for path in places_to_look:
            if path.is_file():
                return path
        raise DataError(f"there is no list of ImageNet's reassessed labels in {folder}", self.obtain)

    def _agreement(self, found: dict[str, tuple[int, Path]]) -> float | None:
        """The share of the images whose original label is in their label set; None: too few to tell."""
        sets = self._label_sets[1]
        pairs = [(label, sets[number_of(image_id) - 1]) for image_id, (label, _) in found.items()]
        hits = [label in labels for label, labels in pairs if labels]
        return sum(hits) / len(hits) if len(hits) >= _ENOUGH else None


def digest_of_sets(sets: list[list[int]]) -> str:
    """SHA-256 of the label sets, whatever the spacing of their file."""
    return hashlib.sha256(json.dumps(sets, separators=(",", ":")).encode()).hexdigest()


def read_label_sets(path: Path) -> list[list[int]]:
    """Read a list of label sets: one list of class indices for each of the 50,000 images.

    Raises:
        DataError: it is no such list, or has another length.
    """
    remedy = "use the published real.json: 50,000 lists of class indices, in the order of the file names"
    try:
        sets = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}", remedy) from error
    if not isinstance(sets, list) or not all(isinstance(labels, list) for labels in sets):
        raise DataError(f"{path} is no list of label sets", remedy)
    if len(sets) != TOTAL:
        raise DataError(f"{path} has {len(sets):,} label sets for ImageNet's {TOTAL:,} images", remedy)
    for number, labels in enumerate(sets, 1):
        if not all(type(k) is int and 0 <= k < CLASSES for k in labels):
            raise DataError(f"{path}: the label set of image {number} is {labels}, no class indices 0–999", remedy)
    return sets
