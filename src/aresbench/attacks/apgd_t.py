"""APGD-T: Auto-PGD towards one wrong class after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from aresbench.attacks import losses
from aresbench.attacks.apgd import advance, begin, runs_of
from aresbench.attacks.apgd_rules import APGDState
from aresbench.attacks.base import Attack, Loss, Problem
from aresbench.attacks.runs import Runs
from aresbench.attacks.settings import check_number, check_whole


@dataclass(frozen=True)
class APGDT(Attack):
    """Auto-PGD towards the likeliest wrong classes, one after the other, on the targeted DLR (Croce and Hein, 2020).

    The classes are taken in the order of the logits at the clean image. Each run begins at its own random
    point on the surface of the ball and makes the steps of ``apgd-ce`` (under L1 its steps there) on
    (target - true logit) / (first - mean of third and fourth logit); with fewer than 4 classes, on the
    difference of the two logits alone.
    Any wrong class counts. Under a targeted threat there is one run, on the target's lead in logits.

    Args:
        steps: number of updates of a run. An image that resists costs at most min(targets, classes - 1) ·
            (steps + 1) forward and backward passes, under L1 · (steps + 3), and one forward for the order.
        targets: how many classes are tried; never more than there are wrong ones. AutoAttack takes 5 under L1.
        rho: share of rising steps that is needed to keep the step length; not used under L1.
    """

    steps: int = 100
    targets: int = 9
    rho: float = 0.75

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
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
        return Runs((self.steps,), self.targets).steps

    def steps_for(self, problem: Problem) -> int:
        return self._runs(problem).steps

    def _runs(self, problem: Problem) -> Runs:
        count = 1 if problem.target is not None else min(self.targets, problem.num_classes - 1)
        return runs_of(problem, self.steps, count)

    def start(self, problem: Problem) -> APGDState:
        runs = self._runs(problem)
        if problem.target is not None:
            targets = problem.target.unsqueeze(1)
        else:
            logits = problem.query(problem.x)
            problem.offer(problem.x, logits)
            wrong = logits.scatter(1, problem.y.unsqueeze(1), -torch.inf)
            targets = wrong.argsort(dim=1, descending=True, stable=True)[:, : runs.count]
        return replace(begin(problem, runs), targets=targets)

    def step(self, problem: Problem, state: APGDState) -> APGDState:
        runs, targets = self._runs(problem), state.targets
        assert targets is not None, "start has chosen them"
        # Between two looks of the driver an image may stand past its last step.
        place = runs.place(state.t).run.clamp_max(targets.shape[1] - 1).unsqueeze(1)
        aim = self._loss(problem, targets.gather(1, place).squeeze(1))
        return advance(problem, state, aim, runs, self.rho)

    @staticmethod
    def _loss(problem: Problem, target: Tensor) -> Loss:
        if problem.target is not None:
            return losses.goal_margin(problem)
        return lambda logits, y: losses.targeted_dlr(logits, y, target)

    def finish(self, problem: Problem, state: APGDState) -> None:
        problem.offer(state.x)
