"""CDA: a generator, trained elsewhere, changes the image once."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from aresbench.attacks import geometry
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.settings import check_flag
from aresbench.core import registry
from aresbench.core.errors import SpecError
from aresbench.ops.smooth import smoothed


@dataclass(frozen=True)
class CDA(Attack):
    """Cross-domain attack: a generator trained to fool others changes the image in one pass (Naseer et al., 2019).

    Nothing of the attacked model is asked but the verdict. What the generator gives is brought into the ball and
    the box; values that are not finite are replaced by the image's.

    Args:
        generator: where it is, ``./file.py:name`` or ``package.module:name``: an ``nn.Module`` that takes images
            [N, C, H, W] in [0, 1] and returns changed ones of the same shape, or a function that makes it.
            It runs in eval mode.
        smooth: smooth its pictures by a 3 × 3 Gaussian first, as the paper does against defences.
    """

    generator: str
    smooth: bool = False

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    access: ClassVar[str] = "none"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "M. Naseer, S. H. Khan, M. H. Khan, F. S. Khan and F. Porikli. Cross-Domain Transferability of Adversarial "
        "Perturbations. NeurIPS 2019. arXiv:1905.11736"
    )
    choose_when: ClassVar[str] = "you have a generator and want to know whom it fools"
    example: ClassVar[str] = "cda(generator=./generator.py:make)"

    def __post_init__(self) -> None:
        check_flag(self, "smooth")
        if not isinstance(self.generator, str) or ":" not in self.generator:
            raise SpecError(
                f"generator={self.generator!r} of CDA", "say where it is: cda(generator=./generator.py:make)"
            )

    @property
    def total_steps(self) -> int:
        return 1

    def start(self, problem: Problem) -> State:
        return State(torch.zeros_like(problem.y))

    def step(self, problem: Problem, state: State) -> State:
        made = self._made(problem.x)
        if self.smooth:
            made = smoothed(made, 3, 1.0)
        made = torch.where(torch.isfinite(made), made, problem.x)
        problem.offer(geometry.project_(made, problem.x, problem.eps, problem.norm))
        return state

    def _made(self, x: Tensor) -> Tensor:
        generator = _load(self.generator, x.device)
        with torch.no_grad():
            try:
                made = generator(x)
            except Exception as error:
                raise SpecError(
                    f"the generator {self.generator} fails on images of shape {list(x.shape)}: "
                    f"{type(error).__name__}: {error}",
                    "call it by hand on such a batch",
                ) from error
        if not isinstance(made, Tensor) or made.shape != x.shape:
            what = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise SpecError(
                f"the generator {self.generator} makes {what} of images of shape {list(x.shape)}",
                "it must return changed images of the same shape",
            )
        return made.to(x.dtype)


@cache
def _load(path: str, device: torch.device) -> nn.Module:
    """The generator, in eval mode; the user's own object is copied, not moved."""
    found = registry.find("attacks", path)
    made = copy.deepcopy(found) if isinstance(found, nn.Module) else found() if callable(found) else None
    if not isinstance(made, nn.Module):
        raise SpecError(f"{path} is no generator", "name an nn.Module, or a function without arguments that makes one")
    return made.to(device).eval()
