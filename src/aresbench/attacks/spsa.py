"""SPSA: Adam on a gradient estimated from logits alone, by shaking all values at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, sampling
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.settings import check_number, check_whole

BETA1, BETA2, TINY = 0.9, 0.999, 1e-8  # Adam's


@dataclass
class SPSAState(State):
    """One row per image.

    Args:
        x: [N, C, H, W], the last point asked about.
        logits: [N, K], the answer there.
        mean, square: [N, C, H, W], Adam's moving averages of the gradient and of its square.
    """

    x: Tensor
    logits: Tensor
    mean: Tensor
    square: Tensor


@dataclass(frozen=True)
class SPSA(Attack):
    """Adam on a gradient estimated from simultaneous random perturbations (Uesato et al., 2018).

    Each step asks about pairs of points around the iterate at which every value is ``delta`` higher or lower, by
    the toss of a coin; the differences of the margin estimate its gradient. Adam makes a step of about ``lr`` per
    value of it, which is brought back into the ball, and the new iterate is asked about.

    The defaults are those of a check for masked gradients: 100 steps of 2048 points, 204 800 forward passes
    an image. Estimates from fewer points are weaker step by step, and often do as well for as many queries.

    Args:
        queries: forward passes per image at most; all points count, and a last step that would exceed them takes
            fewer.
        samples: points asked about per step, in pairs.
        delta: how far each value is moved to take a difference, in [0,1] units.
        lr: Adam's step length, in [0,1] units.
    """

    queries: int = 204_800
    samples: int = 2048
    delta: float = 0.01
    lr: float = 0.01

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    access: ClassVar[str] = "score"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "J. Uesato, B. O'Donoghue, A. van den Oord and P. Kohli. Adversarial Risk and the Dangers of Evaluating "
        "Against Weak Attacks. ICML 2018. arXiv:1802.05666"
    )
    choose_when: ClassVar[str] = "you suspect that gradients are masked, and can pay for many queries"

    def __post_init__(self) -> None:
        check_whole(self, "queries", least=4)
        check_whole(self, "samples", least=2)
        check_number(self, "delta")
        check_number(self, "lr")

    @property
    def total_steps(self) -> int:
        return sampling.paired_steps(self.queries, self.samples)

    @property
    def passes(self) -> int:
        return self.queries

    def start(self, problem: Problem) -> SPSAState:
        x, logits = sampling.first_point(problem)
        still = torch.zeros_like(x)
        return SPSAState(torch.zeros_like(problem.y), x, logits, mean=still, square=still)

    def step(self, problem: Problem, state: SPSAState) -> SPSAState:
        s = state
        pairs = sampling.pairs_at(s.t, self.queries, self.samples)
        first = s.t * (self.samples // 2)
        gradient = sampling.slope(problem, s.x, s.logits, pairs, first, sampling.signs, self.delta, reach=1)
        mean = torch.lerp(gradient, s.mean, BETA1)
        square = torch.lerp(gradient.square(), s.square, BETA2)
        done = geometry.per_image(s.t + 1, gradient)
        way = (mean / (1 - BETA1**done)) / ((square / (1 - BETA2**done)).sqrt_() + TINY)
        x = geometry.project_(s.x + self.lr * way, problem.x, problem.eps, problem.norm)
        logits = problem.query(x)
        problem.offer(x, logits, step=s.t + 1)
        return SPSAState(s.t, x, logits, mean, square)
