"""Reading pictures: the cache's first and second pass over torchvision's ImageFolder with a DataLoader.

    python benchmarks/reading.py [pictures]

A folder of JPEGs of ImageNet's size (500 × 375): random pieces of 22 photographs (the samples and scikit-learn's two),
enlarged where they must be and therefore smoother: about 90 kB each, where ImageNet's validation set has 130. All files
lie in the machine's memory, as they would not on a cold disk, where the first pass and ImageFolder wait alike.

Both resize the shorter side to 256 (bicubic), cut out 224 × 224 and give 8-bit batches of 256; the DataLoader has as
many workers as there are cores. ImageFolder decodes in every pass, ours in the first alone. Pixels are compared once,
to the last bit. Best of three passes each but for the first, taken in turns.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from aresbench.core.preprocessing import Preprocessing
from aresbench.data.base import Dataset
from aresbench.data.cache import PictureCache
from aresbench.data.load import load_dataset

BATCH, WORKERS, ROUNDS = 256, len(os.sched_getaffinity(0)), 3
PREPROCESSING = Preprocessing((224, 224), 256, "bicubic")


def write_jpegs(folder: Path, n: int) -> int:
    """n JPEGs in ten classes; returns their bytes."""
    samples = load_dataset("samples")
    photographs = [samples.picture(i) for i in range(len(samples))]
    photographs += [Image.fromarray(image) for image in load_sample_images().images]
    draw = np.random.default_rng(0)
    total = 0
    for k in range(n):
        photograph = photographs[k % len(photographs)]
        height = int(draw.integers(280, min(photograph.height, photograph.width * 3 // 4) + 1))
        width = height * 4 // 3
        left, top = (int(draw.integers(0, room + 1)) for room in (photograph.width - width, photograph.height - height))
        piece = photograph.crop((left, top, left + width, top + height))
        file = folder / f"class{k % 10}" / f"{k:06d}.jpg"
        file.parent.mkdir(exist_ok=True)
        piece.resize((500, 375), Image.Resampling.BICUBIC).save(file, quality=96)
        total += file.stat().st_size
    return total


def ours(data: Dataset, cache: Path) -> Iterator[Tensor]:
    pictures = PictureCache(cache)
    for start in range(0, len(data), BATCH):
        yield pictures.load(data, range(start, min(start + BATCH, len(data))), PREPROCESSING)[0]


def timed(batches: Iterator[Tensor]) -> tuple[float, int]:
    """Seconds for all batches, and the sum of some of their bytes (which have therefore been there)."""
    began, total = time.perf_counter(), 0
    for batch in batches:
        total += int(batch[:, :, ::32, ::32].sum())
    return time.perf_counter() - began, total


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = Path(scratch, "jpegs"), Path(scratch, "cache")
        folder.mkdir()
        size = write_jpegs(folder, n)
        print(f"{n} JPEGs of 500 × 375, {size / n / 1000:.0f} kB on average; {WORKERS} cores", flush=True)
        data = load_dataset(f"folder:{folder}")
        transform = v2.Compose(
            [v2.Resize(256, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224), v2.PILToTensor()],
        )
        peer = ImageFolder(str(folder), transform)
        of_peer = {Path(path).relative_to(folder).as_posix(): k for k, (path, _) in enumerate(peer.samples)}
        places = [of_peer[image_id] for image_id in data.ids]  # our order, so that batches can be compared
        loader = DataLoader(peer, BATCH, sampler=places, num_workers=WORKERS)

        def theirs() -> Iterator[Tensor]:
            return (images for images, _ in loader)

        timed(theirs())  # the files come into memory
        needed = PictureCache(cache).needed(data, PREPROCESSING)
        print(f"the cache will take {needed / 1e6:.0f} MB", flush=True)
        first, total = timed(ours(data, cache))
        second, folders = [], []
        for _ in range(ROUNDS):
            for passes, batches in ((folders, theirs()), (second, ours(data, cache))):
                seconds, again = timed(batches)
                assert again == total
                passes.append(seconds)
        assert all(torch.equal(a, b) for a, b in zip(ours(data, cache), theirs(), strict=True)), "pixels differ"
        print("pixels are equal to torchvision's")
        for name, seconds in (("first pass", first), ("second pass", min(second))):
            print(f"{name:12s} {n / seconds:8,.0f} images/s   {min(folders) / seconds:5.1f} × ImageFolder + DataLoader")
        print(f"ImageFolder  {n / min(folders):8,.0f} images/s")


if __name__ == "__main__":
    main()
