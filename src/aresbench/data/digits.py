"""Handwritten digits from scikit-learn: real, tiny, offline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, did_you_mean
from aresbench.data.base import Dataset, Listing, published_order

HELD_OUT = 500


@dataclass(frozen=True, eq=False, repr=False)
class Digits(Dataset):
    """scikit-learn's 1,797 handwritten digits at 8×8 pixels (Alpaydin and Kaynak, 1998).

    500 images are held out for evaluation: those whose ids have the smallest BLAKE2b hashes. The 17 grey levels
    become 8-bit grey (round(v · 255 / 16)) on three channels. The native size is 8×8; a model's preprocessing
    upsamples the images to its input.

    Args:
        split: ``"test"`` (the 500 held-out images) or ``"train"`` (the other 1,297).
    """

    title: ClassVar[str] = "Digits (scikit-learn)"
    licence: ClassVar[str] = "CC BY 4.0 (UCI); shipped with scikit-learn (BSD-3-Clause)"
    terms: ClassVar[str] = "attribution"
    citation: ClassVar[str] = (
        "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998"
    )
    obtain: ClassVar[str] = "installed with scikit-learn; nothing to download"
    image_size: ClassVar[str] = "8×8 grey; upsampled by a model's preprocessing"
    standard_order: ClassVar[bool] = True

    split: str = "test"

    def read(self) -> Listing:
        if self.split not in ("test", "train"):
            raise DataError(
                f"digits has no split {self.split!r}",
                did_you_mean(self.split, ("test", "train")) or "use 'test' or 'train'",
            )
        from sklearn.datasets import load_digits

        digits = load_digits()
        ids = [f"digits/{i:05d}" for i in range(len(digits.target))]
        order = published_order(ids)
        chosen = order[:HELD_OUT] if self.split == "test" else order[HELD_OUT:]
        return Listing(
            name="digits" if self.split == "test" else "digits-train",
            classes=Classes(tuple("0123456789")),
            ids=tuple(ids[i] for i in chosen),
            labels=digits.target[chosen].astype(np.int64),
            images=np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8),
        )
