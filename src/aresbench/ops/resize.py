"""From a picture to a model's input: RGB, resize, centre crop, equal to torchvision and timm to the last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from aresbench.core.errors import DataError
from aresbench.core.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture as 8-bit RGB, as torchvision and timm read it.

    Grey is repeated over the three channels; palettes are looked up; transparency is dropped, not
    composited; CMYK goes through Pillow's plain conversion; the EXIF orientation is ignored. The one
    difference: 16-bit grey is scaled to 8 bits, where ``convert("RGB")`` of some Pillow versions clips it.

    Raises:
        DataError: the pixels have no known range (floating point, or integers beyond 16 bits).
    """
    if image.mode == "RGB":
        return image
    if image.mode in _DEEP_GREY:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(
                f"a picture with grey values from {values.min()} to {values.max()} has no known range",
                "save it with 8 or 16 bits per channel",
            )
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise DataError("a picture with floating-point pixels has no known range", "save it with 8 bits per channel")
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours as the direct way, which warns
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Bring an RGB picture to a model's input size.

    The shorter side is resized to ``preprocessing.resize`` pixels (the longer one rounded down; or both sides, see
    ``squash``), then the middle is cut out; where the crop is larger than the picture, black is added around it.

    Args:
        image: RGB picture of any size.
        preprocessing: size, resize, interpolation.

    Returns:
        An RGB picture of ``preprocessing.size``.

    Raises:
        DataError: ``preprocessing.resize`` is None and the picture has another size.
    """
    height, width = preprocessing.size
    if preprocessing.squash:
        across = (width, height) if preprocessing.resize is None else (preprocessing.resize,) * 2
        return _center_crop(image.resize(across, _FILTERS[preprocessing.interpolation]), height, width)
    if preprocessing.resize is None:
        if image.size != (width, height):
            raise DataError(
                f"a picture is {image.height}×{image.width}, the model takes {height}×{width}, and nothing is resized",
                "give the preprocessing a resize length, or use pictures of that size",
            )
        return image
    short, long = sorted(image.size)
    new_long = int(preprocessing.resize * long / short)
    landscape = image.width > image.height
    target = (new_long, preprocessing.resize) if landscape else (preprocessing.resize, new_long)
    if target != image.size:
        image = image.resize(target, _FILTERS[preprocessing.interpolation])
    return _center_crop(image, height, width)


def _center_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """torchvision's CenterCrop: pads first (the extra pixel right and below), then rounds half to even."""
    if width > image.width or height > image.height:
        left = max(width - image.width, 0) // 2
        top = max(height - image.height, 0) // 2
        canvas = Image.new("RGB", (max(width, image.width), max(height, image.height)))
        canvas.paste(image, (left, top))
        image = canvas
    top = round((image.height - height) / 2)
    left = round((image.width - width) / 2)
    if (left, top, width, height) == (0, 0, *image.size):
        return image
    return image.crop((left, top, left + width, top + height))


def apply(image: Image.Image, preprocessing: Preprocessing | None) -> Tensor:
    """A picture as uint8 [3, H, W], resized and cropped; ``None`` keeps its size.

    Args:
        image: a picture of any mode and size.
        preprocessing: size, resize, interpolation; or None.

    Raises:
        DataError: see ``to_rgb`` and ``resize_and_crop``.
    """
    import torch

    rgb = to_rgb(image)
    if preprocessing is not None:
        rgb = resize_and_crop(rgb, preprocessing)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()
