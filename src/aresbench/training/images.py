"""Training images: decoded, varied by timm's augmentation, the same ones whoever decodes them.

A worker process makes whole batches: the pixels of a varied picture are copied once, into their place in the batch, and
lie there as decoders write them (height, width, channel), which is also what convolutions in ``channels_last`` read.

JPEGs are decoded in full. libjpeg could decode them at half size at a fraction of the cost (``Image.draft``), and timm
and torchvision do not: other pixels would be learned from, and a crop of a photograph of ImageNet's size (500 × 375)
would need more pixels than the half has. Whoever has larger photographs gains more by copies of a sensible size, made
once; ``aresbench doctor RECIPE`` says whether reading is what a training waits for.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from aresbench.core.errors import DataError
from aresbench.data.base import Dataset
from aresbench.data.spans import Texts
from aresbench.ops.random import key_of
from aresbench.ops.resize import resize_and_crop
from aresbench.training.order import Order
from aresbench.training.recipe import Recipe
from aresbench.training.world import World


@dataclass(frozen=True)
class Batch:
    """Images of one update.

    Args:
        x: uint8 [n, 3, H, W], in ``channels_last`` layout.
        y: int64 [n].
        ids: n stable ids.
        epoch: which.
    """

    x: Tensor
    y: Tensor
    ids: tuple[str, ...]
    epoch: int

    def pin_memory(self) -> Batch:
        """The same in memory from which a GPU copies by itself; the DataLoader asks for it."""
        return replace(self, x=self.x.pin_memory(), y=self.y.pin_memory())


class TrainingImages(TorchDataset["Batch | DataError"]):
    """Batches by their (epoch, place) pairs, each image varied by draws that belong to it and the epoch alone.

    Args:
        data: the images to learn from.
        recipe: says size and augmentation.
    """

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        self.data, self.seed, self.size = data, recipe.seed, recipe.model.size
        self.ids, self.labels = Texts(data.ids), data.labels
        self.vary = Variation(recipe)

    def __getitem__(self, chosen: Sequence[tuple[int, int]]) -> Batch | DataError:
        pixels = torch.empty(len(chosen), self.size, self.size, 3, dtype=torch.uint8)
        out = pixels.numpy()
        ids = tuple(self.ids[place] for _, place in chosen)
        for row, ((epoch, place), name) in enumerate(zip(chosen, ids, strict=True)):
            try:
                picture = self.data.picture(place)
            except DataError as error:  # raised where the batch is asked for: a worker's own would come as a traceback
                return error
            seed_drawing(key_of(self.seed, "augment", epoch, name))
            out[row] = self.vary(picture)
        labels = torch.from_numpy(self.labels[[place for _, place in chosen]])
        return Batch(pixels.permute(0, 3, 1, 2), labels, ids, chosen[0][0])


def batches(data: Dataset, recipe: Recipe, world: World, first: int) -> Iterator[Batch]:
    """This process's batches from step ``first`` to the end, read ahead by worker processes.

    Raises:
        DataError: an image cannot be read; it is named.
    """
    order = Order(len(data), recipe.engine.batch, recipe.schedule.epochs, recipe.seed, world.rank, world.size, first)
    workers = recipe.machine.workers
    made = DataLoader(
        TrainingImages(data, recipe),
        batch_size=None,  # the order tells whole batches
        sampler=order,
        num_workers=workers,
        prefetch_factor=recipe.machine.prefetch if workers else None,
        pin_memory=world.device.type == "cuda",
        worker_init_fn=_undisturbed,
    )
    for batch in made:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def _undisturbed(worker: int) -> None:
    """Readers outlive the signals that ask a training to stop: it still has an update to end, and ends them itself."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


class Variation:
    """From a picture to uint8 [H, W, 3], by timm's and torchvision's transforms, drawn from the global generators.

    Args:
        recipe: says size and augmentation.

    Raises:
        AssertionError, ValueError: timm refuses a setting.
    """

    def __init__(self, recipe: Recipe) -> None:
        from timm.data.transforms_factory import transforms_imagenet_train
        from torchvision import transforms

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
        for transform in rest.transforms:
            _mend(transform)
        self.crop, self.rest = crop, rest
        self.erase = _Erase(recipe) if a.erase else None

    def __call__(self, picture: Image.Image) -> np.ndarray:
        image = np.asarray(self.rest(self.crop(picture)))
        return image if self.erase is None else self.erase(image)


def _mend(transform: object) -> None:
    """Let posterising to 0 bits give black, as it did until Pillow 13 refused it.

    timm's increasing policies (``inc1``, AugMix) ask for it at their highest level, in about one image of a thousand.
    """
    from timm.data.auto_augment import AugMixAugment, AutoAugment, RandAugment, posterize

    ops = []
    if isinstance(transform, AugMixAugment | RandAugment):
        ops = list(transform.ops)
    elif isinstance(transform, AutoAugment):
        ops = [op for pair in transform.policy for op in pair]
    for op in ops:
        if op.aug_fn is posterize:
            op.aug_fn = _posterize


def _posterize(picture: Image.Image, bits: int, **settings: object) -> Image.Image:
    from timm.data.auto_augment import posterize

    made: Image.Image = posterize(picture, bits, **settings) if bits >= 1 else picture.point(lambda value: 0)
    return made


class _Sized:
    """Resize and crop as the model is measured."""

    def __init__(self, recipe: Recipe) -> None:
        self.preprocessing = recipe.model.preprocessing

    def __call__(self, picture: Image.Image) -> Image.Image:
        return resize_and_crop(picture, self.preprocessing)


class _Erase:
    """timm's random erasing, whose normal noise is meant for normalised images, on images of 8 bits.

    Noise beyond black and white is cut off there. timm writes it into an empty canvas, of which only the rectangles
    are then taken.
    """

    def __init__(self, recipe: Recipe) -> None:
        from timm.data.random_erasing import RandomErasing

        a, m = recipe.augment, recipe.model
        self.erase = RandomErasing(a.erase, mode="pixel", max_count=a.erase_count, device="cpu")
        self.canvas = torch.full((3, m.size, m.size), torch.nan)
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (m.mean, m.std))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self.erase(self.canvas)
        erased = ~self.canvas[0].isnan().numpy()
        rows = np.flatnonzero(erased.any(1))
        if not len(rows):
            return image
        columns = np.flatnonzero(erased[rows[0] : rows[-1] + 1].any(0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        levels = (self.canvas[:, *box] * self.std).add_(self.mean).mul_(255).round_().nan_to_num_().clamp_(0, 255)
        self.canvas[:, *box] = torch.nan
        changed = image.copy()
        np.copyto(changed[box], levels.to(torch.uint8).permute(1, 2, 0).numpy(), where=erased[box][..., None])
        return changed


def seed_drawing(key: int) -> None:
    """Set the three global generators of the CPU that augmentation draws from, in 10 µs.

    ``torch.manual_seed`` asks for every other device too, which takes 0.2 ms: a tenth of decoding a photograph.
    """
    random.seed(key)
    np.random.seed(key % 2**32)  # noqa: NPY002 - timm's augmentation draws from the global state
    torch.default_generator.manual_seed(key)


def seed_everything(key: int) -> None:
    """Set the global generators of Python, numpy and every device of torch."""
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
