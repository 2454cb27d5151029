"""float32 images in 8-bit levels and what is left of them, to the bit: how adversarial images are kept.

``levels`` is one byte a value, the nearest 8-bit level. ``rest`` is empty where level/255 is the image. Else it is
four planes of bytes, lowest first: for each value the distance from level/255 counted in steps of float32, its sign
in the lowest bit (0, −1, 1, −2, … are 0, 1, 2, 3, …). Most attacks move by a few whole levels, so that the upper
planes are mostly zero and compress to nothing.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def pack(image: Floats) -> tuple[bytes, bytes]:
    """``levels`` and ``rest`` of a float32 image [3, H, W]."""
    if image.dtype != np.float32:
        raise ValueError(f"the image must be float32, not {image.dtype}")
    levels = np.clip(np.nan_to_num(image * 255), 0, 255).round().astype(np.uint8)
    steps = (_bits(image) - _bits(_whole(levels))).view(np.int32)
    if not steps.any():
        return levels.tobytes(), b""
    folded = ((steps << 1) ^ (steps >> 31)).astype("<u4")
    return levels.tobytes(), np.ascontiguousarray(folded.reshape(-1, 1).view(np.uint8).T).tobytes()


def unpack(levels: bytes, rest: bytes, height: int, width: int) -> Floats:
    """The image [3, height, width] that ``pack`` was given.

    Raises:
        ValueError: the bytes are too few or too many for an image of this size.
    """
    whole = _whole(np.frombuffer(levels, np.uint8).reshape(3, height, width))
    if not rest:
        return whole
    planes = np.frombuffer(rest, np.uint8).reshape(4, -1)
    folded = np.ascontiguousarray(planes.T).view("<u4").reshape(whole.shape).astype(np.uint32)
    steps = (folded >> 1) ^ (0 - (folded & 1))
    return (_bits(whole) + steps).view(np.float32)


def origin(image: Floats) -> str:
    """12 hex digits that name an image by its values."""
    return hashlib.sha256(np.ascontiguousarray(image, np.float32).tobytes()).hexdigest()[:12]


def _whole(levels: NDArray[np.uint8]) -> Floats:
    return levels.astype(np.float32) / np.float32(255)


def _bits(image: Floats) -> NDArray[np.uint32]:
    return np.ascontiguousarray(image).view(np.uint32)
