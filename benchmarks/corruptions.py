"""All 15 corruptions of ImageNet-C at 5 severities: ours on a batch over imagecorruptions-imaug image by image.

    python benchmarks/corruptions.py [IMAGES] [ROUNDS] [NAME …]

Photographs of 224 px, one thread each side (PyTorch, OpenCV and Numba alike), mode ``memory``, random draws included.
Everything has run once before the clock starts, so that Numba's compilation does not count. In each round every
corruption and severity is measured for both sides in turn. As in every evaluation on a CPU, freed memory is kept by
the process, for both sides. Frost and the elastic transform are other algorithms in
that package, which reads a texture from disk for every image.

Also: glass blur against the package's loop without Numba (one image, severity 3, whose three passes make it the
dearest), and the mean cost of a corruption as a share of one EfficientNet-Lite0 forward of an image.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from common import photographs
from imagecorruptions import corrupt, get_corruption_names
from imagecorruptions import corruptions as package

from aresbench.corruptions.load import make_corruption
from aresbench.ops.memory import keep_freed_memory
from aresbench.ops.random import Streams

LIMIT, GOAL, GLASS_LIMIT = 0.75, 0.6, 0.1
SEVERITIES = (1, 2, 3, 4, 5)


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main(images: int, rounds: int, names: list[str]) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()
    model, x, _ = photographs(images)
    images = len(x)
    pixels = list((x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    ids = [str(i) for i in range(images)]

    def ours(name: str, severity: int) -> None:
        corruption = make_corruption(name, severity)
        corruption(x, Streams(0, corruption.component, ids))

    def theirs(name: str, severity: int) -> None:
        for image in pixels:
            corrupt(image, severity, name)

    for name in names:  # warm up
        for severity in SEVERITIES:
            ours(name, severity), corrupt(pixels[0], severity, name)
    times = {name: np.zeros((rounds, 2)) for name in names}
    for k in range(rounds):
        for name in names:
            for severity in SEVERITIES:
                times[name][k] += (
                    seconds(lambda n=name, s=severity: ours(n, s)),
                    seconds(  # type: ignore[misc]
                        lambda n=name, s=severity: theirs(n, s)  # type: ignore[misc]
                    ),
                )

    print(f"milliseconds an image at 224 px, mean of severities, {images} images, median of {rounds} rounds")
    print(f"{'':20}{'ours':>8}{'theirs':>8}{'ratio':>8}")
    for name, both in times.items():
        a, b = np.median(both, 0) / images / len(SEVERITIES) * 1e3
        print(f"{name:20}{a:8.1f}{b:8.1f}{np.median(both[:, 0] / both[:, 1]):8.2f}")
    total = sum(times.values())
    a, b = np.median(total, 0) / images / len(SEVERITIES) * 1e3
    ratio = statistics.median(total[:, 0] / total[:, 1])
    print(f"{'all':20}{a:8.1f}{b:8.1f}{ratio:8.2f}  limit {LIMIT}, goal {GOAL}")

    with torch.no_grad():
        model(x)
        forward = statistics.median(seconds(lambda: model(x)) for _ in range(3)) / images * 1e3
    print(f"one corruption over one EfficientNet-Lite0 forward ({forward:.1f} ms): {a / len(names) / forward:.2f}")

    if "glass_blur" in names:
        passes = (0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)
        loop = package._shuffle_pixels_njit_glass_blur.py_func
        slow = seconds(lambda: loop(224, 224, pixels[0].copy(), passes[2], 0))
        fast = min(seconds(lambda: ours("glass_blur", 3)) for _ in range(rounds)) / images
        print(f"glass_blur 3 over the loop without Numba ({slow * 1e3:.0f} ms): {fast / slow:.3f}  limit {GLASS_LIMIT}")


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 8,
        int(sys.argv[2]) if len(sys.argv) > 2 else 3,
        sys.argv[3:] or get_corruption_names(),
    )
