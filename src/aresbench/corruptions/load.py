"""Corruptions by name, and the shortest way to corrupt a batch of images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from aresbench.core.errors import DataError, SpecError
from aresbench.core.registry import find
from aresbench.corruptions.base import Corruption, check_images
from aresbench.corruptions.change import Change
from aresbench.ops.random import Streams


def make_corruption(name: str, severity: int, mode: str = "memory") -> Corruption:
    """The corruption called ``name`` (or ``./file.py:Class``) at one severity.

    Args:
        name: see ``aresbench list corruptions``.
        severity: 1 (mild) to 5 (strong).
        mode: ``memory`` (8 bits by truncation), ``disk`` (then JPEG, as ImageNet-C was published) or
            ``imagecorruptions`` (that package's rules).

    Raises:
        UnknownName: no such corruption; the nearest right name is given.
        SpecError: no such severity or mode, or the object named is not a corruption.
    """
    found = find("corruptions", name)
    if not (isinstance(found, type) and issubclass(found, Corruption)):
        raise SpecError(f"{name!r} is not a corruption", "name a subclass of aresbench.corruptions.base.Corruption")
    missing = [fact for fact in ("name", "family", "paper", "revision", "doses") if not hasattr(found, fact)]
    if missing:
        raise SpecError(
            f"the corruption {name!r} does not say its {', '.join(missing)}",
            "write them as class attributes: doses[size] holds one parameter for each severity 1 to 5, "
            "e.g. {224: (0.9, 0.8, 0.7, 0.6, 0.5)}",
        )
    return found(severity, mode)


def make_filter(name: str, r: int) -> Change:
    """The filter called ``name`` (see ``aresbench list filters``) at one radius in waves per image side.

    Raises:
        UnknownName: no such filter; the nearest right name is given.
        SpecError: the radius is no whole number of at least 1, or the object named is not a filter.
    """
    found = find("filters", name)
    if not (isinstance(found, type) and issubclass(found, Change)):
        raise SpecError(f"{name!r} is not a filter", "name a subclass of aresbench.corruptions.change.Change")
    return found(r)  # type: ignore[call-arg]  # a filter's one setting


def filtered(x: Tensor, name: str, r: int) -> Tensor:
    """Keep a part of the pictures' frequencies: tensors in, tensors out (ARES-Bench, Liu et al., IJCV 2024).

    Args:
        x: images [N,3,H,W], RGB in [0,1], float32 or float64, on any device; left as they are.
        name: ``lowpass`` or ``highpass``; see ``aresbench list filters``.
        r: radius in whole waves per image side, at least 1.

    Returns:
        [N,3,H,W] of x's dtype and device, in [0,1].

    Raises:
        UnknownName, SpecError: as :func:`make_filter`.
        DataError: x is no such batch of images.
    """
    change = make_filter(name, r)
    check_images(x)
    return change(x, Streams(0, change.component, [""] * len(x), x.device))


def corrupt(
    x: Tensor,
    name: str,
    severity: int,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    mode: str = "memory",
) -> Tensor:
    """Corrupt images: tensors in, tensors out (the corruptions of Hendrycks and Dietterich, ICLR 2019).

    Each image's random numbers depend on (seed, corruption, severity, its id) alone, so the result does
    not depend on the batch it came in.

    Args:
        x: images [N,3,H,W], RGB in [0,1], float32 or float64, on any device; left as they are.
        name: see ``aresbench list corruptions``.
        severity: 1 (mild) to 5 (strong).
        seed: another seed gives other draws.
        ids: one id per image; by default a hash of its pixels, so equal images get equal noise.
        mode: the protocol, part of every result: numbers of different modes are not comparable.
            ``memory``: 8 bits by truncation, nothing else (how CIFAR-10-C was made).
            ``disk``: as ``memory``, then JPEG at quality 85 with colours at half resolution (how ImageNet-C was
            published). ``imagecorruptions``: as ``memory``, with the rules of the Python package of that name:
            the doses of 224 px at every size, and its own frost, elastic transform, motion blur and snow.

    Returns:
        [N,3,H,W] of x's dtype and device, multiples of 1/255.

    Raises:
        UnknownName, SpecError: as :func:`make_corruption`.
        DataError: x is no such batch of images, or the number of ids is not N.
    """
    corruption = make_corruption(name, severity, mode)
    check_images(x)
    if ids is None:
        ids = pixel_ids(x)
    if isinstance(ids, str) or len(ids) != len(x):
        count = "a single text" if isinstance(ids, str) else f"{len(ids)} ids"
        raise DataError(f"{len(x)} images but {count}", "give a list with one id per image")
    return corruption(x, Streams(seed, corruption.component, ids, x.device))


def pixel_ids(x: Tensor) -> list[str]:
    """An id for each image [N,3,H,W] in [0,1]: the SHA-256 of its shape and its values rounded to 8 bits."""
    pixels = (x.detach() * 255).round().to("cpu", torch.uint8).numpy()
    head = "x".join(map(str, pixels.shape[1:])).encode()
    return [hashlib.sha256(head + b":" + image.tobytes()).hexdigest() for image in pixels]
