"""What attacks that see only the predicted class share: asking, finding a start, drawing in to the boundary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from aresbench.attacks import geometry
from aresbench.attacks.base import Problem, State

HALVINGS = 10  # bisections between an image and its start: to a thousandth of the way


@dataclass
class WalkState(State):
    """A walk on the far side of the boundary, and the search for its start. Each step asks one query.

    Args:
        x: [N, C, H, W], the nearest point known to reach the goal; the image itself until one is known.
        found: [N] bool, is one known?
        low: [N], share of the way from the image to ``x`` that is known not to suffice.
        halvings: [N] int64, bisections of that way still to be made before the walk begins.
    """

    x: Tensor
    found: Tensor
    low: Tensor
    halvings: Tensor

    @property
    def walks(self) -> Tensor:
        """[N] bool: has the walk begun?"""
        return self.found & (self.halvings == 0)


W = TypeVar("W", bound=WalkState)


def ask(problem: Problem, x: Tensor, owner: Tensor | None = None) -> Tensor:
    """Do these points reach the goal, [M] bool? Nothing else of the model's answer is used.

    Every point within its image's budget is offered; one beyond it may be visited on the way.
    """
    x0, eps = (problem.x, problem.eps) if owner is None else (problem.x[owner], problem.eps[owner])
    logits = problem.query(x, owner)
    within = geometry.distance(x, x0, problem.norm) <= geometry.allowance(eps)
    problem.offer(x, torch.where(within[:, None], logits, torch.nan), owner)  # an answer of NaN is no break
    return problem.adversarial(logits, owner)


def random_image(problem: Problem, number: Tensor) -> Tensor:
    """What each image tries as its start, [N, C, H, W], at try ``number`` [N]: evenly drawn values.

    They fill cells of 1, 2, 4 … pixels in turn: models give fine noise one and the same class, and coarse
    noise others. Where there is a warm start it is the first try.
    """
    channels, height, width = problem.x.shape[1:]
    values = problem.streams.uniform("random-image", (channels, height, width), number)
    cell = 2 ** (number % min(height, width).bit_length())
    rows = torch.arange(height, device=cell.device) // cell[:, None]
    columns = torch.arange(width, device=cell.device) // cell[:, None]
    values = values.gather(2, rows[:, None, :, None].expand_as(values))
    values = values.gather(3, columns[:, None, None, :].expand_as(values))
    if problem.start_from is None:
        return values
    return torch.where(geometry.per_image(number == 0, values), problem.start_from.clamp(0, 1), values)


def drawn_in(problem: Problem, x: Tensor, share: Tensor) -> Tensor:
    """The points at ``share`` [N] of the distance from each image to ``x``: between them, under L∞ cut to the cube."""
    return geometry.project(x, problem.x, share * geometry.distance(x, problem.x, problem.norm), problem.norm)


def proposal(problem: Problem, state: WalkState, move: Tensor) -> Tensor:
    """What each image asks at this step: its ``move`` once it walks, before that a start or a bisection."""
    if not move.is_cuda and bool(state.walks.all()):
        return move
    between = drawn_in(problem, state.x, (state.low + 1) / 2)
    if move.is_cuda or not bool(state.found.all()):
        between = torch.where(geometry.per_image(state.found, between), between, random_image(problem, state.t))
    return torch.where(geometry.per_image(state.walks, move), move, between)


def moved(problem: Problem, state: W, candidate: Tensor, accepted: Tensor, tries: int) -> W:
    """The state after the answer: accepted points are gone to, and images that found no start in ``tries`` give up."""
    share = (state.low + 1) / 2
    halves = state.found & ~state.walks
    found = state.found | accepted
    problem.give_up(~found & (state.t + 1 >= tries))
    return replace(
        state,
        x=torch.where(geometry.per_image(accepted, candidate), candidate, state.x),
        found=found,
        low=torch.where(halves, torch.where(accepted, state.low / share, share), state.low),
        halvings=torch.where(state.found, state.halvings - halves.long(), torch.where(accepted, HALVINGS, 0)),
    )
