"""APGD-T: Auto-PGD towards one wrong class after the other."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.apgd import APGDState, advance, begin, first_point
from aresbench.attacks.base import Attack, Loss, Problem
from aresbench.attacks.settings import check_number, check_whole


@dataclass
class APGDTState(APGDState):
    """A run of APGD, and the classes each image is driven to, [N, T] int64, in their order.

    ``t`` counts the steps of all runs: a run of ``steps`` updates takes ``steps`` + 1 of them, the last of which
    asks about its last iterate and begins the next run.
    """

    targets: Tensor


@dataclass(frozen=True)
class APGDT(Attack):
    """Auto-PGD towards the likeliest wrong classes, one after the other, on the targeted DLR (Croce and Hein, 2020).

    The classes are taken in the order of the logits at the clean image. Each run begins at its own random
    point on the surface of the ball and makes the steps of ``apgd-ce`` on (target - true logit) / (first -
    mean of third and fourth logit); with fewer than 4 classes, on the difference of the two logits alone.
    Any wrong class counts. Under a targeted threat there is one run, on the target's lead in logits.

    Args:
        steps: number of updates of a run. An image that resists costs at most min(targets, classes - 1) ·
            (steps + 1) forward and backward passes, and one forward for the order.
        targets: how many classes are tried; never more than there are wrong ones.
        rho: share of rising steps that is needed to keep the step length.
    """

    steps: int = 100
    targets: int = 9
    rho: float = 0.75

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "F. Croce and M. Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse "
        "Parameter-free Attacks. ICML 2020. arXiv:2003.01690"
    )
    choose_when: ClassVar[str] = "a few more breaks on a robust model are worth nine times the price of apgd-ce"

    def __post_init__(self) -> None:
        check_whole(self, "steps", least=1)
        check_whole(self, "targets", least=1)
        check_number(self, "rho", high=1.0)

    @property
    def total_steps(self) -> int:
        return self._length(self.targets)

    def steps_for(self, problem: Problem) -> int:
        return self._length(self._runs(problem))

    def _runs(self, problem: Problem) -> int:
        return 1 if problem.target is not None else min(self.targets, problem.num_classes - 1)

    def _length(self, runs: int) -> int:
        return runs * (self.steps + 1) - 1  # the very last iterate is left to ``finish``

    def start(self, problem: Problem) -> APGDTState:
        run = begin(problem, first_point(problem), self.steps)
        if problem.target is not None:
            targets = problem.target.unsqueeze(1)
        else:
            logits = problem.query(problem.x)
            problem.offer(problem.x, logits)
            wrong = logits.scatter(1, problem.y.unsqueeze(1), -torch.inf)
            targets = wrong.argsort(dim=1, descending=True, stable=True)[:, : self._runs(problem)]
        return APGDTState(**{f.name: getattr(run, f.name) for f in fields(run)}, targets=targets)

    def step(self, problem: Problem, state: APGDTState) -> APGDTState:
        run, done = state.t // (self.steps + 1), state.t % (self.steps + 1)
        # Between two looks of the driver an image may stand past its last step.
        place = run.clamp_max(state.targets.shape[1] - 1).unsqueeze(1)
        aim = self._loss(problem, state.targets.gather(1, place).squeeze(1))
        moved = advance(problem, state, done, aim, self.steps, self.rho)
        over = done == self.steps
        if not over.is_cuda and not over.any():
            return moved
        x0, eps, norm = problem.x, problem.eps, problem.norm
        again = begin(problem, geometry.surface_start(x0, eps, norm, problem.streams, run + 1), self.steps)
        new = {}
        for f in fields(again):
            if f.name != "t":
                fresh, kept = getattr(again, f.name), getattr(moved, f.name)
                new[f.name] = torch.where(geometry.per_image(over, kept), fresh, kept)
        return replace(moved, **new)

    @staticmethod
    def _loss(problem: Problem, target: Tensor) -> Loss:
        if problem.target is not None:
            return losses.goal_margin(problem)
        return lambda logits, y: losses.targeted_dlr(logits, y, target)

    def finish(self, problem: Problem, state: APGDTState) -> None:
        problem.offer(state.x)
