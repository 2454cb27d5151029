"""sigma-zero: the fewest changed values that break an image, found along a smooth count of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.settings import check_number, check_whole

BETA1, BETA2 = 0.9, 0.999  # Adam's memory
LR_FINAL = 0.1  # the step shrinks to this share of its first length


@dataclass
class SigmaZeroState(State):
    """One row per image.

    Args:
        x: [N, C, H, W], the next point to ask about.
        mean, square: [N, C, H, W], Adam's running means of the gradient and of its square.
        threshold: [N], changes below it are taken back.
    """

    x: Tensor
    mean: Tensor
    square: Tensor
    threshold: Tensor


@dataclass(frozen=True)
class SigmaZero(Attack):
    """The fewest changed values that break each image, by gradient descent on a smooth count (Cinà et al., 2025).

    Descends what the lead still lacks plus the mean of change² / (change² + sigma), which nears the share of
    values changed as sigma falls. After each step changes below a threshold are taken back; the threshold rises
    while the image is broken and falls while it is not. The gradient is divided by its largest entry; steps and
    moves of the threshold shrink along a cosine.

    Values are counted, not pixels: a pixel whose three channels change counts three times. As in the authors'
    code the step is Adam's. Unlike the paper it also aims at targets and asks about the last iterate.

    Args:
        steps: number of updates; at most steps + 1 forward and steps backward passes per image.
        lr: first step of Adam, in [0,1] units; falls to a tenth of it.
        sigma: how sharp the count is.
        threshold: below which a change is taken back, at first, in [0,1] units.
        threshold_rate: by which share of ``lr``, with its cosine, the threshold moves each step.
    """

    steps: int = 1000
    lr: float = 1.0
    sigma: float = 0.001
    threshold: float = 0.3
    threshold_rate: float = 0.01

    norms: ClassVar[tuple[str, ...]] = ("l0",)
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "minimal"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "A. E. Cinà, F. Villani, M. Pintor, L. Schönherr, B. Biggio and M. Pelillo. sigma-zero: Gradient-based "
        "Optimization of l0-norm Adversarial Examples. ICLR 2025. arXiv:2402.01879"
    )
    choose_when: ClassVar[str] = "you want to know how few values must change, and can afford a thousand steps"

    def __post_init__(self) -> None:
        check_whole(self, "steps", least=1)
        for name in ("lr", "sigma", "threshold_rate"):
            check_number(self, name)
        check_number(self, "threshold", high=1.0)

    @property
    def total_steps(self) -> int:
        return self.steps

    def start(self, problem: Problem) -> SigmaZeroState:
        x = problem.x
        if problem.start_from is not None:
            x = geometry.project(problem.start_from, problem.x, problem.eps, problem.norm)
        t, zero = torch.zeros_like(problem.y), torch.zeros_like(x)
        return SigmaZeroState(t, x=x, mean=zero, square=zero, threshold=torch.full_like(problem.eps, self.threshold))

    def step(self, problem: Problem, state: SigmaZeroState) -> SigmaZeroState:
        s, x0 = state, problem.x
        logits, _, gradient = problem.gradient(s.x, losses.goal_margin(problem))
        problem.offer(s.x, logits)
        reached = problem.adversarial(logits)

        # The smooth count is the mean of change^2 / (change^2 + sigma).
        change = s.x - x0
        count = 2 * self.sigma / x0[0].numel() * change / (change * change + self.sigma).square()
        descent = count - gradient * geometry.per_image(torch.where(reached, 0.0, 1.0), gradient)
        peak = geometry.size(descent, "linf")
        descent = descent / geometry.per_image(peak.clamp_min(1e-12), descent)
        mean = torch.lerp(descent, s.mean, BETA1)
        square = torch.lerp(descent * descent, s.square, BETA2)
        made = s.t + 1
        cosine = 0.5 + 0.5 * torch.cos(s.t * (math.pi / self.steps))
        share = LR_FINAL + (1 - LR_FINAL) * cosine
        size = self.lr * share / (1 - BETA1**made)
        root = (square / geometry.per_image(1 - BETA2**made, square)).sqrt_().add_(1e-8)
        x = (s.x - geometry.per_image(size, mean) * mean / root).clamp_(0, 1)
        move = self.threshold_rate * self.lr * share
        threshold = (s.threshold + torch.where(reached, move, -move)).clamp(0, 1)
        x = torch.where((x - x0).abs() < geometry.per_image(threshold, x), x0, x)
        if x.is_cuda or torch.isfinite(problem.eps).any():  # without a budget there is nothing to sort
            x = geometry.keep_(x, x0, problem.eps, worth=gradient * (x - x0))
        return SigmaZeroState(s.t, x=x, mean=mean, square=square, threshold=threshold)

    def finish(self, problem: Problem, state: SigmaZeroState) -> None:
        problem.offer(state.x, problem.query(state.x))
