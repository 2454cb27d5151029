"""Changes that a defended model makes to its images first, and gradients through what has none.

``defend(model, "jpeg(quality=75)")`` is a classifier like any other, and so is what the text
``samples:digits-plain + jpeg(quality=75)`` names. ``Bpda`` does the same for a change of your own.
"""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor, nn

from aresbench.core.errors import ModelError, SpecError
from aresbench.core.registry import find, table
from aresbench.core.spec import format_value, parse_call, settings_of
from aresbench.models.classifier import Classifier
from aresbench.ops.jpeg import through_jpeg

STRAIGHT = "straight-through"

Change = Callable[[Tensor], Tensor]
"""Images [N, C, H, W] in [0, 1] → images of the same shape."""


class Bpda(nn.Module):
    """A change without a useful gradient in front of a model, attacked all the same (BPDA; Athalye et al., 2018).

    Forward, the model sees exactly ``transform(x)``. Backward, the change is taken for the identity, or for a
    differentiable ``substitute``: the gradient is the model's own at ``transform(x)``, passed straight through.

    Args:
        transform: images [N, C, H, W] in [0, 1] → images; it may round, compress, or leave torch altogether.
        module: takes the changed images: a classifier or any other module.
        substitute: images → images of the same shape as ``transform``'s, near to them, with a gradient. Needed where
            ``transform`` changes the shape.

    Raises:
        ModelError: at the first forward, if the shapes do not agree.

    Example:
        >>> guarded = ab.Bpda(lambda x: (x * 7).round() / 7, model)
        >>> ab.attack(guarded, x, y, "apgd-ce", "linf:4/255")
    """

    def __init__(self, transform: Change, module: nn.Module, substitute: Change | None = None) -> None:
        super().__init__()
        for name, function in (("transform", transform), ("module", module), ("substitute", substitute)):
            if function is not None and not callable(function):
                raise ModelError(f"{name} is a {type(function).__name__}, which cannot be called on images")
        self.transform, self.module, self.substitute = transform, module, substitute
        self.training = module.training

    def forward(self, x: Tensor) -> Tensor:
        """The module's answer to the changed images."""
        with torch.no_grad():
            changed = self.transform(x.detach())
        slope = x if self.substitute is None else self.substitute(x)
        if changed.shape != slope.shape:
            raise ModelError(
                f"the transform makes {list(changed.shape)} of {list(x.shape)}, its gradient has {list(slope.shape)}",
                "give a differentiable substitute that makes the same shape: Bpda(transform, module, substitute)",
            )
        answer: Tensor = self.module(changed + (slope - slope.detach()))  # the bracket is 0 exactly
        return answer

    def extra_repr(self) -> str:
        """What the fingerprint of a classifier reads of the change."""
        return f"transform={_text(self.transform)}, substitute={_text(self.substitute)}"


class _InFront(nn.Module):
    """A change in front of a model with the gradient that it has."""

    def __init__(self, transform: Change, module: nn.Module) -> None:
        super().__init__()
        self.transform, self.module = transform, module
        self.training = module.training

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.module(self.transform(x))
        return answer

    def extra_repr(self) -> str:
        return f"transform={_text(self.transform)}"


def _text(change: object) -> str:
    """A text that changes with the change: settings of a defence, program text of a function."""
    if change is None or isinstance(change, nn.Module):  # a module is listed with the others
        return str(type(change).__name__)
    if isinstance(change, Defence):
        return f"{change!r}, revision {change.revision}, {_source(type(change))}"
    return f"{getattr(change, '__qualname__', type(change).__qualname__)} {_source(change)}"


def _source(thing: object) -> str:
    """A hash of the program text of what is the user's own."""
    if (getattr(thing, "__module__", "") or "").startswith("aresbench."):
        return ""
    try:
        text = inspect.getsource(thing)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Defence(ABC):
    """Base of the input defences: frozen settings and one function of images. A new one is one class and one line.

    Class attributes are its card: ``differentiable`` (its own gradient is the right one), ``revision`` (raised when
    its images change), the ``paper`` and ``choose_when``. One that is not differentiable has a setting ``gradient``.
    """

    differentiable: ClassVar[bool]
    revision: ClassVar[int]
    paper: ClassVar[str]
    choose_when: ClassVar[str]

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] in [0, 1] as the model is to see them, of the same shape and type."""


def _check_gradient(defence: Jpeg | BitDepth) -> None:
    if defence.gradient == "none":
        object.__setattr__(defence, "gradient", None)  # as specs read the word
    if defence.gradient not in (STRAIGHT, None):
        raise SpecError(f"gradient={defence.gradient!r} is unknown", f"choose {STRAIGHT} or none")


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SpecError(f"{name} must be a whole number from {low} to {high}, got {value!r}")


@dataclass(frozen=True)
class Jpeg(Defence):
    """JPEG compression, which drops the fine detail that attacks live in (Dziugaite et al., 2016; Guo et al., 2018).

    Images are rounded to 8 bits, then encoded and decoded as baseline JPEG with 4:2:0 chroma, as Pillow does.

    Args:
        quality: libjpeg's, 1 to 95.
        gradient: ``straight-through`` (BPDA: as if nothing happened) or ``none`` (the true one: zero everywhere, which
            makes gradient attacks blind and the model look robust).
    """

    quality: int = 75
    gradient: str | None = "straight-through"

    differentiable: ClassVar[bool] = False
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "C. Guo, M. Rana, M. Cissé and L. van der Maaten. Countering Adversarial Images using Input Transformations. "
        "ICLR 2018. arXiv:1711.00117"
    )
    choose_when: ClassVar[str] = "you want to know what compression in front of a model is worth"

    def __post_init__(self) -> None:
        _check_whole("quality", self.quality, 1, 95)
        _check_gradient(self)

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise ModelError(f"JPEG takes RGB images, these have {x.shape[1]} channels")
        pixels = (x.detach().clamp(0, 1) * 255).round().to(torch.uint8)
        return through_jpeg(pixels, self.quality).to(x.dtype) / 255


@dataclass(frozen=True)
class BitDepth(Defence):
    """Fewer grey levels: every value is rounded to the nearest of 2^bits (feature squeezing; Xu et al., 2018).

    Args:
        bits: 1 to 8 for each channel.
        gradient: ``straight-through`` (BPDA: as if nothing happened) or ``none`` (the true one: zero everywhere).
    """

    bits: int = 4
    gradient: str | None = "straight-through"

    differentiable: ClassVar[bool] = False
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "W. Xu, D. Evans and Y. Qi. Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks. "
        "NDSS 2018. arXiv:1704.01155"
    )
    choose_when: ClassVar[str] = "you want to know what rounding in front of a model is worth"

    def __post_init__(self) -> None:
        _check_whole("bits", self.bits, 1, 8)
        _check_gradient(self)

    def __call__(self, x: Tensor) -> Tensor:
        levels = 2**self.bits - 1
        return (x.detach() * levels).round() / levels


@dataclass(frozen=True)
class ResizePad(Defence):
    """Each pass shrinks every image by chance and puts it somewhere on a black canvas (Xie et al., 2018).

    The paper resizes 299 pixels to between 299 and 331 and pads to 331. Here the canvas is the model's own input size,
    so that every model can take it, and images shrink to no less than 299/331 of it instead. Nearest neighbours, as in
    the paper. The gradient is the true one; a randomised model is judged over many draws.

    Args:
        smallest: least side as a share of the input's, in (0, 1].
    """

    smallest: float = 0.9033

    differentiable: ClassVar[bool] = True
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "C. Xie, J. Wang, Z. Zhang, Z. Ren and A. Yuille. Mitigating Adversarial Effects Through Randomization. "
        "ICLR 2018. arXiv:1711.01991"
    )
    choose_when: ClassVar[str] = "you want to know what chance in front of a model is worth"

    def __post_init__(self) -> None:
        if isinstance(self.smallest, bool) or not isinstance(self.smallest, int | float) or not 0 < self.smallest <= 1:
            raise SpecError(f"smallest must lie in (0, 1], got {self.smallest!r}")

    def __call__(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        share = self.smallest + (1 - self.smallest) * torch.rand(n, device=x.device)  # one for both sides
        row, rows = self._source(height, share)
        column, columns = self._source(width, share)
        image = torch.arange(n, device=x.device)[:, None, None]
        taken = x.permute(0, 2, 3, 1)[image, row[:, :, None], column[:, None, :]]
        inside = rows[:, :, None] & columns[:, None, :]
        return (taken * inside[..., None]).permute(0, 3, 1, 2)

    @staticmethod
    def _source(length: int, share: Tensor) -> tuple[Tensor, Tensor]:
        """For each place of the canvas the place of the image that is shown there, and whether one is; [N, length]."""
        side = (share * length).round().long().clamp(1, length)
        first = (torch.rand(len(share), device=share.device) * (length - side + 1)).long()
        place = torch.arange(length, device=share.device) - first[:, None]
        return (place * length // side[:, None]).clamp(0, length - 1), (place >= 0) & (place < side[:, None])


def make_defence(spec: str | Defence) -> Defence:
    """The defence a text describes: ``jpeg(quality=75)``, or one of your own, ``./mine.py:MyDefence(strength=2)``.

    Raises:
        UnknownName: no such defence (the nearest right name is told).
        SpecError: malformed text, an unknown setting, a value the defence refuses, or an object that is no defence.
    """
    if isinstance(spec, Defence):
        return spec
    call = parse_call(spec)
    found = find("defences", call.name)
    if not (isinstance(found, type) and issubclass(found, Defence)):
        raise SpecError(f"{call.name} is not a defence", "name a subclass of aresbench.models.defences.Defence")
    return found(**settings_of(call, found, spec))


def describe(defence: Defence) -> str:
    """The text under which a defence stands in a model's name: the first setting always, others where they differ."""
    texts = []
    for place, f in enumerate(fields(defence)):
        value = getattr(defence, f.name)
        if place == 0 or value != f.default:
            texts.append(f"{f.name}={format_value(value)}")
    kind = type(defence)
    where = f"{kind.__module__}:{kind.__qualname__}"
    name = next((n for n, path in table("defences").items() if path == where), kind.__qualname__)
    return f"{name}({', '.join(texts)})" if texts else name


def defend(model: Classifier, defence: str | Defence) -> Classifier:
    """The same classifier behind an input defence; its name and fingerprint say so.

    A further ``defend`` goes around the first: its change meets the image before.

    Args:
        model: the classifier; it is wrapped, never changed.
        defence: a spec (``aresbench list defences``) or an object. A defence that has no gradient of its own is
            given the straight-through one unless it says ``gradient=none``.

    Raises:
        ModelError: not a classifier.
        UnknownName, SpecError: as ``make_defence``.

    Example:
        >>> guarded = ab.defend(ab.load_model("samples:digits-plain"), "jpeg(quality=75)")
        >>> guarded.name
        'samples:digits-plain + jpeg(quality=75)'
    """
    if not isinstance(model, Classifier):
        raise ModelError(
            f"a {type(model).__name__} is not a Classifier", "wrap it first: aresbench.Classifier(module, classes=…)"
        )
    made = make_defence(defence)
    straight = not made.differentiable and getattr(made, "gradient", STRAIGHT) == STRAIGHT
    module: nn.Module = Bpda(made, model) if straight else _InFront(made, model)
    text = describe(made)
    guarded = Classifier(
        module,
        classes=model.classes if model.classes is not None else model.num_classes,
        preprocessing=model.preprocessing,
        name=f"{model.name} + {text}",
    )
    # Mean and std are the inner classifier's; what others have measured without the defence says nothing here.
    guarded.card = {**model.card, "defence": ", ".join(filter(None, (model.card.get("defence"), text)))}
    return guarded
