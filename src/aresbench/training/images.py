"""Training images: decoded, varied by timm's augmentation, the same ones whoever decodes them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from aresbench.data.base import Dataset
from aresbench.ops.random import key_of
from aresbench.ops.resize import apply
from aresbench.training.order import Order
from aresbench.training.recipe import Augment, Recipe
from aresbench.training.world import World


@dataclass(frozen=True)
class Batch:
    """Images of one update.

    Args:
        x: uint8 [n, 3, H, W].
        y: int64 [n].
        ids: n stable ids.
        epoch: which.
    """

    x: Tensor
    y: Tensor
    ids: tuple[str, ...]
    epoch: int


class TrainingImages(TorchDataset[tuple[Tensor, int, str, int]]):
    """Images by (epoch, place), each varied by draws that belong to it and the epoch alone.

    Args:
        data: the images to learn from.
        recipe: says size and augmentation.
    """

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        self.data, self.seed = data, recipe.seed
        self.vary = variation(recipe)

    def __getitem__(self, at: tuple[int, int]) -> tuple[Tensor, int, str, int]:
        epoch, place = at
        name = self.data.ids[place]
        seed_everything(key_of(self.seed, "augment", epoch, name))
        return self.vary(self.data.picture(place)), int(self.data.labels[place]), name, epoch


def batches(data: Dataset, recipe: Recipe, world: World, first: int) -> Iterator[Batch]:
    """This process's batches from step ``first`` to the end, read ahead by worker processes."""
    order = Order(len(data), recipe.engine.batch, recipe.schedule.epochs, recipe.seed, world.rank, world.size, first)
    workers = recipe.machine.workers
    yield from DataLoader(
        TrainingImages(data, recipe),
        batch_sampler=order,
        num_workers=workers,
        prefetch_factor=recipe.machine.prefetch if workers else None,
        collate_fn=_collate,
        pin_memory=world.device.type == "cuda",
    )


def _collate(rows: Sequence[tuple[Tensor, int, str, int]]) -> Batch:
    images, labels, names, epochs = zip(*rows, strict=True)
    return Batch(torch.stack(images), torch.tensor(labels), names, epochs[0])


def variation(recipe: Recipe) -> Callable[[Image.Image], Tensor]:
    """From a picture to uint8 [3, H, W], by timm's and torchvision's transforms."""
    from timm.data.transforms_factory import transforms_imagenet_train
    from torchvision import transforms
    from torchvision.transforms.functional import pil_to_tensor

    a, m = recipe.augment, recipe.model
    crop, rest, _ = transforms_imagenet_train(
        m.size,
        scale=a.scale,
        ratio=a.ratio,
        hflip=a.flip,
        color_jitter=a.color_jitter or None,  # type: ignore[arg-type]
        auto_augment=a.policy or None,
        interpolation=a.interpolation,
        mean=m.mean,
        separate=True,
    )
    if a.crop != "resized":
        flip = crop.transforms[1:]
        shift = [transforms.RandomCrop(m.size, padding=a.padding)] if a.crop == "shift" else []
        crop = transforms.Compose([_Sized(recipe), *shift, *flip])
    erase = _Erase(a, m.mean, m.std) if a.erase else None

    def vary(picture: Image.Image) -> Tensor:
        image: Tensor = pil_to_tensor(rest(crop(picture)))
        return image if erase is None else erase(image)

    return vary


class _Sized:
    """Resize and crop as the model is measured."""

    def __init__(self, recipe: Recipe) -> None:
        self.preprocessing = recipe.model.preprocessing

    def __call__(self, picture: Image.Image) -> Image.Image:
        return Image.fromarray(apply(picture, self.preprocessing).permute(1, 2, 0).numpy())


class _Erase:
    """timm's random erasing, whose noise is meant for normalised images, on images of 8 bits."""

    def __init__(self, augment: Augment, mean: Sequence[float], std: Sequence[float]) -> None:
        from timm.data.random_erasing import RandomErasing

        self.erase = RandomErasing(augment.erase, mode="pixel", max_count=augment.erase_count, device="cpu")
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __call__(self, image: Tensor) -> Tensor:
        changed = self.erase((image / 255 - self.mean) / self.std)
        return ((changed * self.std + self.mean) * 255).round_().clamp_(0, 255).to(torch.uint8)


def seed_everything(key: int) -> None:
    """Set the three global generators that augmentation code draws from."""
    random.seed(key)
    np.random.seed(key % 2**32)  # noqa: NPY002 - timm's augmentation draws from the global state
    torch.manual_seed(key)


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Put Python's, numpy's and torch's global random states back at the end."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - as above
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002 - as above
