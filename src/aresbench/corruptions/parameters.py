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

# Photons per unit of brightness: the fewer, the noisier.
SHOT_NOISE: Doses = {
    32: (500, 250, 100, 75, 50),
    64: (250, 100, 50, 30, 15),
    224: (60, 25, 12, 5, 3),
    299: (50, 20, 10, 5, 3),
}

# Share of values replaced, half by 1 and half by 0.
IMPULSE_NOISE: Doses = {
    32: (0.01, 0.02, 0.03, 0.05, 0.07),
    64: (0.01, 0.02, 0.05, 0.08, 0.14),
    224: (0.03, 0.06, 0.09, 0.17, 0.27),
    299: (0.04, 0.07, 0.1, 0.18, 0.28),
}

# Standard deviation of the factor that multiplies each value.
SPECKLE_NOISE: Doses = {
    32: (0.06, 0.1, 0.12, 0.16, 0.2),
    64: (0.15, 0.2, 0.25, 0.3, 0.35),
    224: (0.15, 0.2, 0.35, 0.45, 0.6),
    299: (0.16, 0.21, 0.36, 0.46, 0.61),
}

# Sigma in pixels.
GAUSSIAN_BLUR: Doses = {
    32: (0.4, 0.6, 0.7, 0.8, 1),
    64: (0.5, 0.75, 1, 1.25, 1.5),
    224: (1, 2, 3, 4, 6),
    299: (1.5, 2.5, 3.5, 4.5, 6.5),
}

# Sigma in pixels of the blur before and after, largest displacement in pixels, passes over the picture.
GLASS_BLUR: Doses = {
    32: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    64: ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
    224: ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    299: ((0.8, 1, 3), (1, 3, 1), (1.1, 2, 4), (1.2, 4, 2), (1.6, 5, 2)),
}

# Radius in pixels and sigma in pixels of the trail.
MOTION_BLUR: Doses = {
    32: ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    64: ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
    224: ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    299: ((12, 4), (17, 6), (17, 9), (17, 13), (22, 16)),
}

# Step from one zoom factor to the next, and number of factors; the first is 1. The counts are those of a range in
# floating point, which overshoots its end: at 224 px severity 1 ends at 1.11, not at 1.10.
ZOOM_BLUR: Doses = {
    32: ((0.01, 7), (0.01, 12), (0.01, 16), (0.01, 21), (0.01, 26)),
    64: ((0.01, 7), (0.01, 12), (0.01, 16), (0.01, 21), (0.01, 26)),
    224: ((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11)),
    299: ((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11)),
}

# Mean and deviation of the flakes, their zoom, the threshold that thins them, radius and sigma in pixels of their fall,
# and the weight of the picture against its whitened copy.
SNOW: Doses = {
    32: (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    64: (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
    ),
    224: (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    299: (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
}

# Weight of the picture and of the frost.
FROST: Doses = {
    32: ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    64: ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
    224: ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    299: ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
}

# Factor about each channel's mean.
CONTRAST: Doses = {
    32: (0.75, 0.5, 0.4, 0.3, 0.15),
    64: (0.4, 0.3, 0.2, 0.1, 0.05),
    224: (0.4, 0.3, 0.2, 0.1, 0.05),
    299: (0.4, 0.3, 0.2, 0.1, 0.05),
}

# Factor and offset of the saturation channel of HSV.
SATURATE: Doses = {
    32: ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    64: ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
    224: ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    299: ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
}

# Size and smoothness (sigma) of the displacements and jitter of the affine map, all in pixels.
ELASTIC_TRANSFORM: Doses = {
    32: ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
    64: ((0, 0, 5.12), (3.2, 19.2, 3.84), (6.4, 5.12, 3.84), (6.4, 1.92, 1.92), (10.24, 1.92, 1.28)),
    224: ((488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)),
    299: ((720, 252, 36), (720, 28.8, 72), (18, 3.6, 7.2), (25.2, 3.6, 7.2), (43.2, 3.6, 7.2)),
}

# Side of the reduced picture as a share of the side.
PIXELATE: Doses = {
    32: (0.95, 0.9, 0.85, 0.75, 0.65),
    64: (0.9, 0.8, 0.7, 0.6, 0.5),
    224: (0.6, 0.5, 0.4, 0.3, 0.25),
    299: (0.5, 0.4, 0.3, 0.25, 0.2),
}

# Mean and deviation of the drops, sigma in pixels of their blur, threshold, strength of water or sigma of mud,
# and whether it is mud (1) or water (0).
SPATTER: Doses = {
    32: (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    64: (
        (0.62, 0.1, 0.7, 0.7, 0.6, 0),
        (0.65, 0.1, 0.8, 0.7, 0.6, 0),
        (0.65, 0.3, 1, 0.69, 0.6, 0),
        (0.65, 0.1, 0.7, 0.68, 0.6, 1),
        (0.65, 0.1, 0.5, 0.67, 0.6, 1),
    ),
    224: (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    299: (
        (0.65, 0.3, 4, 0.69, 0.9, 0),
        (0.65, 0.3, 3.5, 0.68, 0.9, 0),
        (0.65, 0.3, 3, 0.68, 0.8, 0),
        (0.65, 0.3, 1.2, 0.65, 1.8, 1),
        (0.67, 0.4, 1.2, 0.65, 1.8, 1),
    ),
}


def nearest_set(sides: Iterable[int], height: int, width: int) -> int:
    """The side whose doses an image of this size gets: the nearest to its shorter side, by ratio.

    By ratio, because a blur or a grain acts relative to the size of what is in the picture: 128 px
    is closer to 224 (×1.75) than to 64 (×2).
    """
    shorter = min(height, width)
    return min(sides, key=lambda side: (max(side, shorter) / min(side, shorter), side))
