"""MIM: small projected steps along a sum of gradients, and the transfer attacks that are MIM with further parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses, parts
from aresbench.attacks.base import Attack, Loss, Problem, State
from aresbench.attacks.parts import Composition
from aresbench.attacks.settings import check_choice, check_flag, check_number, check_whole
from aresbench.core.errors import SpecError
from aresbench.ops.memory import values_at_once


@dataclass
class MIMState(State):
    """Where each image stands, the decayed sum of its gradients, and what variance tuning adds: [N, C, H, W] each."""

    x: Tensor
    momentum: Tensor
    variance: Tensor | None = None


@dataclass(frozen=True)
class MIM(Attack):
    """Momentum iterative method (MI-FGSM): steps that remember earlier gradients (Dong et al., 2018).

    Each gradient is divided by its L1 norm and added to ``decay`` times the sum so far; the step goes up the
    steepest direction of that sum. Starts at the image itself; every iterate is offered.

    With ``parts`` it becomes one of the transfer attacks, or a new one: ``mim(parts=[di, ti, si, vmi])``.
    ``si(copies=5)`` and ``admix(mixes=3, portion=0.2, copies=5)`` show the model several brightnesses of the image,
    ``di(prob=0.5, grow=1.1)`` resizes and pads each of them, ``vmi(samples=20, beta=1.5)`` adds the variance of
    the neighbourhood's gradients, ``ti(size=15, nsig=3)`` smooths the gradient before it is divided by its norm.

    Args:
        steps: number of updates. Without parts at most steps + 1 forward and steps backward passes per image;
            with parts each step costs one of both for each copy of each neighbour, and a forward for the offer
            where offers are judged.
        rel_step: length of a step as a fraction of eps; the paper's is 1 / steps.
        decay: what the sum of earlier gradients is multiplied by at each step.
        lookahead: take the gradient where the sum would lead (Nesterov; NI-FGSM: Lin et al., 2020). As in its
            authors' program the sum then counts with gradients divided by their mean size: divided by
            their L1 norm it would not move a pixel.
        loss: what the steps climb: ``ce`` (cross-entropy), ``margin`` (of the logits) or ``logit`` (that of the
            target alone, or minus that of the label; Zhao et al., 2021).
        parts: what it is built from besides momentum, in any order.
    """

    steps: int = 10
    rel_step: float = 0.1
    decay: float = 1.0
    lookahead: bool = False
    loss: str = "ce"
    parts: tuple[str, ...] = ()

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Y. Dong, F. Liao, T. Pang, H. Su, J. Zhu, X. Hu and J. Li. Boosting Adversarial Attacks with Momentum. "
        "CVPR 2018. arXiv:1710.06081"
    )
    choose_when: ClassVar[str] = (
        "you make images that should fool other models too, or compare with papers that used it"
    )

    def __post_init__(self) -> None:
        check_whole(self, "steps", least=1)
        check_number(self, "rel_step")
        check_number(self, "decay")
        check_flag(self, "lookahead")
        check_choice(self, "loss", ("ce", "margin", "logit"))
        if not isinstance(self.parts, tuple) or not all(isinstance(part, str) for part in self.parts):
            raise SpecError(f"parts={self.parts!r} of MIM", "parts are a list of texts: mim(parts=[di(prob=0.7), ti])")
        object.__setattr__(self, "parts", parts.canonical(self.parts))  # however they are written, one attack

    @property
    def total_steps(self) -> int:
        return self.steps

    @property
    def passes(self) -> int:
        made = parts.compose(self.parts)
        copies = math.prod(part.count for part in made.transformations)
        points = 1 + (made.variance.samples if made.variance is not None else 0)
        return 2 * self.steps * copies * points

    def start(self, problem: Problem) -> MIMState:
        x = problem.x
        if problem.start_from is not None:
            x = geometry.project(problem.start_from, x, problem.eps, problem.norm)
        tuned = parts.compose(self.parts).variance is not None
        return MIMState(torch.zeros_like(problem.y), x, torch.zeros_like(x), torch.zeros_like(x) if tuned else None)

    def step(self, problem: Problem, state: MIMState) -> MIMState:
        made = parts.compose(self.parts)
        length = self.rel_step * problem.eps
        if not made.transformations and not self.lookahead:
            logits, _, gradient = problem.gradient(state.x, self._loss(problem))
            problem.offer(state.x, logits)
        else:  # the model is asked about other points than the iterate
            problem.offer(state.x)
            point = state.x
            if self.lookahead:
                point = geometry.glide(point, state.momentum, self.decay * length, problem.norm)
            gradient = self._slope(problem, made, point, "here", state.t)
        raised, variance = gradient, None
        if made.variance is not None:
            assert state.variance is not None
            raised = gradient + state.variance
            variance = self._surroundings(problem, made, state) - gradient
        if made.smoothing is not None:
            raised = made.smoothing(raised)
        momentum = self.decay * state.momentum + geometry.normalised(raised)
        moved = geometry.ascend(state.x, momentum, length, problem.norm)
        x = geometry.project_(moved, problem.x, problem.eps, problem.norm)
        return MIMState(state.t, x, momentum, variance)

    def finish(self, problem: Problem, state: MIMState) -> None:
        problem.offer(state.x)

    def _surroundings(self, problem: Problem, made: Composition, state: MIMState) -> Tensor:
        """The mean gradient of the neighbours of each iterate, [N, C, H, W]."""
        assert made.variance is not None
        total = torch.zeros_like(state.x)
        for k in range(made.variance.samples):  # one by one: all at once would not fit
            near = made.variance.neighbour(state.x, problem.eps, problem.norm, problem.streams, k, state.t)
            total += self._slope(problem, made, near, f"neighbour {k}", state.t)
        return total / made.variance.samples

    def _slope(self, problem: Problem, made: Composition, x: Tensor, place: str, t: Tensor) -> Tensor:
        """The gradient at points [N, C, H, W], averaged over what the transformations show instead of them.

        Args:
            place: a word that keys the transformations' draws, besides the image and the step.
        """
        n = len(x)
        with torch.enable_grad():
            x = x.detach().requires_grad_(bool(made.transformations))
            shown = x
            for part in made.transformations:
                copies = len(shown) // n
                numbers = problem.streams.uniform(f"{part.kind} of {place}", (copies, part.draws), t)
                shown = part(shown, numbers.transpose(0, 1).flatten(0, 1))
        owner = torch.arange(n, device=x.device).repeat(len(shown) // n)
        rows = max(n, values_at_once(x.device) // x[0].numel())
        gradient = torch.cat(
            [
                problem.gradient(some, self._loss(problem, whose), whose)[2]
                for some, whose in zip(shown.detach().split(rows), owner.split(rows), strict=True)
            ]
        )
        if not made.transformations:
            return gradient
        (through,) = torch.autograd.grad(shown, x, gradient)
        return through * (n / len(shown))

    def _loss(self, problem: Problem, owner: Tensor | None = None) -> Loss | None:
        if self.loss == "ce":
            return None
        return losses.goal_margin(problem, owner) if self.loss == "margin" else losses.goal_logit(problem, owner)


DIM = MIM(parts=("di",))
"""DI-FGSM: MIM on images resized and padded by chance (Xie et al., 2019. arXiv:1803.06978).

`mim(parts=[di])`; the settings are those of `mim`.
"""

TIM = MIM(parts=("ti",))
"""TI-FGSM: MIM on smoothed gradients (Dong et al., 2019. arXiv:1904.02884).

`mim(parts=[ti])`; the settings are those of `mim`. Resizing, which others include under this name, is a part of its
own: `mim(parts=[di, ti])`.
"""

SINIFGSM = MIM(lookahead=True, parts=("si",))
"""SI-NI-FGSM: MIM that looks ahead, on five brightnesses of the image at once (Lin et al., 2020. arXiv:1908.06281).

`mim(lookahead=true, parts=[si])`; the settings are those of `mim`.
"""

ADMIX = MIM(parts=("admix",))
"""Admix: MIM on images through which others shine, at five brightnesses (Wang et al., 2021. arXiv:2102.00436).

`mim(parts=[admix])`; the settings are those of `mim`. The images mixed in are pieces of photographs from outside the
task, where the paper takes other images of the batch: a result must not depend on who shares the batch.
"""

VMIFGSM = MIM(parts=("vmi",))
"""VMI-FGSM: MIM that adds what the neighbourhood's gradients say (Wang and He, 2021. arXiv:2103.15571).

`mim(parts=[vmi])`; the settings are those of `mim`.
"""

TTA = MIM(steps=300, rel_step=0.125, loss="logit", parts=("di(prob=0.7)", "ti(size=5)"))
"""Targeted transfer attack: many steps up the target's logit, on resized images (Zhao et al., 2021. arXiv:2012.11207).

`mim(steps=300, rel_step=0.125, loss=logit, parts=[di(prob=0.7), ti(size=5)])`; the settings are those of `mim`.
Give targets; without them it lowers the label's logit.
"""
