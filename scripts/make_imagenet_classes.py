"""Write src/aresbench/data/imagenet_classes.tsv: ImageNet's 1,000 classes, one line each, wnid TAB names.

The line number is the class index: wnids are in sorted order. Names are the WordNet synonyms as timm lists them, led by
torchvision's short name; a synonym that several classes share ("crane" the bird and the machine) stays only with the
class whose short name it is, so that every name means one class.

    python scripts/make_imagenet_classes.py
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from timm.data import ImageNetInfo
from torchvision.models import ResNet18_Weights

TABLE = Path(__file__).parent.parent / "src/aresbench/data/imagenet_classes.tsv"
WNIDS_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"


def main() -> None:
    info = ImageNetInfo()
    wnids = info.label_names()
    assert wnids == sorted(wnids) and hashlib.sha256("\n".join(wnids).encode()).hexdigest() == WNIDS_SHA256
    short = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    synonyms = [[s.strip() for s in text.split(",")] for text in info.label_descriptions()]
    shared = Counter(s.lower() for names in synonyms for s in set(names))
    leading = Counter(s.lower() for s in short)
    lines = []
    for wnid, first, names in zip(wnids, short, synonyms, strict=True):
        others = [n for n in names if n != first and shared[n.lower()] == 1 and n.lower() not in leading]
        # "Cardigan" the dog and "cardigan" the garment differ in case only: the one that has other names loses this one
        keeps = leading[first.lower()] == 1 or not others
        lines.append(f"{wnid}\t{', '.join([first, *others] if keeps else others)}\n")
    TABLE.write_text("".join(lines), "utf-8")
    print(f"{len(lines)} classes → {TABLE}")


if __name__ == "__main__":
    main()
