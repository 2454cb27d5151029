"""N-Attack: learns, from logits alone, a distribution of points of which most break the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aresbench.attacks import geometry, losses, sampling
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.settings import check_number, check_whole

INSIDE = 0.9  # the box is put into this part of tanh's range: at its ends black and white values would not move


@dataclass
class NAttackState(State):
    """One row per image.

    Args:
        mu: [N, C, h, w], the mean of the distribution, relative to the image.
        x: [N, C, H, W], the point it stands for.
        logits: [N, K], the answer there.
    """

    mu: Tensor
    x: Tensor
    logits: Tensor


@dataclass(frozen=True)
class NAttack(Attack):
    """Learns a Gaussian around each image whose samples break it (Li et al., 2019).

    The samples pass through a tanh, which keeps them in the box, and are brought into the ball; every one of
    them is a candidate. After each round the mean moves towards the samples of larger margin, weighted by
    how many standard deviations theirs is above the round's average; then the point of the mean is asked about.

    As in the paper large images are changed on a coarser grid. The first mean is the image itself. One thing
    is not as in the authors' code: the box takes up nine tenths of tanh's range, not all of it, because at its
    ends tanh is flat, and black and white values could not be changed.

    Args:
        queries: forward passes per image at most; all points count, and a last step that would exceed them takes
            fewer.
        samples: points asked about per step.
        sigma: standard deviation of the Gaussian, before the tanh.
        lr: how far the mean moves.
        side: height and width of the grid on which larger images are changed; smoothed in between.
    """

    queries: int = 20_000
    samples: int = 100
    sigma: float = 0.1
    lr: float = 0.02
    side: int = 32

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    access: ClassVar[str] = "score"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Y. Li, L. Li, L. Wang, T. Zhang and B. Gong. NATTACK: Learning the Distributions of Adversarial Examples for "
        "an Improved Black-Box Attack on Deep Neural Networks. ICML 2019. arXiv:1905.00441"
    )
    choose_when: ClassVar[str] = "only logits can be had and the defence is rough or random close to the image"

    def __post_init__(self) -> None:
        check_whole(self, "queries", least=4)
        check_whole(self, "samples", least=2)
        check_number(self, "sigma")
        check_number(self, "lr")
        check_whole(self, "side", least=1)

    @property
    def total_steps(self) -> int:
        whole, rest = divmod(self.queries - 1, self.samples + 1)
        return whole + (rest >= 3)

    @property
    def passes(self) -> int:
        return self.queries

    def start(self, problem: Problem) -> NAttackState:
        x, logits = sampling.first_point(problem)
        mu = _before_tanh(x) - _before_tanh(problem.x)
        height, width = x.shape[2:]
        if max(height, width) > self.side:
            grid = (min(height, self.side), min(width, self.side))
            mu = F.interpolate(mu, grid, mode="bilinear", align_corners=False, antialias=True)
        return NAttackState(torch.zeros_like(problem.y), mu, x, logits)

    def step(self, problem: Problem, state: NAttackState) -> NAttackState:
        s, x0 = state, problem.x
        count = (self.queries - 2 - s.t * (self.samples + 1)).clamp_max(self.samples)
        before = losses.goal_margin(problem)(s.logits, problem.y)
        moments = [torch.zeros_like(before) for _ in range(3)]  # how many, their sum, the sum of their squares
        noises, risen = torch.zeros_like(s.mu), torch.zeros_like(s.mu)  # sums of the noise, plain and times the rise
        for part in sampling.portions(int(count.max()), x0):
            numbers = (s.t * self.samples)[:, None] + part
            noise = sampling.draws(problem.streams, sampling.normals, s.mu.shape[1:], numbers)
            points = self._points(s.mu[:, None] + self.sigma * noise, problem)
            loss = sampling.ask(problem, points, part < count[:, None], s.x, s.logits)
            fine = torch.isfinite(loss)
            rise = torch.where(fine, loss - before[:, None], 0.0)
            for one, each, way in zip(fine.unbind(1), rise.unbind(1), noise.unbind(1), strict=True):
                for sums, value in zip(moments, (one, each, each.square()), strict=True):
                    sums += value
                noises.addcmul_(way, geometry.per_image(one, way))
                risen.addcmul_(way, geometry.per_image(each, way))
        n, mean = moments[0].clamp_min(1), moments[1] / moments[0].clamp_min(1)
        spread = (moments[2] / n - mean.square()).clamp_min(0).sqrt()
        way = risen - noises * geometry.per_image(mean, noises)
        pace = torch.where(spread > 0, self.lr / (self.sigma * n * spread), 0.0).clamp_max(1e38)
        mu = s.mu + geometry.per_image(pace, way) * way
        x = self._points(mu[:, None], problem).squeeze(1)
        logits = problem.query(x)
        problem.offer(x, logits, step=s.t + 1)
        return NAttackState(s.t, mu, x, logits)

    @staticmethod
    def _points(z: Tensor, problem: Problem) -> Tensor:
        """The points [N, k, C, H, W] of the ball and the box for which z [N, k, C, h, w] stands."""
        n, k = z.shape[:2]
        x0 = problem.x
        if z.shape[3:] != x0.shape[2:]:
            z = F.interpolate(z.flatten(0, 1), x0.shape[2:], mode="bilinear", align_corners=False).unflatten(0, (n, k))
        origin = _before_tanh(x0).unsqueeze(1)
        change = (torch.tanh(origin + z) - torch.tanh(origin)) / 2
        images = x0.repeat_interleave(k, dim=0)
        points = images + change.flatten(0, 1)
        return geometry.project_(points, images, problem.eps.repeat_interleave(k), problem.norm).unflatten(0, (n, k))


def _before_tanh(x: Tensor) -> Tensor:
    return torch.atanh((2 * x - 1) * INSIDE)
