"""Twenty labelled ImageNet photographs that install as a package."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from aresbench.core.errors import DataError
from aresbench.data.base import Dataset, Listing
from aresbench.data.imagenet_classes import imagenet_classes

# ImageNet class indices in the order of the file names.
LABELS = (243, 559, 438, 990, 949, 853, 609, 609, 915, 455, 541, 630, 741, 471, 129, 99, 251, 22, 317, 305)


@dataclass(frozen=True, eq=False, repr=False)
class Samples(Dataset):
    """20 ImageNet photographs from foolbox's wheel, for a first look: never to be presented as ImageNet accuracy.

    Small collections of well-chosen photographs read higher than ImageNet's validation set, and twenty images give
    intervals of about ±15 points.
    """

    title: ClassVar[str] = "Samples (20 ImageNet photographs)"
    licence: ClassVar[str] = "shipped in foolbox (MIT); the photographs belong to their authors"
    terms: ClassVar[str] = "unclear"
    citation: ClassVar[str] = (
        "J. Rauber et al., Foolbox Native, JOSS 2020; O. Russakovsky et al., "
        "ImageNet Large Scale Visual Recognition Challenge, IJCV 2015"
    )
    obtain: ClassVar[str] = 'pip install "aresbench[samples]"'
    image_size: ClassVar[str] = "512×512 and 1024×683 RGB, resized and cropped by a model's preprocessing"
    standard_order: ClassVar[bool] = True
    caution: ClassVar[str] = "20 photographs, never to be presented as ImageNet accuracy"

    def read(self) -> Listing:
        # The folder is found without importing foolbox, whose import needs a git client.
        spec = importlib.util.find_spec("foolbox")
        if spec is None or not spec.submodule_search_locations:
            raise DataError(
                "the sample photographs are not installed (they come with foolbox)", 'pip install "aresbench[samples]"'
            )
        folder = Path(spec.submodule_search_locations[0]) / "data"
        files = sorted(folder.glob("imagenet_*.jpg"))
        if len(files) != len(LABELS):
            raise DataError(
                f"foolbox's folder {folder} holds {len(files)} ImageNet photographs where {len(LABELS)} belong",
                'pip install --force-reinstall --no-deps "foolbox>=3.3.4"',
            )
        return Listing(
            name="samples",
            classes=imagenet_classes(),
            ids=tuple(file.name for file in files),
            labels=np.array(LABELS, dtype=np.int64),
            images=files,
        )
