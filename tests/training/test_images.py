"""Training images: timm's augmentation to the bit, and the same batches whoever makes them."""

from __future__ import annotations

import pickle
import random
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data.transforms_factory import transforms_imagenet_train
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from aresbench.core.errors import DataError
from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.load import load_dataset
from aresbench.ops.random import key_of
from aresbench.ops.resize import apply
from aresbench.training.images import (
    Batch,
    TrainingImages,
    Variation,
    batches,
    random_states_kept,
    seed_drawing,
    seed_everything,
)
from aresbench.training.order import Order, permutation
from aresbench.training.recipe import Recipe, load_recipe
from aresbench.training.world import World

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def states() -> Iterator[None]:
    """Other tests draw as if this one had not."""
    with random_states_kept():
        yield


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    samples = load_dataset("samples")
    return [samples.picture(k).resize((250, 188)) for k in range(6)]


def recipe(size: int = 64, **augment: Any) -> Recipe:
    whole = load_recipe("digits-adversarial")
    model = replace(whole.model, size=size, resize=size + 8, mean=MEAN, std=STD)
    settings = {"crop": "resized", "flip": 0.5, "padding": 0} | augment
    return replace(whole, model=model, augment=replace(whole.augment, **settings))


def drawn(vary: Any, pictures: list[Image.Image]) -> list[np.ndarray]:
    found = []
    for k, picture in enumerate(pictures):
        seed_everything(k + 5)
        found.append(np.asarray(vary(picture)))
    return found


def _posterize_of_old(image: Image.Image, bits: int) -> Image.Image:
    """Pillow's until it refused 0 bits."""
    return image.point([value & (0x100 - (1 << (8 - bits))) for value in range(256)] * 3)


@pytest.mark.parametrize(
    ("size", "settings", "theirs"),
    [
        (64, {"interpolation": "bicubic"}, {"interpolation": "bicubic"}),
        (224, {"scale": (0.3, 0.9), "ratio": (1.0, 1.0)}, {"scale": (0.3, 0.9), "ratio": (1.0, 1.0)}),
        (64, {"color_jitter": 0.4, "flip": 0.0}, {"color_jitter": 0.4, "hflip": 0.0}),
        (64, {"policy": "rand-m9-mstd0.5-inc1", "color_jitter": 0.4}, {"auto_augment": "rand-m9-mstd0.5-inc1"}),
        (32, {"policy": "augmix-m5-w4-d2"}, {"auto_augment": "augmix-m5-w4-d2"}),
        (64, {"policy": "original-mstd0.5"}, {"auto_augment": "original-mstd0.5"}),
        (64, {"policy": "3a", "color_jitter": 0.4}, {"auto_augment": "3a", "color_jitter": 0.4}),
    ],
)
def test_the_pixels_are_timms_to_the_bit(
    photographs: list[Image.Image],
    size: int,
    settings: dict[str, Any],
    theirs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageOps, "posterize", _posterize_of_old)
    arguments = {"interpolation": "random", "color_jitter": None, "mean": MEAN, "std": STD} | theirs
    expected = drawn(transforms_imagenet_train(size, use_prefetcher=True, **arguments), photographs)
    found = drawn(Variation(recipe(size, **settings)), photographs)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.uint8 and a.shape == (size, size, 3)
        assert np.array_equal(a.transpose(2, 0, 1), b)
    unchanged = drawn(Variation(recipe(size, interpolation="bicubic", flip=0.0)), photographs)
    assert any(not np.array_equal(a, b) for a, b in zip(found, unchanged, strict=True)) or "interpolation" in settings


@pytest.mark.parametrize("policy", ["rand-m10-inc1-p1-n1", "augmix-m10", "v0"])
def test_posterising_to_nothing_is_black_on_any_pillow(photographs: list[Image.Image], policy: str) -> None:
    vary = Variation(recipe(16, policy=policy))
    drawn(vary, photographs * 15)
    (transform,) = vary.rest.transforms
    ops = [op for pair in transform.policy for op in pair] if policy == "v0" else transform.ops
    posterize = [op for op in ops if op.name.startswith("Posterize")]
    assert posterize
    for op in posterize:
        for bits in (0, 1, 8):
            assert np.array_equal(op.aug_fn(photographs[0], bits), _posterize_of_old(photographs[0], bits))


def test_erasing_is_timms_cut_off_at_black_and_white(photographs: list[Image.Image]) -> None:
    theirs = transforms_imagenet_train(
        64, color_jitter=None, mean=MEAN, std=STD, re_prob=0.7, re_mode="pixel", re_count=3, interpolation="bicubic"
    )
    ours = Variation(recipe(interpolation="bicubic", erase=0.7, erase_count=3))
    plain = Variation(recipe(interpolation="bicubic"))
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    changed = outside = 0
    for a, b, c in zip(
        drawn(ours, photographs * 3), drawn(theirs, photographs * 3), drawn(plain, photographs * 3), strict=True
    ):
        levels = (torch.from_numpy(b) * std + mean) * 255
        assert np.array_equal(a.transpose(2, 0, 1), levels.round().clamp(0, 255).to(torch.uint8).numpy())
        changed += not np.array_equal(a, c)
        outside += int((levels.min() < -1) | (levels.max() > 256))
    assert 6 <= changed < 18 and outside >= 6


def test_pictures_are_not_written_to(photographs: list[Image.Image]) -> None:
    square = photographs[0].resize((64, 64))
    before = square.tobytes()
    whole = recipe(crop="none", flip=0.0, erase=1.0)
    whole = replace(whole, model=replace(whole.model, resize=0))
    (changed,) = drawn(Variation(whole), [square])
    assert square.tobytes() == before and changed.tobytes() != before


def test_crops_by_shifting_and_none(photographs: list[Image.Image]) -> None:
    whole = recipe(32, crop="none", flip=0.0)
    (found,) = drawn(Variation(whole), photographs[:1])
    plain = apply(photographs[0], whole.model.preprocessing).permute(1, 2, 0).numpy()
    assert np.array_equal(found, plain)
    shifted = Variation(recipe(32, crop="shift", padding=4, flip=0.0))
    padded = np.pad(plain, ((4, 4), (4, 4), (0, 0)))
    places = set()
    for seed in range(60):
        seed_drawing(seed)
        image = shifted(photographs[0])
        (place,) = [(i, j) for i in range(9) for j in range(9) if np.array_equal(padded[i : i + 32, j : j + 32], image)]
        places.add(place)
    assert {i for i, _ in places} == {j for _, j in places} == set(range(9))
    flipped = Variation(recipe(32, crop="none", flip=1.0))
    assert np.array_equal(flipped(photographs[0]), plain[:, ::-1])


def made(whole: Recipe, workers: int = 0, first: int = 0, rank: int = 0, size: int = 1) -> list[Batch]:
    data = load_dataset("digits(split=train)")[:50]
    whole = replace(
        whole,
        machine=replace(whole.machine, workers=workers),
        engine=replace(whole.engine, batch=12),
        schedule=replace(whole.schedule, epochs=2, warmup=0),
    )
    return list(batches(data, whole, World(rank, size, torch.device("cpu")), first))


def same(a: Batch, b: Batch) -> bool:
    return (a.ids, a.epoch) == (b.ids, b.epoch) and torch.equal(a.x, b.x) and torch.equal(a.y, b.y)


@pytest.fixture(scope="module")
def heavy() -> Recipe:
    return recipe(16, policy="rand-m9-mstd0.5-inc1", erase=0.5)


@pytest.fixture(scope="module")
def alone(heavy: Recipe) -> list[Batch]:
    return made(heavy)


def test_batches_have_one_size_and_every_epoch_every_image_but_the_rest(alone: list[Batch]) -> None:
    assert len(alone) == 8 and [b.epoch for b in alone] == [0] * 4 + [1] * 4
    data = load_dataset("digits(split=train)")[:50]
    labels = dict(zip(data.ids, data.labels.tolist(), strict=True))
    for batch in alone:
        assert batch.x.shape == (12, 3, 16, 16) and batch.x.dtype == torch.uint8
        assert batch.x.is_contiguous(memory_format=torch.channels_last)
        assert batch.y.tolist() == [labels[name] for name in batch.ids]
    for epoch in (alone[:4], alone[4:]):
        assert len({name for batch in epoch for name in batch.ids}) == 48
    assert alone[0].ids != alone[4].ids
    twice = next((k, b.ids.index(k)) for b in alone[4:] for k in b.ids if k in alone[0].ids)[0]
    first, second = (next(b.x[b.ids.index(twice)] for b in part if twice in b.ids) for part in (alone[:4], alone[4:]))
    assert not torch.equal(first, second), "each epoch draws anew"


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_make_the_same_batches(heavy: Recipe, alone: list[Batch], workers: int) -> None:
    found = made(heavy, workers)
    assert len(found) == len(alone) and all(map(same, found, alone))
    assert found[0].x.is_contiguous(memory_format=torch.channels_last)


def test_beginning_later_is_the_rest_of_it(heavy: Recipe, alone: list[Batch]) -> None:
    for first in (1, 4, 7, 8):
        rest = made(heavy, first=first)
        assert len(rest) == 8 - first and all(map(same, rest, alone[first:]))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_any_number_of_processes_takes_the_same_batches(heavy: Recipe, alone: list[Batch], size: int) -> None:
    parts = [made(heavy, rank=rank, size=size) for rank in range(size)]
    for step, whole in enumerate(alone):
        mine = [part[step] for part in parts]
        assert [len(batch.y) for batch in mine] == [12 // size] * size
        assert sorted(k for batch in mine for k in batch.ids) == sorted(whole.ids)
        for batch in mine:
            rows = [whole.ids.index(name) for name in batch.ids]
            assert torch.equal(batch.x, whole.x[rows]) and torch.equal(batch.y, whole.y[rows])


def test_what_else_was_drawn_does_not_matter(heavy: Recipe, alone: list[Batch]) -> None:
    seed_everything(99)
    random.random(), torch.rand(3)
    assert all(map(same, made(heavy), alone))
    other = made(replace(heavy, seed=1))
    assert not any(map(same, other, alone))


def test_images_travel_to_workers_of_any_kind(heavy: Recipe) -> None:
    """Worker processes that are spawned get everything by pickle."""
    data = load_dataset("digits(split=train)")[:50]
    images = TrainingImages(data, heavy)
    chosen = [(0, 3), (0, 4)]
    batch, copy = images[chosen], pickle.loads(pickle.dumps(images))[chosen]
    assert isinstance(batch, Batch) and isinstance(copy, Batch) and same(batch, copy)


def test_a_broken_image_is_named_by_a_worker_too(tmp_path: Path, heavy: Recipe) -> None:
    for k in range(8):
        (tmp_path / f"{k % 2}").mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), (k, k, k)).save(tmp_path / f"{k % 2}/{k}.png")
    data = load_dataset(f"folder:{tmp_path}")
    (tmp_path / "1/5.png").write_bytes(b"")
    whole = replace(heavy, engine=replace(heavy.engine, batch=4), schedule=replace(heavy.schedule, epochs=1, warmup=0))
    for workers in (0, 2):
        ready = replace(whole, machine=replace(whole.machine, workers=workers))
        with pytest.raises(DataError, match=r"^image '1/5.png' of folder-.* cannot be read") as caught:
            list(batches(data, ready, ALONE, 0))
        assert caught.value.remedy.startswith("restore the file")


def test_a_training_from_shards_is_one_from_folders(
    tmp_path: Path, photographs: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARESBENCH_CACHE", str(tmp_path / "cache"))
    wnids = imagenet_classes().ids
    with tarfile.open(tmp_path / "a.tar", "w") as first, tarfile.open(tmp_path / "b.tar", "w") as second:
        for k in range(24):
            name, shard = f"{wnids[k % 3]}_{k}", (first, second)[k % 2]
            file = tmp_path / "train" / wnids[k % 3] / f"{name}.JPEG"
            file.parent.mkdir(parents=True, exist_ok=True)
            photographs[k % 6].crop((k, k, 120 + k, 90 + k)).save(file)
            (tmp_path / "label").write_text(str(k % 3))
            shard.add(file, f"{name}.jpg")
            shard.add(tmp_path / "label", f"{name}.cls")
    whole = recipe(32, policy="rand-m9-mstd0.5-inc1")
    whole = replace(whole, engine=replace(whole.engine, batch=8), schedule=replace(whole.schedule, epochs=2, warmup=0))
    found = [
        list(batches(load_dataset(spec), replace(whole, machine=replace(whole.machine, workers=workers)), ALONE, 0))
        for spec, workers in ((f"imagenet-train(partial=true):{tmp_path}", 0), (f"shards:{tmp_path}", 2))
    ]
    assert len(found[0]) == len(found[1]) == 6 and all(map(same, *found))


def test_a_batch_is_pinned_as_a_whole(alone: list[Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Tensor] = []

    def pin(self: Tensor, device: object = None) -> Tensor:
        pinned.append(self)
        return self.clone()

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    batch = pin_memory(alone[0])
    assert same(batch, alone[0]) and [id(t) for t in pinned] == [id(alone[0].x), id(alone[0].y)]
    assert batch.x is not alone[0].x


def test_drawing_is_seeded_as_everything_is() -> None:
    key = key_of("any")
    drawn_by = []
    for seed in (seed_drawing, seed_everything):
        seed(key)
        drawn_by.append((random.random(), np.random.random(), torch.rand(1).item()))  # noqa: NPY002 - timm's state
    assert drawn_by[0] == drawn_by[1]


def test_an_order_of_a_million() -> None:
    order = iter(Order(1_281_167, 512, 1, 0, 3, 8, first=2000))
    step = next(order)
    assert len(step) == 64 and {epoch for epoch, _ in step} == {0}
    whole = permutation(1_281_167, 0, 0)[2000 * 512 : 2001 * 512]
    assert [place for _, place in step] == whole[3::8].tolist()
