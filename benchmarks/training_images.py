"""Training images: ours over timm's loader, from a folder, tar shards and Arrow files, and the appetite of a model.

    python benchmarks/training_images.py [pictures] [recipe]

JPEGs of ImageNet's size (500 × 375, about 90 kB, see ``reading.py``) to random crops of 224 × 224 in 8 bits, batches of
64, by timm's ``ImageFolder`` reader and ``create_loader`` and by ours, with the same augmentation: crops and mirror
images alone, then the same with RandAugment (``rand-m9-inc1``: with ``mstd`` timm's posterising stops at Pillow 13).
timm's batches are taken before its loader normalises them, and random erasing, which it leaves to the GPU and we to
the workers, is timed in ours alone. First in one process, in seconds of the processor, which other work on the machine
disturbs little; then with one worker for each core, in images a second. All files lie in the machine's memory. Rounds
are taken in turns; the median of their ratios counts.

Then the appetite: what ``aresbench doctor RECIPE`` says of a recipe whose images these are, with four workers.
"""

from __future__ import annotations

import io
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from reading import write_jpegs
from timm.data import create_loader
from timm.data.dataset import ImageDataset

from aresbench.data.base import Dataset
from aresbench.data.load import load_dataset
from aresbench.training.appetite import SECONDS, appetite, reading
from aresbench.training.images import batches
from aresbench.training.recipe import Recipe, load_recipe
from aresbench.training.world import World

BATCH, WORKERS, ROUNDS = 64, len(os.sched_getaffinity(0)), 5
CPU = World(0, 1, torch.device("cpu"))
LIGHT: dict[str, Any] = {"policy": "", "erase": 0.0, "color_jitter": 0.0, "mixup": 0.0, "cutmix": 0.0}


def write_shards(data: Dataset, folder: Path) -> None:
    """Four tar archives of a dataset."""
    folder.mkdir()
    for part in range(4):
        with tarfile.open(folder / f"{part}.tar", "w") as tar:
            for k in range(part, len(data), 4):
                key = data.ids[k].rpartition(".")[0]
                for name, content in ((f"{key}.jpg", data.file_bytes(k)), (f"{key}.cls", b"%d" % data.labels[k])):
                    assert content is not None
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def write_arrow(data: Dataset, path: Path) -> None:
    """The same as ``datasets`` saves it."""
    table = pa.table(
        {"image": pa.array([data.file_bytes(k) for k in range(len(data))], pa.binary()), "label": data.labels}
    )
    with pa.ipc.new_stream(str(path), table.schema) as out:
        out.write_table(table, max_chunksize=100)


def ours(data: Dataset, recipe: Recipe, workers: int) -> Iterator[torch.Tensor]:
    ready = replace(
        recipe,
        engine=replace(recipe.engine, batch=BATCH, accumulate=1),
        schedule=replace(recipe.schedule, epochs=10**6),
        machine=replace(recipe.machine, workers=workers),
    )
    return (batch.x for batch in batches(data, ready, CPU, 0))


def theirs(folder: Path, recipe: Recipe, workers: int) -> Iterator[torch.Tensor]:
    a = recipe.augment
    loader = create_loader(
        ImageDataset(str(folder)),
        224,
        BATCH,
        is_training=True,
        scale=a.scale,
        ratio=a.ratio,
        hflip=a.flip,
        color_jitter=a.color_jitter or None,  # type: ignore[arg-type]
        auto_augment=a.policy or None,
        interpolation=a.interpolation,
        num_workers=workers,
        device=torch.device("cpu"),
        persistent_workers=workers > 0,
        use_multi_epochs_loader=workers > 0,
    )
    while True:
        for images, _ in loader.loader:
            yield images


def seconds(source: Iterator[torch.Tensor], count: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(count):
        next(source)
    return clock() - began


def compare(mine: Iterator[torch.Tensor], peer: Iterator[torch.Tensor], workers: int) -> tuple[float, float, float]:
    """The median ratio of times, and the images a second of both."""
    clock = time.perf_counter if workers else time.process_time
    ready, count = 3 * workers, max(2, 12 * workers)
    next(mine), next(peer)
    pairs = []
    for _ in range(ROUNDS):
        times = []
        for source in (mine, peer):
            seconds(source, ready, clock)  # those that lay ready while the other was timed
            times.append(seconds(source, count, clock))
        pairs.append(times)
    rates = [count * BATCH / min(times) for times in zip(*pairs, strict=True)]
    return statistics.median(a / b for a, b in pairs), rates[0], rates[1]


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 640
    whole = load_recipe(sys.argv[2] if len(sys.argv) > 2 else "resnet50-adversarial")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["ARESBENCH_CACHE"] = str(Path(scratch, "cache"))
        folder = Path(scratch, "jpegs")
        folder.mkdir()
        print(f"{n} JPEGs of 500 × 375, {write_jpegs(folder, n) / n / 1000:.0f} kB on average; {WORKERS} cores")
        data = load_dataset(f"folder:{folder}")
        write_shards(data, Path(scratch, "tars"))
        write_arrow(data, Path(scratch, "data.arrow"))
        light = replace(whole, augment=replace(whole.augment, **LIGHT))
        heavy = replace(whole, augment=replace(whole.augment, **(LIGHT | {"policy": "rand-m9-inc1"})))
        for name, recipe in (("crops", light), ("RandAugment", heavy)):
            for workers in (0, WORKERS):
                ratio, mine, peer = compare(ours(data, recipe, workers), theirs(folder, recipe, workers), workers)
                how = f"{workers} workers" if workers else "one process"
                print(
                    f"{name:12s} {how:12s} {ratio:.2f} of timm's time ({mine:,.0f} and {peer:,.0f} images/s)",
                    flush=True,
                )
        erased = replace(light, augment=replace(light.augment, erase=0.25))
        others = {
            "erasing 0.25": (data, erased),
            "tar shards": (load_dataset(f"shards:{scratch}/tars"), light),
            "Arrow": (load_dataset(f"hf-dataset:{scratch}/data.arrow"), light),
        }
        for name, (other, recipe) in others.items():
            ratio, mine, _ = compare(ours(other, recipe, 0), ours(data, light, 0), 0)
            print(f"{name:12s} one process  {ratio:.2f} of crops from the folder ({mine:,.0f} images/s)", flush=True)
        four = replace(whole, machine=replace(whole.machine, workers=4))
        supply, hunger = reading(four, data, SECONDS), appetite(four, data.classes, CPU, SECONDS)
        print(
            f"{whole.name}: 4 workers read {supply.rate:,.0f} images/s, the model learns from {hunger.rate:,.1f} here"
        )


if __name__ == "__main__":
    main()
