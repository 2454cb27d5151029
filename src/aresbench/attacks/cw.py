"""C&W: the nearest break as the minimum of distance plus weighted lead, found by Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.settings import check_number, check_whole

BETA1, BETA2 = 0.9, 0.999  # Adam's memory
FINAL = 0.02  # a round's last step, as a share of its first
LEAST = 60  # updates without which a round does not converge
WINDOWS = 10  # looks at the progress of a round
SKIP = 2  # windows that a round is shortened by where one brought nothing
NARROW = 1e-3  # of the distance: a bracket this narrow ends the search under L∞
SHRINK = 0.8  # under L∞: the limit falls to no less than this share of the nearest break at once


@dataclass
class CWState(State):
    """One row per image.

    Args:
        x: [N, C, H, W], the next point to ask about.
        mean, square: [N, C, H, W], Adam's running means of the gradient and of its square.
        sought: [N], what the rounds search: the lead's weight c under L2, the limit tau under L∞.
        low, high: [N], bounds of it: too small, and large enough.
        length: [N], of the first step of a round, per value.
        k: [N] int64, place in the round's schedule.
        found: [N] bool, did this round break the image?
        rounds: [N] int64, finished so far.
        nearest: [N], the smallest distance at which the goal was reached, else ``inf``.
        lowest, before: [N], the round's least objective, now and at the last look.
    """

    x: Tensor
    mean: Tensor
    square: Tensor
    sought: Tensor
    low: Tensor
    high: Tensor
    length: Tensor
    k: Tensor
    found: Tensor
    rounds: Tensor
    nearest: Tensor
    lowest: Tensor
    before: Tensor


@dataclass(frozen=True)
class CW(Attack):
    """The smallest change under L2 or L∞, by optimisation (Carlini and Wagner, 2017).

    Under L2 it minimises the squared distance plus c times the lead that the true class still has (or the
    target lacks), with Adam, in rounds: c is halved between its bounds after a round that broke the image, and
    grows tenfold as long as none did. Under L∞ the largest change must stay below a limit tau, which falls with
    every break, and after a round without one rises halfway to the nearest break.

    What differs from the paper, each because it was measured to end nearer:

    - The image itself is the variable, cut to the box. The paper's tanh holds values at exactly 0 or 1 fast.
    - Scales are the image's own: the first c is twice what a linear model needs (the paper: 0.001), and Adam's
      first step is ``lr`` times the change per value that a linear model needs (the paper: 0.01 for all, with
      which images near the boundary are overshot and never come back). Steps shrink along a cosine.
    - The paper gives a round up when it makes no progress; here its steps then shrink sooner. Each image has its
      own rounds.
    - Under L∞ tau is a limit, not a price on what exceeds it; then Adam's steps do not depend on c.

    The confidence kappa is 0: the judge keeps the nearest break, however narrow.

    Args:
        steps: most updates of an image, over all its rounds; at most steps + 1 forward and steps backward passes.
            The default is the usual 9 × 1000; the paper makes 9 × 10,000.
        searches: most rounds (under L∞: rounds without a break). Few ``steps`` are spent on fewer rounds, of at
            least 60 updates.
        lr: Adam's first step, as a share of the change per value that a linear model would need.
    """

    steps: int = 9000
    searches: int = 9
    lr: float = 1.0

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "minimal"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "N. Carlini and D. Wagner. Towards Evaluating the Robustness of Neural Networks. IEEE S&P 2017. "
        "arXiv:1608.04644"
    )
    choose_when: ClassVar[str] = "you want the smallest L2 or L∞ change that patience can find, or the classic to cite"

    def __post_init__(self) -> None:
        check_whole(self, "steps", least=1)
        check_whole(self, "searches", least=1)
        check_number(self, "lr")

    @property
    def total_steps(self) -> int:
        return self.steps

    @property
    def span(self) -> int:
        """Most updates of one round."""
        return min(self.steps, max(LEAST, -(-self.steps // self.searches)))

    def start(self, problem: Problem) -> CWState:
        x = problem.x
        if problem.start_from is not None:
            x = geometry.project(problem.start_from, problem.x, problem.eps, problem.norm)
        t, zero, none = torch.zeros_like(problem.y), torch.zeros_like(x), torch.full_like(problem.eps, torch.inf)
        return CWState(
            t, x=x, mean=zero, square=zero, sought=torch.zeros_like(none), low=torch.zeros_like(none), high=none,
            length=torch.zeros_like(none), k=t, found=torch.zeros_like(t, dtype=torch.bool), rounds=t,
            nearest=none, lowest=none, before=none,
        )  # fmt: skip

    def step(self, problem: Problem, state: CWState) -> CWState:
        s, x0, norm = state, problem.x, problem.norm
        logits, lead, gradient = problem.gradient(s.x, losses.goal_margin(problem))
        problem.offer(s.x, logits)
        reached = problem.adversarial(logits)
        delta = s.x - x0
        at = geometry.size(delta, norm)
        lack = (-lead).clamp_min(0)
        s = self._sized(problem, s, lack, gradient, at)
        nearest = torch.where(reached, torch.minimum(at, s.nearest), s.nearest)

        # The objective and its gradient; where the lead is NaN its gradient comes as 0.
        weight = s.sought if norm == "l2" else torch.ones_like(lack)
        objective = weight * lack + (at**2 if norm == "l2" else 0.0)
        push = torch.where(reached, 0.0, -weight)  # not the sign of the lead: a tie is no break yet
        descent = gradient * geometry.per_image(push, delta)
        if norm == "l2":
            descent = descent.add_(delta, alpha=2)
        mean = torch.lerp(descent, s.mean, BETA1)
        square = torch.lerp(descent * descent, s.square, BETA2)
        cosine = 0.5 + 0.5 * torch.cos(s.k * (math.pi / self.span))
        size = s.length * (FINAL + (1 - FINAL) * cosine) / (1 - BETA1 ** (s.k + 1))
        root = (square / geometry.per_image(1 - BETA2 ** (s.k + 1), square)).sqrt_().add_(1e-12)
        limit = problem.eps if norm == "l2" else torch.minimum(s.sought, problem.eps)
        x = geometry.project_(s.x - geometry.per_image(size, mean) * mean / root, x0, limit, norm)

        window = max(1, self.span // WINDOWS)
        lowest = torch.fmin(s.lowest, objective)
        look = (s.k + 1) % window == 0
        stuck = look & (lowest > s.before * 0.9999)
        k = s.k + 1 + stuck * (SKIP * window)
        before = torch.where(look, lowest, s.before)
        # Under L2 a break in passing, by a step too long, says nothing of c.
        late = (s.k >= self.span // 2) | (norm == "linf")
        found = s.found | (reached & late)
        moved = replace(
            s, x=x, mean=mean, square=square, k=k, found=found, nearest=nearest, lowest=lowest, before=before
        )
        return self._next_round(problem, moved, (k >= self.span) | (reached & (norm == "linf")))

    def finish(self, problem: Problem, state: CWState) -> None:
        problem.offer(state.x, problem.query(state.x))

    def _sized(self, problem: Problem, s: CWState, lack: Tensor, gradient: Tensor, at: Tensor) -> CWState:
        """At the first look: c or tau and the step, from the distance that the linear model at this point has."""
        first = s.t == 0
        slope = geometry.dual_size(gradient, problem.norm).clamp_min(1e-12)
        far = torch.fmin(lack / slope, geometry.farthest_corner(problem.x, problem.norm))
        far = torch.maximum(far, at)  # of a warm start
        if problem.norm == "l2":
            sought = (4 * far / slope).clamp_max(1e10)
            typical = far / gradient[0].numel() ** 0.5
        else:
            sought, typical = 2 * far, far
        # A step moves an image at least to the boundary in a short search.
        length = typical * max(self.lr, 5 / self.span)
        return replace(s, sought=torch.where(first, sought, s.sought), length=torch.where(first, length, s.length))

    def _next_round(self, problem: Problem, s: CWState, over: Tensor) -> CWState:
        """For the images whose round is over: the next c or tau, from the image again (under L∞ from here)."""
        fruitless = over & ~s.found
        if problem.norm == "l2":
            high = torch.where(over & s.found, s.sought, s.high)
            low = torch.where(fruitless, s.sought, s.low)
            sought = torch.where(torch.isfinite(high), (low + high) / 2, (s.sought * 10).clamp_max(1e10))
            closed = torch.zeros_like(over)
            rounds = s.rounds + over
        else:
            high = s.nearest
            low = torch.minimum(torch.where(fruitless, s.sought, s.low), high)
            sought = torch.where(torch.isfinite(high), (torch.maximum(low, SHRINK * high) + high) / 2, s.sought * 2)
            closed = torch.isfinite(high) & (high - low <= NARROW * high)
            rounds = s.rounds + fruitless
        # Rounds that never broke the image may have gone too slowly.
        length = torch.where(fruitless & torch.isinf(s.nearest), s.length * 2, s.length)
        sought = torch.where(over, sought, s.sought)
        anew = geometry.per_image(over, s.x)
        home = problem.x if problem.norm == "l2" else geometry.project(s.x, problem.x, sought, "linf")
        return replace(
            s,
            t=torch.where((rounds >= self.searches) | closed, self.steps - 1, s.t),  # the driver counts this step
            x=torch.where(anew, home, s.x),
            mean=torch.where(anew, 0.0, s.mean),
            square=torch.where(anew, 0.0, s.square),
            sought=sought,
            low=low,
            high=high,
            length=length,
            k=torch.where(over, 0, s.k),
            found=s.found & ~over,
            rounds=rounds,
            lowest=torch.where(over, torch.inf, s.lowest),
            before=torch.where(over, torch.inf, s.before),
        )
