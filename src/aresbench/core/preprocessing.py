"""How a picture becomes a model's input: resize, crop, interpolation. Part of every protocol."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from aresbench.core.errors import SpecError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop and interpolation; the result is RGB in [0,1]. No mean or std: the model owns those.

    Args:
        size: (height, width) of the model's input in pixels.
        resize: length in pixels to which the shorter side is resized before the crop;
            ``None`` takes the picture as it is (it must then already have the right size).
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos`` (Pillow's filters, antialiased).
        squash: resize without keeping the aspect ratio: to ``size``, no crop; or, where ``resize`` is given, both
            sides to that length before the crop.
    """

    size: tuple[int, int]
    resize: int | None = None
    interpolation: str = "bicubic"
    squash: bool = False

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise SpecError(
                f"unknown interpolation {self.interpolation!r}", f"choose one of {', '.join(INTERPOLATIONS)}"
            )
        if min(self.size) < 1:
            raise SpecError(f"the input size must be positive, got {self.size}")

    def describe(self) -> dict[str, object]:
        """The record that goes into a cell's key."""
        return {**asdict(self), "size": list(self.size)}
