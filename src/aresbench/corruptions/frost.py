"""Frost on the lens. The pictures of frost belong to the benchmark; an installed package brings them along."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from aresbench.core.errors import DataError
from aresbench.corruptions.base import Corruption, widen
from aresbench.corruptions.parameters import FROST, Doses
from aresbench.ops.random import Streams


@dataclass(frozen=True)
class Texture:
    """One picture of frost: its file, its size in pixels, and the SHA-256 of the file."""

    file: str
    height: int
    width: int
    sha256: str


# The five that the benchmark draws from, in its order. The second and the third show the same pixels. The package
# also has a sixth, which the benchmark never used.
TEXTURES = (
    Texture("frost1.png", 600, 900, "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755"),
    Texture("frost2.png", 315, 560, "fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137"),
    Texture("frost3.png", 315, 560, "2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504"),
    Texture("frost4.jpg", 350, 527, "3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e"),
    Texture("frost5.jpg", 495, 660, "5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2"),
)
PACKAGE = "imagecorruptions"

# The textures shrink for small images: image side of the doses → factor.
FACTORS = {32: 0.2, 64: 0.3, 224: 1.0, 299: 1.0}
# In the mode imagecorruptions a texture is this much larger than it must be.
MARGIN = 1.1


@dataclass(frozen=True)
class Frost(Corruption):
    """Ice crystals on the lens: a random piece of one of five pictures of frost (Hendrycks and Dietterich, ICLR 2019).

    a·x + b·texture. The textures keep their size (315 to 600 px high) for images of 224 and 299 px and are scaled
    by 0.2 for 32 px and 0.3 for 64 px, bilinearly with OpenCV's fixed-point weights. For sizes in between, the
    first of these factors counts, from that of the image's doses upwards, at which every texture covers the image.
    A larger image than 315 × 527 px has no frost but in the mode ``imagecorruptions``: there a texture is enlarged
    (bicubically, as OpenCV does but for 1 level on 3 of 100,000 values) to 1.1 times the size that the image needs.
    That package draws from the same five textures; its fork imagecorruptions-imaug has a sixth.

    Draws: ``texture``, ``top`` and ``left`` [N] int64. As in the benchmark, the last row and column where a piece
    could begin are never drawn.

    Args:
        severity: 1 to 5; weights from (1, 0.4) to (0.6, 0.75) at 224 px.
        mode: the protocol.

    Raises:
        DataError: when called: the package with the textures is not installed, or an image is too large for them.
    """

    name: ClassVar[str] = "frost"
    family: ClassVar[str] = "weather"
    paper: ClassVar[str] = "https://arxiv.org/abs/1903.12261"
    revision: ClassVar[int] = 1
    doses: ClassVar[Doses] = FROST

    def require(self, height: int | None = None, width: int | None = None) -> None:
        read_texture(TEXTURES[0])
        if height is not None and width is not None:
            self._sheets(height, width)

    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        texture = streams.integers("texture", len(TEXTURES))
        sizes = torch.tensor(self._sheets(height, width).sizes, device=texture.device)[texture]
        rest = (sizes - torch.tensor((height, width), device=texture.device)).clamp_min(1)
        return {
            "texture": texture,
            "top": streams.integers("top", rest[:, 0]),
            "left": streams.integers("left", rest[:, 1]),
        }

    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        height, width = x.shape[2:]
        of_image, of_frost = self.dose(height, width)
        ice = _stack(self._sheets(height, width), x.device)
        texture, top, left = (draws[key].to(x.device) for key in ("texture", "top", "left"))
        rows = top[:, None] + torch.arange(height, device=x.device)
        columns = left[:, None] + torch.arange(width, device=x.device)
        piece = ice[texture[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        # In levels, as the benchmark adds them: the order of the roundings decides where a sum is a whole number.
        total = (widen(x) * 255).mul_(of_image).add_(piece.double().mul_(of_frost))
        return total.clamp_(0, 255).floor_()

    def _sheets(self, height: int, width: int) -> _Sheets:
        """How the textures are laid over images of this size."""
        if self.mode == "imagecorruptions":
            needs = [max(1, height / t.height, width / t.width) * MARGIN for t in TEXTURES]
            enlarged = (
                (math.ceil(t.height * need), math.ceil(t.width * need)) for t, need in zip(TEXTURES, needs, strict=True)
            )
            return _Sheets(tuple(enlarged), None)
        least = FACTORS[self.parameter_set(height, width)]
        for factor in sorted({factor for factor in FACTORS.values() if factor >= least}):
            sizes = tuple((round(t.height * factor), round(t.width * factor)) for t in TEXTURES)
            if all(h >= height and w >= width for h, w in sizes):
                return _Sheets(sizes, factor)
        raise DataError(
            f"frost's textures do not cover an image of {height}×{width} pixels",
            f"by its definition frost ends at {min(t.height for t in TEXTURES)}×{min(t.width for t in TEXTURES)}: "
            "make the images smaller, or choose the mode imagecorruptions, which enlarges the textures",
        )


@dataclass(frozen=True)
class _Sheets:
    """The textures at the sizes (height, width) at which they are laid over an image.

    Args:
        sizes: one for each texture.
        factor: by which they were reduced, bilinearly; None: they were enlarged, bicubically.
    """

    sizes: tuple[tuple[int, int], ...]
    factor: float | None


@lru_cache(maxsize=8)
def _stack(sheets: _Sheets, device: torch.device) -> Tensor:
    """The textures in one tensor [5, height, width, 3] uint8, zeros where one is smaller than the largest."""
    stack = np.zeros((len(TEXTURES), *np.max(sheets.sizes, 0), 3), np.uint8)
    for k, (texture, (height, width)) in enumerate(zip(TEXTURES, sheets.sizes, strict=True)):
        pixels = read_texture(texture)
        if sheets.factor is None:
            pixels = enlarged(pixels, height, width)
        elif sheets.factor != 1:
            pixels = reduced(pixels, height, width, sheets.factor)
        stack[k, :height, :width] = pixels
    return torch.from_numpy(stack).to(device)


def read_texture(texture: Texture) -> np.ndarray:
    """A picture of frost from the installed package, which is not imported: uint8 [height, width, 3], RGB.

    Raises:
        DataError: the package is not installed, or its file is not that of the benchmark.
    """
    package = importlib.util.find_spec(PACKAGE)
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise DataError(
            f"frost needs the textures that come with the package {PACKAGE}-imaug",
            'run: pip install "aresbench[frost]"',
        )
    path = Path(folders[0], "frost", texture.file)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"frost's texture {path} cannot be read: {error}", f"run: pip install --force-reinstall {PACKAGE}-imaug"
        ) from None
    if hashlib.sha256(data).hexdigest() != texture.sha256:
        raise DataError(
            f"{path} is not the texture of the benchmark: its SHA-256 does not begin with {texture.sha256[:12]}",
            f"run: pip install --force-reinstall {PACKAGE}-imaug",
        )
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))  # what lies under a transparent layer, as OpenCV


def reduced(pixels: np.ndarray, height: int, width: int, factor: float) -> np.ndarray:
    """A picture [h, w, 3] uint8 resized as OpenCV does, to the bit: two neighbours a side, weights of 11 bits."""

    def line(length: int, result: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        place = ((np.arange(result) + 0.5) / factor - 0.5).astype(np.float32)
        before = np.floor(place).astype(np.int64)
        part = place - before.astype(np.float32)
        after = np.minimum(before + 1, length - 1)
        return before, after, np.rint((1 - part) * 2048).astype(np.int64), np.rint(part * 2048).astype(np.int64)

    left, right, at_left, at_right = line(pixels.shape[1], width)
    up, down, at_up, at_down = line(pixels.shape[0], height)
    wide = pixels.astype(np.int64)
    # OpenCV drops 4 bits between the two passes, and 16 before the last sum.
    rows = (wide[:, left] * at_left[:, None] + wide[:, right] * at_right[:, None]) >> 4
    upper, lower = (rows[up] * at_up[:, None, None]) >> 16, (rows[down] * at_down[:, None, None]) >> 16
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def enlarged(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture [h, w, 3] uint8 resized by the cubic kernel of Keys (1981) with a = −0.75; edges are repeated."""

    def weights(length: int, result: int) -> np.ndarray:
        place = (np.arange(result) + 0.5) * (length / result) - 0.5
        operator = np.zeros((result, length))
        for k in range(-1, 3):
            pixel = np.floor(place) + k
            gap = np.abs(place - pixel)
            near, far = (1.25 * gap - 2.25) * gap * gap + 1, ((-0.75 * gap + 3.75) * gap - 6) * gap + 3
            column = np.clip(pixel, 0, length - 1).astype(np.int64)
            np.add.at(operator, (np.arange(result), column), np.where(gap <= 1, near, far))
        return operator

    down, along = weights(pixels.shape[0], height), weights(pixels.shape[1], width)
    planes = down @ pixels.transpose(2, 0, 1).astype(np.float64) @ along.T
    return np.clip(np.rint(planes), 0, 255).astype(np.uint8).transpose(1, 2, 0)
