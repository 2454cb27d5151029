"""Images through JPEG and back."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def through_jpeg(images: Tensor, quality: int) -> Tensor:
    """Encode and decode images as baseline JPEG with 4:2:0 chroma, on the CPU through Pillow (libjpeg).

    Args:
        images: [N,3,H,W] uint8 RGB, on any device.
        quality: libjpeg's quality, 1 to 95.

    Returns:
        [N,3,H,W] uint8 on the same device.
    """
    decoded = np.empty(images.shape, np.uint8)
    for image, result in zip(images.cpu().numpy(), decoded, strict=True):
        file = BytesIO()
        picture = Image.merge("RGB", [Image.fromarray(plane) for plane in image])
        picture.save(file, "JPEG", quality=quality, subsampling="4:2:0")
        for channel, plane in enumerate(Image.open(file).split()):
            result[channel] = plane
    return torch.from_numpy(decoded).to(images.device)
