"""Draw docs/images/corruptions.jpg: one photograph through every corruption of ImageNet-C at every severity.

The photograph is scikit-learn's "china.jpg" by danielbuechele (Flickr), CC BY 2.0. It is corrupted at 224 px with
seed 0, and reduced to the size of a tile afterwards: fine noise looks milder than it is.

    python scripts/contact_sheet.py [FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image
from torch import Tensor

from aresbench.core.registry import TABLES
from aresbench.corruptions.load import corrupt, make_corruption

SHEET = Path(__file__).parent.parent / "docs/images/corruptions.jpg"
SEVERITIES = (1, 2, 3, 4, 5)
SIDE, TILE, GAP, LINE = 224, 124, 3, 20
CREDIT = "photograph: danielbuechele, CC BY 2.0 (scikit-learn)"


def photograph() -> Tensor:
    """The middle of the photograph: [1,3,224,224] in [0,1]."""
    whole = Image.fromarray(load_sample_image("china.jpg"))
    left, top = (whole.width - whole.height) // 2, 0
    square = whole.crop((left, top, left + whole.height, whole.height)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 255


def tile(x: Tensor, side: int) -> Image.Image:
    pixels = (x[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)


def rows() -> list[tuple[str, list[Tensor]]]:
    """(title, tiles) of the clean picture and of each corruption, in the order of the registry, families together."""
    x = photograph()
    names = sorted(TABLES["corruptions"], key=lambda n: ("noise", "blur", "weather", "digital").index(family(n)))
    return [("clean", [x]), *((name, [corrupt(x, name, s, 0, ["photo"]) for s in SEVERITIES]) for name in names)]


def family(name: str) -> str:
    return make_corruption(name, 1).family


def sheet(side: int = TILE) -> Image.Image:
    """All rows in two columns of five tiles, the name of each above it."""
    drawn = rows()
    half = (len(drawn) + 1) // 2
    wide, high = len(SEVERITIES) * (side + GAP) + 2 * GAP, side + LINE + GAP
    page = Image.new("RGB", (2 * wide, half * high + LINE), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for k, (name, tiles) in enumerate(drawn):
        left, top = k // half * wide + GAP, k % half * high
        title = name if len(tiles) > 1 else f"{name}; all others: severity 1 to 5 from left to right"
        pen.text((left, top + 3), title, "black", font)
        for j, x in enumerate(tiles):
            page.paste(tile(x, side), (left + j * (side + GAP), top + LINE))
    pen.text((GAP, half * high), CREDIT, "grey", font)
    return page


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else SHEET
    sheet().save(path, quality=80, optimize=True, progressive=True)
    print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
