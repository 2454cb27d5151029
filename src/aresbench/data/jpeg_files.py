"""Whether JPEG files are still the published ones: size, quantisation tables and chroma sampling, without decoding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, JpegImagePlugin

from aresbench.core.flag import Flag

# The luminance table of ITU-T T.81, annex K.1, row by row; libjpeg scales it by quality.
_LUMINANCE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61),
        *(12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56),
        *(14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77),
        *(24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101),
        *(72, 92, 95, 98, 112, 100, 103, 99),
    ]
)
_SAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


@dataclass(frozen=True)
class Header:
    """What a picture's header says.

    Args:
        size: (width, height).
        how: how it was written, e.g. ``JPEG quality 85, 4:2:0``, or the name of another format.
    """

    size: tuple[int, int]
    how: str


def luminance_table(quality: int) -> tuple[int, ...]:
    """libjpeg's luminance table at a quality from 1 to 100."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return tuple(int(v) for v in np.clip((_LUMINANCE * scale + 50) // 100, 1, 255))


@cache
def _quality_of() -> dict[tuple[int, ...], int]:
    return {luminance_table(quality): quality for quality in range(1, 101)}


def read_header(path: Path) -> Header | None:
    """A picture's header; None where it cannot be read."""
    try:
        with Image.open(path) as opened:
            if not isinstance(opened, JpegImagePlugin.JpegImageFile):
                return Header(opened.size, str(opened.format))
            quality = _quality_of().get(tuple(opened.quantization[0]))
            tables = f"quality {quality}" if quality else "tables of another encoder"
            sampling = _SAMPLING.get(JpegImagePlugin.get_sampling(opened), "other sampling")
            return Header(opened.size, f"JPEG {tables}, {sampling}")
    except (OSError, SyntaxError, ValueError, KeyError):
        return None


def published_jpegs(
    files: Sequence[Path], title: str, size: tuple[int, int], quality: int | None, restore: str
) -> list[Flag]:
    """Flags about pictures that were resized or saved again since they were published.

    A file that was decoded and saved again with the very same settings cannot be told from a published one.

    Args:
        files: the pictures.
        title: the set's name for readers.
        size: (width, height) as published.
        quality: libjpeg's quality as published, with 4:2:0 chroma; None: it varies.
        restore: where the published files come from.
    """
    with ThreadPoolExecutor(8) as pool:  # waits for the disk rather than computes
        headers = [header for header in pool.map(read_header, files) if header is not None]
    flags = []
    sizes = Counter(header.size for header in headers if header.size != size)
    if sizes:
        count, (width, height) = sum(sizes.values()), sizes.most_common(1)[0][0]
        flags.append(
            Flag(
                "resized",
                "error",
                "data",
                f"{count} of {len(headers)} pictures are not {size[0]}×{size[1]}, most of them {width}×{height}: "
                f"{title} is published at {size[0]}×{size[1]}",
                f"{restore}; pictures resized once more give other accuracies, by several points",
                {"count": count, "sizes": {f"{w}x{h}": k for (w, h), k in sizes.most_common(5)}},
            )
        )
    written = f"JPEG quality {quality}, 4:2:0"
    others = Counter(header.how for header in headers if quality is not None and header.how != written)
    if others:
        count = sum(others.values())
        flags.append(
            Flag(
                "re-saved",
                "error",
                "data",
                f"{count} of {len(headers)} pictures are not as published ({written}), most of them "
                f"{others.most_common(1)[0][0]}: they were saved again, and lost or smoothed something",
                restore,
                {"count": count, "how": dict(others.most_common(5))},
            )
        )
    return flags
