"""FAB: the nearest break, found from one linear boundary to the next, always drawn back to the image."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.hyperplane import towards
from aresbench.attacks.settings import check_number, check_whole

SEARCH = 3  # queries of the final search
HAIR = 2e-6  # of the largest logit: aimed past the boundary by the final search, because a tie is no break


@dataclass
class FABState(State):
    """One row per image.

    Args:
        x: [N, C, H, W], the point from which the next step goes.
        best: [N, C, H, W], the nearest break so far.
        nearest: [N], its distance; ``inf`` where there is none.
        gap: [N], by how much the goal is missed at the image itself (not positive where it is reached).
        excess: [N], by how much it is reached at ``best``.
        rivals: [N, k] int64, the classes whose boundaries are tried, likeliest first.
    """

    x: Tensor
    best: Tensor
    nearest: Tensor
    gap: Tensor
    excess: Tensor
    rivals: Tensor


S = TypeVar("S", bound=FABState)


@dataclass(frozen=True)
class Boundaries(Attack):
    """What FAB and FAB-T share: runs of steps, each to a plane that stands for the boundary."""

    steps: int
    alpha_max: float
    eta: float
    beta: float
    restarts: int

    def __post_init__(self) -> None:
        check_whole(self, "steps", least=1)
        check_number(self, "alpha_max", high=1.0)
        check_number(self, "eta")
        check_number(self, "beta", high=1.0)
        check_whole(self, "restarts", least=1)

    @abstractmethod
    def boundary(self, problem: Problem, state: FABState, x: Tensor) -> tuple[Tensor, Tensor]:
        """How far each image's nearest rival leads at ``x``, [N], and the gradient of that lead, [N, C, H, W]."""

    def _begin(self, problem: Problem, rivals: int) -> FABState:
        """The state before the first step; asks about the image itself, which puts the rivals in order."""
        x0 = problem.x
        logits = problem.query(x0)
        problem.offer(x0, logits)
        if problem.target is None:
            wrong = logits.scatter(1, problem.y.unsqueeze(1), -torch.inf)
            chosen = wrong.argsort(dim=1, descending=True, stable=True)[:, :rivals]
        else:
            chosen = problem.target.unsqueeze(1)
        x = x0
        if problem.start_from is not None:
            x = geometry.project(problem.start_from, x0, problem.eps, problem.norm)
        gap = -losses.goal_margin(problem)(logits, problem.y)
        never = torch.full_like(gap, torch.inf)
        t = torch.zeros_like(problem.y)
        return FABState(t, x=x, best=x0, nearest=never, gap=gap, excess=torch.zeros_like(gap), rivals=chosen)

    def step(self, problem: Problem, state: FABState) -> FABState:
        s, x0, norm = state, problem.x, problem.norm
        x = self._at_the_start_of_a_run(problem, s)
        lead, slope = self.boundary(problem, s, x)

        # The nearest points of the plane to the iterate and to the image, a little overshot, and mixed.
        change = towards(x, slope, -lead, norm)
        own_lead = lead.double() - (slope * (x - x0)).sum(tuple(range(1, x.ndim)), dtype=torch.float64)
        own_change = towards(x0, slope, -own_lead, norm)
        step, own_step = geometry.size(change, norm), geometry.size(own_change, norm)
        # Where no way leads on, as where the gradient is zero, the point is drawn back towards the image.
        share = torch.where(step > 0, step / (step + own_step), 1.0).clamp_max(self.alpha_max)
        x = torch.lerp(x + self.eta * change, x0 + self.eta * own_change, geometry.per_image(share.to(x.dtype), x))
        x.clamp_(0, 1)

        logits = problem.query(x)
        reached = problem.adversarial(logits)
        far = geometry.distance(x, x0, norm)
        self._offer(problem, x, logits, far, s.t + 1)
        nearer = reached & (far < s.nearest)
        back = geometry.per_image(torch.where(reached, self.beta, 1.0).to(x.dtype), x)
        return replace(
            s,
            x=torch.lerp(x0, x, back),
            best=torch.where(geometry.per_image(nearer, x), x, s.best),
            nearest=torch.where(nearer, far, s.nearest),
            excess=torch.where(nearer, losses.goal_margin(problem)(logits, problem.y), s.excess),
        )

    def _at_the_start_of_a_run(self, problem: Problem, state: FABState) -> Tensor:
        """``state.x``; at the first step of a later run the image itself, of a restart a random point near it."""
        new = (state.t > 0) & (state.t % self.steps == 0)
        if not new.is_cuda and not new.any():
            return state.x
        start = problem.x
        if self.restarts > 1:
            radius = 0.5 * torch.minimum(
                torch.minimum(state.nearest, problem.eps), geometry.farthest_corner(problem.x, problem.norm)
            )
            run = state.t // self.steps
            drawn = geometry.surface_start(problem.x, radius, problem.norm, problem.streams, run)
            start = torch.where(geometry.per_image(run % self.restarts > 0, start), drawn, start)
        return torch.where(geometry.per_image(new, start), start, state.x)

    def finish(self, problem: Problem, state: FABState) -> None:
        """The final search: a few secant steps on the line from the image to its nearest break."""
        s, x0 = state, problem.x
        outside, inside = torch.zeros_like(s.gap), torch.ones_like(s.gap)  # places on the line that are known
        below, above = -s.gap, s.excess
        hair = torch.zeros_like(s.gap)
        for _ in range(SEARCH):
            share = ((hair - below) / (above - below)).nan_to_num(nan=1.0).clamp(0, 1)
            place = outside + share * (inside - outside)
            x = torch.lerp(x0, s.best, geometry.per_image(place.to(x0.dtype), x0))
            logits = problem.query(x)
            self._offer(problem, x, logits, geometry.distance(x, x0, problem.norm), s.t)
            value, reached = losses.goal_margin(problem)(logits, problem.y), problem.adversarial(logits)
            inside, above = torch.where(reached, place, inside), torch.where(reached, value, above)
            outside, below = torch.where(reached, outside, place), torch.where(reached, below, value)
            hair = HAIR * logits.abs().amax(1)

    @staticmethod
    def _offer(problem: Problem, x: Tensor, logits: Tensor, far: Tensor, step: Tensor) -> None:
        """Offer the points that lie inside the budget; of the others, what is inside on the way, unasked."""
        inside = far <= problem.eps
        cut = torch.where(inside, 1.0, problem.eps / far.clamp_min(1e-30))
        x = torch.where(geometry.per_image(inside, x), x, torch.lerp(problem.x, x, geometry.per_image(cut, x)))
        problem.offer(x, torch.where(inside[:, None], logits, torch.nan), step=step)  # NaN proves nothing
