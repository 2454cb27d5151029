"""Images through JPEG and back."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from aresbench.ops.jpeg_tensors import through_jpeg_tensors


def through_jpeg(images: Tensor, quality: int) -> Tensor:
    """Encode and decode images as baseline JPEG with 4:2:0 chroma.

    On the CPU through Pillow (libjpeg); elsewhere by the same whole numbers on tensors, equal to libjpeg-turbo's, so
    that nothing leaves the device.

    Args:
        images: [N,3,H,W] uint8 RGB, on any device.
        quality: libjpeg's quality, 1 to 95.

    Returns:
        [N,3,H,W] uint8 on the same device.
    """
    if images.device.type != "cpu":
        return through_jpeg_tensors(images, quality)
    decoded = np.empty(images.shape, np.uint8)
    for image, result in zip(images.numpy(), decoded, strict=True):
        file = BytesIO()
        picture = Image.merge("RGB", [Image.fromarray(plane) for plane in image])
        picture.save(file, "JPEG", quality=quality, subsampling="4:2:0")
        for channel, plane in enumerate(Image.open(file).split()):
            result[channel] = plane
    return torch.from_numpy(decoded)
