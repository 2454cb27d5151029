"""HopSkipJump: finds which way the boundary faces from classes alone, leaps that way and returns to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, labels
from aresbench.attacks.base import Attack, Problem, State
from aresbench.attacks.settings import check_number, check_whole
from aresbench.ops.random import Streams

HAIR = 2e-6  # the boundary is not measured more finely: float32 images could not tell
FIRST_RADIUS = 0.1  # of the first samples, under L2: the first point is far from where the walk will end
LEAPS = 12  # lengths tried for one leap, each half the one before
RETURN = 20  # queries kept for the leap and the way back when samples are cut to what is left
BLOCK = 16  # samples of an image asked about at once: a fixed number, so that sums do not depend on the batch
CPU_PIXELS, GPU_PIXELS = 1_250_000, 16_000_000  # values in one call of the model


@dataclass
class HopSkipJumpState(State):
    """One row per image.

    Args:
        x: [N, C, H, W], the point just beyond the boundary; the image itself where no start was found.
        spent: [N] int64, queries made so far; all of them where no start was found.
    """

    x: Tensor
    spent: Tensor


@dataclass(frozen=True)
class HopSkipJump(Attack):
    """Leaps along the boundary's normal, estimated from classes alone (Chen, Jordan and Wainwright, 2020).

    The walk begins at a random image. Each step samples points close around the point at the boundary, takes
    the mean direction of those that reach the goal, leaps along it (by half as far until the goal is reached
    there) and returns to the boundary by bisection towards the image. An image for which no start is found is
    given up.

    One thing differs from the paper: with ``gamma`` at 1 its precision for the boundary, and with it the
    distance of its samples, lies below the rounding of float32 for all but small images. Here the precision is
    at least 2e-6.

    Args:
        queries: forward passes per image, those for its start among them; the last samples are cut to what
            is left.
        initial_evals: samples of the first step; step t makes √t times as many.
        max_evals: most samples of a step.
        gamma: sets how precisely the boundary is found: to gamma / d^1.5 (L2) or gamma / d² (L∞) of the
            distance, for images of d values. Samples lie √d (L2) or d (L∞) times as far from it.
        tries: random images asked about, at most, to find a start; ``start_from`` is tried first.
    """

    queries: int = 10_000
    initial_evals: int = 100
    max_evals: int = 10_000
    gamma: float = 1.0
    tries: int = 100

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    access: ClassVar[str] = "label"
    kind: ClassVar[str] = "minimal"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "J. Chen, M. I. Jordan and M. J. Wainwright. HopSkipJumpAttack: A Query-Efficient Decision-Based Attack. "
        "IEEE S&P 2020. arXiv:1904.02144"
    )
    choose_when: ClassVar[str] = "only the class is known: the nearest under L2 for a given number of queries"

    def __post_init__(self) -> None:
        check_whole(self, "queries", least=1)
        check_whole(self, "initial_evals", least=1)
        check_whole(self, "max_evals", least=1)
        check_number(self, "gamma")
        check_whole(self, "tries", least=1)

    @property
    def total_steps(self) -> int:
        return self.queries

    def start(self, problem: Problem) -> HopSkipJumpState:
        s = HopSkipJumpState(torch.zeros_like(problem.y), x=problem.x, spent=torch.zeros_like(problem.y))
        found = torch.zeros_like(problem.y, dtype=torch.bool)
        for number in range(min(self.tries, self.queries)):
            candidate = labels.random_image(problem, torch.full_like(problem.y, number))
            found = found | self._try(problem, s, candidate, ~found)
            if bool(found.all()):
                break
        problem.give_up(~found)
        s.spent = torch.where(found, s.spent, self.queries)
        self._return(problem, s, found)
        return s

    def step(self, problem: Problem, state: HopSkipJumpState) -> HopSkipJumpState:
        s = replace(state, spent=state.spent.clone())
        far = geometry.distance(s.x, problem.x, problem.norm)
        direction = self._normal(problem, s, far)
        length = far / (s.t + 1).sqrt()
        stays = torch.ones_like(s.t, dtype=torch.bool)
        for _ in range(LEAPS):
            candidate = geometry.ascend(s.x, direction, length, problem.norm).clamp_(0, 1)
            stays = stays & ~self._try(problem, s, candidate, stays)
            if not bool(stays.any()):
                break
            length = length / 2
        self._return(problem, s, ~stays)
        s.t = torch.where(s.spent >= self.queries, self.queries - 1, s.t)
        return s

    def _try(self, problem: Problem, s: HopSkipJumpState, candidate: Tensor, which: Tensor) -> Tensor:
        """Ask about the candidates of ``which`` images with queries left; go where the goal is reached, [N] bool."""
        at = (which & (s.spent < self.queries)).nonzero().squeeze(1)
        reached = torch.zeros_like(which)
        if len(at):
            reached[at] = labels.ask(problem, candidate[at], at)
            s.spent[at] += 1
            s.x = torch.where(geometry.per_image(reached, candidate), candidate, s.x)
        return reached

    def _return(self, problem: Problem, s: HopSkipJumpState, which: Tensor) -> None:
        """Halve the way between ``which`` images and their points until the boundary is known precisely enough."""
        low = torch.zeros_like(problem.eps)
        while True:  # ends: the way halves each time, or the queries do
            far = geometry.distance(s.x, problem.x, problem.norm)
            wide = which & (s.spent < self.queries) & ((1 - low) * far > self._precision(problem, far))
            if not bool(wide.any()):
                return
            share = (low + 1) / 2
            reached = self._try(problem, s, labels.drawn_in(problem, s.x, share), wide)
            low = torch.where(reached, low / share, torch.where(wide, share, low))

    def _precision(self, problem: Problem, far: Tensor) -> Tensor:
        """How precisely the boundary at distance ``far`` is found, [N]."""
        d = problem.x[0].numel()
        share = self.gamma / (d * d if problem.norm == "linf" else d**1.5)
        return (share * far).clamp_min(HAIR)

    def _normal(self, problem: Problem, s: HopSkipJumpState, far: Tensor) -> Tensor:
        """The direction in which the goal is reached, [N, C, H, W], estimated from samples around each point."""
        d, wanted = problem.x[0].numel(), self._samples(s)
        radius = self._precision(problem, far) * (d if problem.norm == "linf" else d**0.5)
        radius = torch.where(s.t == 0, FIRST_RADIUS, radius)
        changes, signed = torch.zeros_like(s.x), torch.zeros_like(s.x)
        balance = torch.zeros_like(far)
        for at, count in _blocks(wanted, d):
            owner = at.repeat_interleave(BLOCK)
            place = torch.arange(BLOCK, device=at.device).repeat(len(at))
            streams = Streams.from_keys(problem.streams.keys[owner])
            noise = streams.normal("sample", s.x.shape[1:], s.spent[owner] + place)  # each query its own draw
            sample = geometry.ascend(s.x[owner], noise, radius[owner], "l2").clamp_(0, 1)
            asked = (place < count.repeat_interleave(BLOCK)).nonzero().squeeze(1)
            answer = torch.zeros(len(owner), device=at.device)
            answer[asked] = torch.where(labels.ask(problem, sample[asked], owner[asked]), 1.0, -1.0)
            change = (sample - s.x[owner]).unflatten(0, (len(at), BLOCK))
            answer = answer.view(len(at), BLOCK)
            weight = answer[:, :, None, None, None]
            changes[at] += (change * weight.abs()).sum(1)
            signed[at] += (change * weight).sum(1)
            balance[at] += answer.sum(1)
            s.spent[at] += count
        # The mean answer is the baseline; where all agree the samples point their way or the other.
        mean = balance / wanted.clamp_min(1)
        return signed - geometry.per_image(torch.where(mean.abs() < 1, mean, 0.0), changes) * changes

    def _samples(self, s: HopSkipJumpState) -> Tensor:
        """How many samples each image takes at this step, [N] int64: at least 1 while it has queries left."""
        wanted = (self.initial_evals * (s.t + 1).sqrt()).long().clamp_max(self.max_evals)
        left = self.queries - s.spent
        return torch.minimum(wanted, (left - RETURN).clamp_min(1)).minimum(left)


def _blocks(wanted: Tensor, values: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images [A] and for how many samples each is asked next, [A], at most ``BLOCK``, until each had as many as wanted.

    Few enough images at a time that a call of the model does not outgrow the machine.
    """
    images = max(1, (GPU_PIXELS if wanted.is_cuda else CPU_PIXELS) // (values * BLOCK))
    while bool((wanted > 0).any()):
        for at in (wanted > 0).nonzero().squeeze(1).split(images):
            yield at, wanted[at].clamp_max(BLOCK)
        wanted = wanted - BLOCK
