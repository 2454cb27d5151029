"""A program of torch.export as a torch module."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from aresbench.core.errors import ModelError
from aresbench.models.pt2_archive import require_harmless


class Program(nn.Module):
    """An exported program, which has no modes: it stays as it was exported."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of normalised images [N, 3, H, W]."""
        return self.program(x)

    def train(self, mode: bool = True) -> Program:
        """Change nothing but what this module says of itself: a program refuses to be asked."""
        self.training = mode
        return self


def load(path: Path, size: int | None) -> tuple[Program, tuple[int, int] | None, int]:
    """The program in a file, its input size (None: open, and not given) and its number of outputs.

    Raises:
        ModelError: no archive, one that could run code, or a program that is no classifier of images.
    """
    require_harmless(path)
    try:
        exported = torch.export.load(str(path))
        module = Program(exported.module(check_guards=False))
    except Exception as error:  # what torch's reader says depends on where it stumbles
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ModelError(f"torch {torch.__version__} cannot read {path}: {reason}", "export it again") from None
    names = exported.graph_signature.user_inputs
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"}
    inputs = [values.get(str(name)) for name in names]
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or inputs[0].ndim != 4:
        raise ModelError(f"{path} does not take one batch of images [N, 3, H, W]", "export it with the image alone")
    batch, _, height, width = (dim if isinstance(dim, int) else None for dim in inputs[0].shape)
    pixels = (height, width) if height and width else None if size is None else (size, size)
    if size is not None and pixels != (size, size):
        raise ModelError(f"{path} takes {height}×{width}, not {size}×{size}", "leave size out")
    if batch is not None:
        raise ModelError(
            f"{path} takes batches of {batch} only",
            "export it for any: torch.export.export(…, dynamic_shapes=({0: torch.export.Dim('n', min=1)},))",
        )
    if getattr(inputs[0], "dtype", None) != torch.float32:
        raise ModelError(f"{path} takes {inputs[0].dtype}, not float32", "export it in float32")
    return module, pixels, _outputs(path, module, pixels or (224, 224))


def _outputs(path: Path, module: nn.Module, pixels: tuple[int, int]) -> int:
    """The number of logits, seen on noise."""
    noise = torch.rand(2, 3, *pixels, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            logits = module(noise)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ModelError(f"{path} fails on 2 images of {pixels[0]}×{pixels[1]}: {reason}", "name its size") from None
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(
            f"{path} returns {got} for 2 images where logits [2, classes] belong",
            "export the part of the model that returns the logits alone",
        )
    return logits.shape[1]
