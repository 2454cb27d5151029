"""Does reading keep up with learning? Both are measured on this machine, before a training is begun."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from aresbench.core.classes import Classes
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset
from aresbench.training.images import Batch, Variation, batches, random_states_kept, seed_drawing
from aresbench.training.learner import Learner, make_learner
from aresbench.training.loop import datasets, learn
from aresbench.training.order import permutation
from aresbench.training.recipe import Recipe
from aresbench.training.world import World, joined

SECONDS = 5.0  # of each measurement
SPARE = 1.1  # reading should be this much faster than learning, for it varies
_READ_AT_ONCE = 16  # small batches, so that a few seconds hold many
_LEARNED_AT_ONCE = (8, 64)  # images of an update: a few where those take long, many where they are quick
_LOOK_AT = 32  # pictures that are timed one by one


@dataclass(frozen=True)
class Reading:
    """How fast training images are made.

    Args:
        rate: images a second, by all workers together.
        workers: how many; 0: the training process itself.
        cores: that this process may use, for each GPU.
        read, decode, vary: seconds that one image takes from the disk, as a JPEG, and in the augmentation.
        side: the shorter side of the pictures in pixels, the median.
    """

    rate: float
    workers: int
    cores: int
    read: float
    decode: float
    vary: float
    side: int


@dataclass(frozen=True)
class Appetite:
    """How fast a model learns when images are there.

    Args:
        rate: images a second.
        device: where.
    """

    rate: float
    device: str


def examine(
    recipe: Recipe, device: str | torch.device | None = None, seconds: float = SECONDS
) -> tuple[str, list[Flag]]:
    """Measure reading and learning for some seconds each.

    Args:
        recipe: of the training; its data are read.
        device: where the model is to learn; default: a GPU if there is one.
        seconds: of each measurement.

    Returns:
        A line with both, and what is to be said about them.

    Raises:
        SpecError, DataError, ModelError: as ``train``.
    """
    with joined(device) as world, random_states_kept():
        learned, _ = datasets(recipe)
        supply = reading(recipe, learned, seconds)
        hunger = appetite(recipe, learned.classes, world, seconds)
    who = f"{supply.workers} workers read" if supply.workers else "reading without workers makes"
    about = f"{who} {supply.rate:,.0f} images/s; the model learns from {hunger.rate:,.0f} images/s on {hunger.device}"
    return about, verdict(supply, hunger, recipe.model.size)


def reading(recipe: Recipe, data: Dataset, seconds: float) -> Reading:
    """Make batches as the training would, and throw them away.

    Args:
        recipe: says how images are varied, and by how many workers.
        data: the images.
        seconds: how long.
    """
    size = min(_READ_AT_ONCE, len(data))
    ready = replace(
        recipe,
        augment=replace(recipe.augment, mixup=0.0, cutmix=0.0),  # these are made where the model is
        engine=replace(recipe.engine, batch=size, accumulate=1),
        schedule=replace(recipe.schedule, epochs=10**6),
    )
    workers = recipe.machine.workers
    source = batches(data, ready, World(0, 1, torch.device("cpu")), 0)
    for _ in range(1 + workers):  # until each worker is up
        next(source)
    began, made = time.monotonic(), 0
    while made < 2 * size * (1 + workers) or time.monotonic() - began < seconds:
        made += len(next(source).y)
    rate = made / (time.monotonic() - began)
    source.close()  # type: ignore[attr-defined]
    return Reading(rate, workers, _cores(), *_costs(recipe, data))


def _costs(recipe: Recipe, data: Dataset) -> tuple[float, float, float, int]:
    """Seconds to read, decode and vary an image, and the median of the shorter side, on images not read just now."""
    vary = Variation(recipe)
    spent = np.zeros(3)
    sides = []
    chosen = permutation(len(data), recipe.seed, 0)[-_LOOK_AT:].tolist()
    for place in chosen:
        times = [time.perf_counter()]
        data.file_bytes(place)
        times.append(time.perf_counter())
        picture = data.picture(place)  # from the machine's memory now
        times.append(time.perf_counter())
        seed_drawing(place)
        vary(picture)
        times.append(time.perf_counter())
        spent += np.diff(times)
        sides.append(min(picture.size))
    read, decode, varied = (spent / len(chosen)).tolist()
    return read, decode, varied, int(np.median(sides))


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, torch.cuda.device_count()))


def appetite(recipe: Recipe, classes: Classes, world: World, seconds: float) -> Appetite:
    """Let a fresh learner make updates from noise that is already there.

    Args:
        recipe: of the training.
        classes: that are learned.
        world: says where.
        seconds: how long, at least two updates.
    """
    most = max(2, recipe.engine.batch // recipe.engine.accumulate // world.size)
    rate = 0.0
    for size in sorted({min(n, most) // 2 * 2 for n in _LEARNED_AT_ONCE}):
        ready = replace(recipe, engine=replace(recipe.engine, batch=size, accumulate=1, parallel="ddp"))
        learner = make_learner(ready, classes, 10**6, World(0, 1, world.device))
        pixels = torch.randint(0, 256, (size, 3, recipe.model.size, recipe.model.size), dtype=torch.uint8)
        ids = tuple(str(k) for k in range(size))
        batch = Batch(pixels, torch.arange(size) % learner.outputs, ids, 0)
        first = _update(learner, batch)  # warms up
        began, times = time.monotonic(), [_update(learner, batch)]
        while time.monotonic() - began < seconds / 2:
            times.append(_update(learner, batch))
        rate = size / float(np.median(times))
        if first > seconds / 2 and world.device.type == "cpu":
            break  # larger batches would take minutes, and are no faster there
    name = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else str(world.device)
    return Appetite(rate, name)


def _update(learner: Learner, batch: Batch) -> float:
    """Seconds of one update."""
    began = time.monotonic()
    learn(learner, batch)
    if learner.world.device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - began


def verdict(supply: Reading, hunger: Appetite, size: int) -> list[Flag]:
    """What is to be said about two rates.

    Args:
        supply: how fast images are made.
        hunger: how fast they are learned from.
        size: pixels of the model's input.
    """
    if supply.workers and supply.rate >= SPARE * hunger.rate:
        return []
    evidence = {"reading": vars(supply), "learning": vars(hunger)}
    if not supply.workers:
        share = hunger.rate / (hunger.rate + supply.rate)  # one after the other
        if share < 1 - 1 / SPARE:
            return []
        message = f"no worker reads ahead: the training process makes each image itself, {share:.0%} of its time"
        return [Flag("reading-is-the-bottleneck", "warning", "data", message, _more_workers(supply, hunger), evidence)]
    wait = max(0.0, 1 - supply.rate / hunger.rate)
    costs = ((supply.read, "read"), (supply.decode, "decode"), (supply.vary, "vary"))
    message = (
        f"reading is the bottleneck: {supply.workers} workers make {supply.rate:,.0f} images/s where the model learns "
        f"from {hunger.rate:,.0f} on {hunger.device}, so that it would wait {wait:.0%} of the time; one image takes "
        + ", ".join(f"{1000 * seconds:.1f} ms to {what}" for seconds, what in costs)
    )
    advice = []
    if supply.workers < supply.cores:
        advice.append(_more_workers(supply, hunger))
    if supply.read > supply.decode + supply.vary:
        advice.append(
            "the disk answers slowly: copy the images to a local one, or pack them into tar shards (shards:/path), "
            "which a file server finds faster than a million files"
        )
    elif supply.side >= 3 * size:
        advice.append(
            f"the pictures have a shorter side of {supply.side} pixels where the model sees {size}: copies with "
            f"{2 * size}, made once, decode faster (the model then learns from these)"
        )
    elif supply.vary > 2 * supply.decode:
        advice.append("most of it is augmentation: a lighter augment.policy, or none, costs less")
    if not advice:
        advice.append(f"all {supply.cores} cores are at work: a machine with more of them, or fewer GPUs on this one")
    return [Flag("reading-is-the-bottleneck", "warning", "data", message, "; ".join(advice), evidence)]


def _more_workers(supply: Reading, hunger: Appetite) -> str:
    """How many workers would do."""
    each = supply.rate / max(1, supply.workers)
    needed = math.ceil(SPARE * hunger.rate / each)
    if needed <= supply.cores:
        return f"machine.workers={needed} would do, if each reads as fast ({supply.cores} cores can be used)"
    return f"machine.workers={supply.cores} uses all cores, and {needed} would be needed"
