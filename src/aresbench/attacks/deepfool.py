"""DeepFool: step after step to the nearest class boundary, as a linear model would have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Attack, Loss, Problem, State
from aresbench.attacks.settings import check_number, check_whole

HAIR = 2e-6  # of the largest logit: aimed past the boundary, because a tie is no break
LEAST = 5e-7  # least change of a value by a step (root mean square under L2): less would be lost in float32
PATIENCE = 10  # steps after which values at the edge of the box are left out


@dataclass
class DeepFoolState(State):
    """One row per image.

    Args:
        x: [N, C, H, W], the point from which the next step goes.
        rivals: [N, k] int64, the classes whose boundaries are tried.
        done: [N] bool, was the goal reached? Then the image moves no more.
    """

    x: Tensor
    rivals: Tensor
    done: Tensor


@dataclass(frozen=True)
class DeepFool(Attack):
    """Steps to the nearest boundary of the model's linear approximation (Moosavi-Dezfooli et al., 2016).

    Each step asks for the gradient of every rival's lead over the true class, takes the boundary that these
    put nearest, and goes there and a little beyond. An image stops at its first break. On a linear model whose
    answer the box does not change the first step already ends at the nearest break, 1 + ``overshoot`` times as
    far as the boundary.

    Two things differ from the paper. Each step is lengthened by the overshoot, not their sum: the break is
    nearer where there are several. And the paper knows no box, which cuts steps short: after ten steps values
    at the edge of the box take no part in a step that would push them out, so that the next one arrives.

    With a target there is one boundary: the target's lead over the best other class.

    Args:
        steps: most updates made; an image that breaks earlier costs nothing more.
        overshoot: by which share each step is lengthened.
        candidates: how many classes are considered, the true one among them: those with the largest logits at
            the image. A step costs ``candidates`` forward and ``candidates`` - 1 backward passes, and the start
            one forward pass.
    """

    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 10

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "minimal"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "S.-M. Moosavi-Dezfooli, A. Fawzi and P. Frossard. DeepFool: a simple and accurate method to fool deep neural "
        "networks. CVPR 2016. arXiv:1511.04599"
    )
    choose_when: ClassVar[str] = "you want a rough distance to the boundary after two or three steps"

    def __post_init__(self) -> None:
        check_whole(self, "steps", least=1)
        check_number(self, "overshoot")
        check_whole(self, "candidates", least=2)

    @property
    def total_steps(self) -> int:
        return self.steps

    @property
    def passes(self) -> int:
        return self.steps * (2 * self.candidates - 1)

    def start(self, problem: Problem) -> DeepFoolState:
        x = problem.x
        if problem.start_from is not None:
            x = geometry.project(problem.start_from, problem.x, problem.eps, problem.norm)
        logits = problem.query(x)
        problem.offer(x, logits)
        rivals = logits.nan_to_num().scatter(1, problem.y[:, None], -torch.inf)
        if problem.target is None:
            rivals = rivals.topk(min(self.candidates, problem.num_classes) - 1, dim=1).indices
        else:
            rivals = problem.target[:, None]
        done = problem.adversarial(logits)
        return DeepFoolState(torch.zeros_like(problem.y), x=x, rivals=rivals, done=done)

    def step(self, problem: Problem, state: DeepFoolState) -> DeepFoolState:
        s, x0, norm = state, problem.x, problem.norm
        nearest = torch.full_like(problem.eps, torch.inf)
        way = torch.zeros_like(s.x)
        late = geometry.per_image(s.t >= PATIENCE, s.x)
        for rival in s.rivals.unbind(1):
            logits, lead, gradient = problem.gradient(s.x, _lead(problem, rival))
            gradient = torch.where(late & _blocked(s.x, gradient), 0.0, gradient)
            slope = geometry.dual_size(gradient, norm)
            gap = lead.abs() + HAIR * logits.abs().amax(1)
            away = torch.where(slope > 0, gap / slope, torch.inf).nan_to_num(nan=torch.inf)
            nearer = away < nearest
            nearest = torch.where(nearer, away, nearest)
            way = torch.where(geometry.per_image(nearer, way), gradient, way)
        # No step needs to be longer than the box is wide; where no rival has a gradient there is none.
        length = (1 + self.overshoot) * torch.minimum(nearest, geometry.farthest_corner(x0, norm))
        length = length.clamp_min(LEAST * (x0[0].numel() ** 0.5 if norm == "l2" else 1.0))
        moved = geometry.project_(geometry.ascend(s.x, way, length, norm), x0, problem.eps, norm)
        x = torch.where(geometry.per_image(s.done, moved), s.x, moved)
        logits = problem.query(x)
        problem.offer(x, logits, step=s.t + 1)
        done = s.done | problem.adversarial(logits)
        t = torch.where(done, self.steps - 1, s.t)  # the driver counts this step: an image that is done leaves
        return DeepFoolState(t, x=x, rivals=s.rivals, done=done)


def _blocked(x: Tensor, gradient: Tensor) -> Tensor:
    """[N, C, H, W] bool: values at the edge of the box whose gradient points out of it."""
    return ((x <= 0) & (gradient < 0)) | ((x >= 1) & (gradient > 0))


def _lead(problem: Problem, rival: Tensor) -> Loss:
    """The rival's logit minus the true class's, or the target's minus the best other one."""
    if problem.target is not None:
        return losses.goal_margin(problem)

    def lead(logits: Tensor, y: Tensor) -> Tensor:
        # Differences of log-probabilities are those of the logits; unlike them they pass a NaN on to the gradient.
        logs = F.log_softmax(logits, dim=1)
        return (logs.gather(1, rival[:, None]) - logs.gather(1, y[:, None])).squeeze(1)

    return lead
