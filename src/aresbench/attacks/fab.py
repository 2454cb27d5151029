"""FAB: the nearest break, found from one linear boundary to the next, always drawn back to the image."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

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


@dataclass(frozen=True)
class FAB(Boundaries):
    """Fast adaptive boundary attack: the smallest change that breaks each image (Croce and Hein, 2020).

    At each step the boundaries to the other classes are taken for planes, and the nearest one is chosen. The
    iterate goes to the nearest point of that plane in the box and a little beyond, drawn towards the image's own
    nearest point of it, so that it never strays far. After a break the search goes on nearer to the image. Once, at
    the end, a search on the line from the image to the nearest break takes what is left.

    With a target there is one boundary: the target's lead over the best other class.

    Args:
        steps: steps of a run, of two forward and ``candidates`` - 1 backward passes each. An image costs
            ``restarts`` runs, and four forward passes: the first answer, and three for the final search.
        candidates: how many classes are considered, the true one among them: those with the largest logits at the
            image. With 10 classes or fewer these are all, as in the paper.
        alpha_max: largest share by which a step is drawn towards the image.
        eta: by which factor the way to the plane is overshot.
        beta: where the search goes on after a break: this share of the way from the image to it.
        restarts: number of runs. Later ones begin at random, half as far away as the nearest break so far or,
            where that is smaller, as the budget.
    """

    steps: int = 100
    candidates: int = 10
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    restarts: int = 1

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "minimal"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "F. Croce and M. Hein. Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack. ICML "
        "2020. arXiv:1907.02044"
    )
    choose_when: ClassVar[str] = "you want each image's own distance to the boundary, under L1 too, and have time"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "candidates", least=2)

    @property
    def total_steps(self) -> int:
        return self.restarts * self.steps

    def start(self, problem: Problem) -> FABState:
        return self._begin(problem, min(self.candidates, problem.num_classes) - 1)

    def boundary(self, problem: Problem, state: FABState, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_(True)
        logits = problem.differentiable(x)
        values = logits.detach()
        below = problem.y if problem.target is None else _best_but(values, problem.target)
        nearest = torch.full_like(problem.eps, torch.inf)
        lead, slope = torch.zeros_like(nearest), torch.zeros_like(problem.x)
        for above in state.rivals.unbind(1):
            difference = torch.zeros_like(values).scatter(1, above[:, None], 1).scatter(1, below[:, None], -1)
            (gradient,) = torch.autograd.grad(logits, x, difference, retain_graph=True)
            gap = values.gather(1, above[:, None]).squeeze(1) - values.gather(1, below[:, None]).squeeze(1)
            steepness = geometry.dual_size(gradient, problem.norm)
            away = torch.where(steepness > 0, gap.abs() / steepness, torch.inf).nan_to_num(nan=torch.inf)
            nearer = away < nearest
            nearest, lead = torch.where(nearer, away, nearest), torch.where(nearer, gap, lead)
            slope = torch.where(geometry.per_image(nearer, slope), gradient, slope)
        return lead, slope


def _best_but(logits: Tensor, label: Tensor) -> Tensor:
    """The class of the largest logit that is not ``label``, [N] int64."""
    return logits.scatter(1, label[:, None], -torch.inf).argmax(1)
