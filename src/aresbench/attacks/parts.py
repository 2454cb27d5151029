"""Parts that an iterated attack can be built from, so that what it finds also fools models it never saw.

Each part is frozen settings of one of three kinds, and an attack takes at most one of each:

- what the model is shown instead of the image: ``copies`` (``si``, ``admix``), then a random ``view`` of each (``di``);
- ``variance``: what is added to a gradient from those of the neighbourhood (``vmi``);
- ``smoothing`` of the gradient (``ti``).

They act in this order however they are written. Draws belong to the image, the step and the copy.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry
from aresbench.attacks.settings import check_number, check_whole
from aresbench.core.errors import SpecError, did_you_mean
from aresbench.core.spec import format_value, parse_call, settings_of
from aresbench.ops.photographs import pieces
from aresbench.ops.random import Streams
from aresbench.ops.resample import apply_sides, bilinear
from aresbench.ops.smooth import smoothed


@dataclass(frozen=True)
class Part(ABC):
    """Base of all parts: ``kind`` says where it acts, ``paper`` whom to cite."""

    kind: ClassVar[str]
    paper: ClassVar[str]


@dataclass(frozen=True)
class Transformation(Part):
    """What the model is shown instead of the image; the gradient is drawn back through it and averaged."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many images it makes of each."""

    @property
    @abstractmethod
    def draws(self) -> int:
        """How many random numbers it needs for each image given to it."""

    @abstractmethod
    def __call__(self, x: Tensor, numbers: Tensor) -> Tensor:
        """Images [count · M, C, H, W], all first copies before all second ones, differentiable in ``x``.

        Args:
            x: [M, C, H, W].
            numbers: [M, draws] in [0, 1).
        """


@dataclass(frozen=True)
class SI(Transformation):
    """Scale invariance: the image at its full, half, quarter … brightness (Lin et al., 2020).

    Args:
        copies: how many; copy i (from 0) is the image divided by 2^i.
    """

    copies: int = 5

    kind: ClassVar[str] = "copies"
    paper: ClassVar[str] = (
        "J. Lin, C. Song, K. He, L. Wang and J. E. Hopcroft. Nesterov Accelerated Gradient and Scale Invariance for "
        "Adversarial Attacks. ICLR 2020. arXiv:1908.06281"
    )

    def __post_init__(self) -> None:
        check_whole(self, "copies", least=1)

    @property
    def count(self) -> int:
        return self.copies

    @property
    def draws(self) -> int:
        return 0

    def __call__(self, x: Tensor, numbers: Tensor) -> Tensor:
        return torch.cat([x * 0.5**i for i in range(self.copies)])


@dataclass(frozen=True)
class Admix(Transformation):
    """Admix: other pictures shine through the image, at several brightnesses (Wang et al., 2021).

    The paper mixes in images of other classes from the same batch. A result would then depend on who shares the
    batch; here each image draws pieces of two photographs that belong to no data set, anew at every step.

    Args:
        mixes: how many pictures are mixed in, each by itself.
        portion: their weight, beside the image's 1.
        copies: brightnesses of each mixture, as in ``si``.
    """

    mixes: int = 3
    portion: float = 0.2
    copies: int = 5

    kind: ClassVar[str] = "copies"
    paper: ClassVar[str] = (
        "X. Wang, X. He, J. Wang and K. He. Admix: Enhancing the Transferability of Adversarial Attacks. ICCV 2021. "
        "arXiv:2102.00436"
    )

    def __post_init__(self) -> None:
        check_whole(self, "mixes", least=1)
        check_number(self, "portion")
        check_whole(self, "copies", least=1)

    @property
    def count(self) -> int:
        return self.mixes * self.copies

    @property
    def draws(self) -> int:
        return 3 * self.mixes

    def __call__(self, x: Tensor, numbers: Tensor) -> Tensor:
        shape = (x.shape[1], x.shape[2], x.shape[3])
        mixed = torch.cat([x + self.portion * pieces(drawn, shape) for drawn in numbers.split(3, dim=1)])
        return torch.cat([mixed * 0.5**i for i in range(self.copies)])


@dataclass(frozen=True)
class DI(Transformation):
    """Diverse inputs: the image grown and padded with black by chance, then back at its size (Xie et al., 2019).

    Both resizings are bilinear. Each image of a batch and each copy draws its own size, place and coin.

    Args:
        prob: how often; otherwise the model is shown the image itself.
        grow: the padded picture's side, as a multiple of the image's; its inside is drawn between the two.
    """

    prob: float = 0.5
    grow: float = 1.1

    kind: ClassVar[str] = "view"
    paper: ClassVar[str] = (
        "C. Xie, Z. Zhang, Y. Zhou, S. Bai, J. Wang, Z. Ren and A. Yuille. Improving Transferability of Adversarial "
        "Examples with Input Diversity. CVPR 2019. arXiv:1803.06978"
    )

    def __post_init__(self) -> None:
        check_number(self, "prob", high=1.0)
        check_number(self, "grow", low=1.0, high=4.0)

    @property
    def count(self) -> int:
        return 1

    @property
    def draws(self) -> int:
        return 4

    def __call__(self, x: Tensor, numbers: Tensor) -> Tensor:
        coin, inner, *places = numbers.unbind(1)
        still = coin >= self.prob
        rows, columns = (
            self._side(length, inner, place, still) for length, place in zip(x.shape[2:], places, strict=True)
        )
        return apply_sides(x, rows, columns)

    def _side(self, length: int, inner: Tensor, place: Tensor, still: Tensor) -> Tensor:
        """One side's weights [M, length, length]: grown, padded, shrunk again; the identity where ``still``."""
        padded = math.ceil(round(length * self.grow, 6))
        grown = length + (inner * (padded - length)).floor()  # below padded: there is always something to pad
        before = (place * (padded - grown)).floor()
        pixels = torch.arange(padded, device=inner.device, dtype=inner.dtype)
        inside = pixels - before[:, None]  # places in the grown image
        there = (inside >= 0) & (inside < grown[:, None])
        growing = bilinear((inside + 0.5) * (length / grown)[:, None] - 0.5, length) * there.unsqueeze(-1)
        out = torch.arange(length, device=inner.device, dtype=inner.dtype)
        shrinking = bilinear((out + 0.5) * (padded / length) - 0.5, padded)
        same = torch.eye(length, device=inner.device, dtype=inner.dtype)
        return torch.where(still[:, None, None], same, shrinking @ growing)


@dataclass(frozen=True)
class VMI(Part):
    """Variance tuning: to each gradient is added by how much the last neighbourhood's mean differed from it.

    Wang and He (2021). The neighbours are drawn evenly from a ball around the current point (not the image), and
    need not lie in the box.

    Args:
        samples: neighbours at each step; each costs as much as the gradient itself.
        beta: the ball's size as a multiple of eps.
    """

    samples: int = 20
    beta: float = 1.5

    kind: ClassVar[str] = "variance"
    paper: ClassVar[str] = (
        "X. Wang and K. He. Enhancing the Transferability of Adversarial Attacks through Variance Tuning. CVPR 2021. "
        "arXiv:2103.15571"
    )

    def __post_init__(self) -> None:
        check_whole(self, "samples", least=1)
        check_number(self, "beta")

    def neighbour(self, x: Tensor, eps: Tensor, norm: str, streams: Streams, sample: int, step: Tensor) -> Tensor:
        """One neighbour of each image, [N, C, H, W]."""
        return geometry.neighbour(x, self.beta * eps, norm, streams, f"vmi/{sample}", step)


@dataclass(frozen=True)
class TI(Part):
    """Translation invariance: gradients smoothed before anything else is done to them (Dong et al., 2019).

    Args:
        size: side of the kernel in pixels, odd.
        nsig: how many standard deviations lie between the kernel's middle and its edge.
    """

    size: int = 15
    nsig: float = 3.0

    kind: ClassVar[str] = "smoothing"
    paper: ClassVar[str] = (
        "Y. Dong, T. Pang, H. Su and J. Zhu. Evading Defenses to Transferable Adversarial Examples by "
        "Translation-Invariant Attacks. CVPR 2019. arXiv:1904.02884"
    )

    def __post_init__(self) -> None:
        check_whole(self, "size", least=1)
        check_number(self, "nsig")
        if self.size % 2 == 0:
            raise SpecError(f"size={self.size} of TI", "size must be odd, so that the kernel has a middle")

    def __call__(self, gradient: Tensor) -> Tensor:
        return smoothed(gradient, self.size, self.nsig)


PARTS: dict[str, type[Part]] = {"si": SI, "admix": Admix, "di": DI, "vmi": VMI, "ti": TI}
"""By name, in the order in which they act."""


@dataclass(frozen=True)
class Composition:
    """The parts of one attack, sorted by what they do."""

    transformations: tuple[Transformation, ...] = ()
    variance: VMI | None = None
    smoothing: TI | None = None


@cache
def compose(parts: tuple[str, ...]) -> Composition:
    """The parts that texts name.

    Raises:
        SpecError: an unknown part or setting, a value a part refuses, or two parts of one kind.
    """
    made = [_make(text) for text in canonical(parts)]
    return Composition(
        tuple(part for part in made if isinstance(part, Transformation)),
        next((part for part in made if isinstance(part, VMI)), None),
        next((part for part in made if isinstance(part, TI)), None),
    )


def canonical(parts: tuple[str, ...]) -> tuple[str, ...]:
    """One spelling of a list of parts: in the order in which they act, each with its settings that are no defaults.

    Raises:
        SpecError: as ``compose``.
    """
    made = [_make(text) for text in parts]
    for k, part in enumerate(made):
        twin = next((other for other in made[:k] if other.kind == part.kind), None)
        if twin is not None:
            raise SpecError(f"{_name(twin)} and {_name(part)} are both parts of kind {part.kind!r}", "keep one of them")
    return tuple(_text(part) for name in PARTS for part in made if _name(part) == name)


def _make(text: str) -> Part:
    call = parse_call(text)
    if call.name not in PARTS:
        hint = did_you_mean(call.name, PARTS) or f"parts are {', '.join(PARTS)}"
        raise SpecError(f"there is no part called {call.name!r}", hint)
    kind = PARTS[call.name]
    return kind(**settings_of(call, kind, text))


def _text(part: Part) -> str:
    settings = []
    for f in fields(part):
        value: Any = getattr(part, f.name)
        if isinstance(f.default, float):
            value = float(value)  # beta=2 and beta=2.0 are one part
        if value != f.default:
            settings.append(f"{f.name}={format_value(value)}")
    return f"{_name(part)}({', '.join(settings)})" if settings else _name(part)


def _name(part: Part) -> str:
    return next(name for name, kind in PARTS.items() if type(part) is kind)
