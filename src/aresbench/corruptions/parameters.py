"""The doses of each corruption at severities 1 to 5, for the four image sizes the benchmark defines.

224 is ImageNet-C, 32 CIFAR-10-C, 64 Tiny-ImageNet-C and 299 the ImageNet-C variant for Inception
networks (Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations", ICLR 2019; https://github.com/hendrycks/robustness). Other sizes take the set
of the nearest of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

# Image side in pixels → one dose per severity 1…5.
Doses: TypeAlias = Mapping[int, tuple[Any, ...]]

# Standard deviation of the noise, for values in [0,1].
GAUSSIAN_NOISE: Doses = {
    32: (0.04, 0.06, 0.08, 0.09, 0.10),
    64: (0.04, 0.08, 0.12, 0.15, 0.18),
    224: (0.08, 0.12, 0.18, 0.26, 0.38),
    299: (0.09, 0.13, 0.19, 0.27, 0.40),
}

# Radius of the disk in pixels, and sigma in pixels of the Gaussian that softens its edge.
DEFOCUS_BLUR: Doses = {
    32: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    64: ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
    224: ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    299: ((4, 0.1), (5, 0.5), (7, 0.5), (10, 0.5), (12, 0.5)),
}

# How much fog (1 doubles the brightest value), and how fast its relief fades from coarse to fine.
FOG: Doses = {
    32: ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    64: ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
    224: ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    299: ((1.5, 2), (2, 2), (2.5, 1.8), (2.5, 1.6), (3, 1.5)),
}

# Added to the value channel of HSV, in [0,1].
BRIGHTNESS: Doses = {
    32: (0.05, 0.10, 0.15, 0.20, 0.30),
    64: (0.10, 0.20, 0.30, 0.40, 0.50),
    224: (0.10, 0.20, 0.30, 0.40, 0.50),
    299: (0.10, 0.20, 0.30, 0.40, 0.50),
}

# libjpeg's quality setting.
JPEG_COMPRESSION: Doses = {
    32: (80, 65, 58, 50, 40),
    64: (65, 58, 50, 40, 25),
    224: (25, 18, 15, 10, 7),
    299: (23, 16, 13, 8, 5),
}


def nearest_set(sides: Iterable[int], height: int, width: int) -> int:
    """The side whose doses an image of this size gets: the nearest to its shorter side, by ratio.

    By ratio, because a blur or a grain acts relative to the size of what is in the picture: 128 px
    is closer to 224 (×1.75) than to 64 (×2).
    """
    shorter = min(height, width)
    return min(sides, key=lambda side: (max(side, shorter) / min(side, shorter), side))
