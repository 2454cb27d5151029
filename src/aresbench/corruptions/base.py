"""What a corruption is: settings, random draws of its own, and pure maths on a batch of images.

The draws are an explicit argument of the maths. So an image gets the same corruption in any batch,
order or process, and a test can feed the very same draws to another implementation.

Every corruption ends in 8 bits, as the published benchmarks do, by *truncation*: floor(255·x).
Many results lie exactly on the edge of that floor (0.2 is 51 levels), where one rounding error of
float32 costs a whole level. The maths therefore runs in float64 whatever the input, and float32
inputs that stand for an 8-bit level k are read as k/255 (:func:`widen`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from aresbench.core.errors import DataError, SpecError, did_you_mean
from aresbench.corruptions.change import Change
from aresbench.corruptions.parameters import Doses, nearest_set
from aresbench.ops.jpeg import through_jpeg
from aresbench.ops.memory import keep_freed_memory
from aresbench.ops.random import Streams

# Three protocols with three different numbers; see docs/explanation/corruption-modes.md.
#   memory           8 bits by truncation, nothing else (how CIFAR-10-C was made)
#   disk             memory, then saved as JPEG at quality 85 (how ImageNet-C was published)
#   imagecorruptions memory, with the rules of the Python package of that name: the doses of 224 px at every
#                    size, and its own frost, elastic_transform, motion_blur and snow
MODES = ("memory", "disk", "imagecorruptions")
DISK_QUALITY = 85
PACKAGE_SIDE = 224

# Two float32 roundings of k/255 differ from it by under 2^-14 levels; no other 8-bit level is near.
_SAME_LEVEL = 2.0**-14

# Values whose float64 intermediates still fit a CPU core's cache: about one 224 px image.
_CACHED_VALUES = 200_000


@dataclass(frozen=True)
class Corruption(Change, ABC):
    """A named change of an image with a dose (Hendrycks and Dietterich, ICLR 2019).

    Args:
        severity: the dose, 1 (mild) to 5 (strong).
        mode: the protocol. ``memory``: 8 bits by truncation. ``disk``: then through JPEG at quality 85 with colours
            at half resolution, as the files of ImageNet-C. ``imagecorruptions``: as ``memory``, with that package's
            rules (the doses of 224 px at every size; its own frost, elastic transform, motion blur and snow).

    Raises:
        SpecError: no such severity, or no such mode.
    """

    severity: int
    mode: str = "memory"

    eight_bits: ClassVar[bool] = True
    family: ClassVar[str]  # noise, blur, weather or digital
    doses: ClassVar[Doses]
    package_doses: ClassVar[tuple[Any, ...]] = ()  # of the mode imagecorruptions, where it does not use those of 224 px

    def __post_init__(self) -> None:
        if isinstance(self.severity, bool) or not isinstance(self.severity, int) or not 1 <= self.severity <= 5:
            raise SpecError(f"{self.name} has no severity {self.severity!r}", "choose 1, 2, 3, 4 or 5")
        if self.mode not in MODES:
            raise SpecError(
                f"unknown corruption mode {self.mode!r}",
                did_you_mean(str(self.mode), MODES) or f"choose {', '.join(MODES[:-1])} or {MODES[-1]}",
            )

    @property
    def component(self) -> str:
        """The name under which this corruption draws: ``Streams(seed, corruption.component, ids)``."""
        return f"{self.name}/{self.severity}"

    def parameter_set(self, height: int, width: int) -> int:
        """The image side whose doses apply to images of this size in pixels: the nearest, or 224 as the mode says."""
        if self.mode == "imagecorruptions":
            height = width = PACKAGE_SIDE
        return nearest_set(self.doses, height, width)

    def dose(self, height: int, width: int) -> Any:
        """The parameters of this severity for images of this size in pixels."""
        if self.mode == "imagecorruptions" and self.package_doses:
            return self.package_doses[self.severity - 1]
        return self.doses[self.parameter_set(height, width)][self.severity - 1]

    def describe(self, height: int | None = None, width: int | None = None) -> dict[str, object]:
        """The record that goes into a cell's key; with an image size also the parameters it selects."""
        record: dict[str, object] = {
            "name": self.name,
            "severity": self.severity,
            "mode": self.mode,
            "revision": self.revision,
        }
        if height is not None and width is not None:
            dose = self.dose(height, width)
            record["parameter_set"] = self.parameter_set(height, width)
            record["parameters"] = list(dose) if isinstance(dose, tuple) else [dose]
        return record

    @abstractmethod
    def draws(self, streams: Streams, height: int, width: int) -> dict[str, Tensor]:
        """The random numbers one batch needs.

        Args:
            streams: one stream per image.
            height, width: image size in pixels.

        Returns:
            Tensors by name, first dimension = image; empty where nothing is random.
        """

    @abstractmethod
    def levels(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """The corrupted images as whole grey levels 0…255, of any dtype; pure maths, image by image.

        Args:
            x: images [N,3,H,W] in [0,1], float32 or float64; must not be modified.
            draws: what :meth:`draws` returned.
        """

    @final
    def apply(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Corrupt images with given draws.

        Args:
            x: images [N,3,H,W], RGB in [0,1], float32 or float64.
            draws: what :meth:`draws` returned for as many images of this size.

        Returns:
            [N,3,H,W] of x's dtype and device, multiples of 1/255 in [0,1].

        Raises:
            DataError: not such a tensor, or values outside [0,1].
        """
        return self._run(x, lambda part: {name: values[part] for name, values in draws.items()})

    @final
    def __call__(self, x: Tensor, streams: Streams) -> Tensor:
        """Corrupt images [N,3,H,W] in [0,1], each with the draws of its own stream (see :meth:`apply`)."""
        check_images(x)
        if len(streams) != len(x):
            raise DataError(f"{len(x)} images but {len(streams)} random streams", "give one id per image")
        height, width = x.shape[2:]
        return self._run(x, lambda part: self.draws(Streams.from_keys(streams.keys[part]), height, width))

    @torch.no_grad()
    def _run(self, x: Tensor, draws_of: Callable[[slice], Mapping[str, Tensor]]) -> Tensor:
        check_images(x)
        if x.device.type == "cpu":
            keep_freed_memory()
        result = torch.empty_like(x, requires_grad=False, memory_format=torch.contiguous_format)
        for part in _parts(x):
            levels = self.levels(x[part], draws_of(part))
            result[part] = through_jpeg(levels.to(torch.uint8), DISK_QUALITY) if self.mode == "disk" else levels
        return result.div_(255)


def _parts(x: Tensor) -> list[slice]:
    """Slices of a batch to work on in turn: all at once on an accelerator, what fits the cache on a CPU.

    One 224 px image at a time is two to three times as fast there as eight at once.
    """
    per_part = len(x) if x.device.type != "cpu" else _CACHED_VALUES // x[0].numel() if len(x) else 1
    per_part = max(per_part, 1)
    return [slice(i, i + per_part) for i in range(0, len(x), per_part)]


def check_images(x: Tensor) -> None:
    """Refuse what is not a batch of RGB images in [0,1].

    Raises:
        DataError: wrong type, shape, dtype or range.
    """
    if not isinstance(x, Tensor):
        raise DataError(f"images must be a torch tensor, got {type(x).__name__}", "use torch.from_numpy")
    if x.ndim != 4 or x.shape[1] != 3 or 0 in x.shape[2:]:
        remedy = "add the batch dimension: x[None]" if x.ndim == 3 else "repeat a grey channel three times"
        raise DataError(f"images must have the shape [N, 3, height, width], got {list(x.shape)}", remedy)
    if x.dtype not in (torch.float32, torch.float64):
        raise DataError(f"images must be float32 or float64, got {x.dtype}", "8-bit images: x.float() / 255")
    if len(x):
        low, high = (v.item() for v in torch.aminmax(x))
        if not (low >= 0 and high <= 1):  # not-a-number fails here too
            raise DataError(f"images must lie in [0, 1], got values from {low:g} to {high:g}", "divide 8 bits by 255")


def widen(x: Tensor) -> Tensor:
    """Images as float64, where a float32 that stands for an 8-bit level k becomes k/255 to the last bit.

    Without this, half of all levels would fall on the wrong side of the final truncation.
    """
    if x.dtype == torch.float64:
        return x
    scaled = x * 255
    nearest = scaled.round()
    distance = (scaled - nearest).abs_()
    if distance.amax() < _SAME_LEVEL:  # an 8-bit image, the usual case: no need to choose value by value
        return nearest.double().div_(255)
    return torch.where(distance < _SAME_LEVEL, nearest.double().div_(255), x.double())


def floor_levels(x: Tensor) -> Tensor:
    """floor(255·x) of float64 values clipped to [0,1]; works in place on ``x``."""
    return x.clamp_(0, 1).mul_(255).floor_()


def input_levels(x: Tensor) -> Tensor:
    """The 8-bit images [N,3,H,W] uint8 that a file would hold: levels stay, values between are truncated."""
    return (x * 255).add_(_SAME_LEVEL).to(torch.uint8)
