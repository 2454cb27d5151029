"""APGD: projected steps whose length follows the progress of each image."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.apgd_rules import (
    APGDState,
    DenseState,
    SparseState,
    begin_dense,
    begin_sparse,
    step_dense,
    step_sparse,
)
from aresbench.attacks.base import Attack, Loss, Problem
from aresbench.attacks.runs import Place, Runs, of_leg, renew
from aresbench.attacks.settings import check_number, check_whole

WIDER = (3, 2, 1)  # balls of a run under L1, in eps: it shrinks twice on the way, so that the steps begin with room


def runs_of(problem: Problem, steps: int, count: int = 1) -> Runs:
    """``count`` runs of ``steps`` updates; under L1 the first 30 % of each search in 3 eps, the next 30 % in 2 eps.

    A warm start is near its break already: it needs no larger ball.
    """
    early = min(-(-3 * steps // 10), (steps - 1) // 2)
    if problem.norm != "l1" or problem.start_from is not None or early == 0:
        return Runs((steps,), count)
    return Runs((early, early, steps - 2 * early), count)


def begin(problem: Problem, runs: Runs) -> APGDState:
    """The state at the first point: where a warm start says, else drawn."""
    x0, t = problem.x, torch.zeros_like(problem.y)
    eps = problem.eps * _scales(runs)[0]
    if problem.start_from is not None:
        x = geometry.project(problem.start_from, x0, eps, problem.norm)
    else:
        x = geometry.surface_start(x0, eps, problem.norm, problem.streams)
    return begin_sparse(x, x0, eps, t) if problem.norm == "l1" else begin_dense(x, eps, t, runs.legs[0])


def advance(problem: Problem, state: APGDState, loss_of: Loss | None, runs: Runs, rho: float) -> APGDState:
    """One update of each image's run, or the beginning of its next leg or run; asks about ``state.x`` and offers it.

    Args:
        loss_of: what the run climbs; ``None``: the problem's own loss.
        rho: share of rising steps that is needed to keep the step length.
    """
    place = runs.place(state.t)
    x0, norm = problem.x, problem.norm
    logits, loss, gradient = problem.gradient(state.x, loss_of)
    if not isinstance(state, SparseState):
        problem.offer(state.x, logits)
        dense = cast(DenseState, state)
        moved = step_dense(dense, loss, gradient, x0, problem.eps, norm, place.done, runs.legs[0], rho)

        def again() -> DenseState:
            start = geometry.surface_start(x0, problem.eps, norm, problem.streams, place.run + 1)
            return begin_dense(start, problem.eps, torch.zeros_like(state.t), runs.legs[0])

        return renew(moved, runs.over(place), again)
    # In the larger balls few points are admissible. The others come with an answer that proves nothing.
    last = place.leg == len(runs.legs) - 1
    inside = last | (geometry.distance(state.x, x0, norm) <= geometry.allowance(problem.eps))
    problem.offer(state.x, torch.where(inside[:, None], logits, torch.nan))
    eps = problem.eps * of_leg(place.leg, _scales(runs))
    sparse = step_sparse(state, loss, gradient, x0, eps, place.done, of_leg(place.leg, runs.legs))
    return renew(sparse, runs.over(place), lambda: _next_leg(problem, sparse, runs, place, last))


def _next_leg(problem: Problem, state: SparseState, runs: Runs, place: Place, last: Tensor) -> SparseState:
    """Under L1: the best point brought into the next, smaller ball, or a new start where the run is over."""
    x0, streams = problem.x, problem.streams
    eps = problem.eps * of_leg(torch.where(last, 0, place.leg + 1), _scales(runs))
    drawn = geometry.surface_start(x0, eps, "l1", streams, place.run + 1)
    x = torch.where(geometry.per_image(last, x0), drawn, geometry.project(state.best, x0, eps, "l1"))
    return begin_sparse(x, x0, eps, torch.zeros_like(state.t))


def _scales(runs: Runs) -> tuple[int, ...]:
    return WIDER[-len(runs.legs) :]


@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD on some loss: what its attacks share."""

    steps: int
    rho: float
    restarts: int

    @abstractmethod
    def loss(self, problem: Problem) -> Loss | None:
        """What the steps climb; ``None``: the problem's own loss."""

    def __post_init__(self) -> None:
        check_whole(self, "steps", least=1)
        check_number(self, "rho", high=1.0)
        check_whole(self, "restarts", least=1)

    @property
    def total_steps(self) -> int:
        return Runs((self.steps,), self.restarts).steps

    def steps_for(self, problem: Problem) -> int:
        return runs_of(problem, self.steps, self.restarts).steps

    def start(self, problem: Problem) -> APGDState:
        return begin(problem, runs_of(problem, self.steps))

    def step(self, problem: Problem, state: APGDState) -> APGDState:
        runs = runs_of(problem, self.steps, self.restarts)
        return advance(problem, state, self.loss(problem), runs, self.rho)

    def finish(self, problem: Problem, state: APGDState) -> None:
        problem.offer(state.x)


@dataclass(frozen=True)
class APGDCE(APGD):
    """Auto-PGD on the cross-entropy: no step size to tune (Croce and Hein, 2020).

    Under L∞ and L2 steps begin at 2 eps. At checkpoints after 22 %, 41 %, 57 % … of the steps an image halves its step
    length and goes back to its best point if its loss rose in at most ``rho`` of the steps since the
    last check, or if neither length nor best loss changed between the last two. Starts on the surface
    of the ball, as AutoAttack does.

    Two details follow the authors' code, so that its numbers are met: the first comparison of a
    loss is with 0 (under cross-entropy it always counts as a rise), and after going back the momentum still
    points from the iterate before, so that the first step from the best point spans the jump.

    Under L1 (Croce and Hein, "Mind the box", ICML 2021. arXiv:2103.01208) a step moves the values of largest
    slope only, as many as the best point so far calls for, and projections are exact on ball and box. A run
    begins in a ball of 3 eps, goes on in 2 eps after 30 % of its steps and in eps after 60 %.

    Args:
        steps: number of updates of a run; at most restarts · (steps + 1) forward passes per image and one
            backward fewer, under L1 restarts · (steps + 3).
        rho: share of rising steps that is needed to keep the step length; not used under L1.
        restarts: how many runs there are, each from its own random start; an image leaves at its first break.
    """

    steps: int = 100
    rho: float = 0.75
    restarts: int = 1

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "F. Croce and M. Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse "
        "Parameter-free Attacks. ICML 2020. arXiv:2003.01690"
    )
    choose_when: ClassVar[str] = "you want the strongest single gradient attack without tuning, at a given budget"

    def loss(self, problem: Problem) -> Loss | None:
        return losses.named("ce", problem)


@dataclass(frozen=True)
class APGDDLR(APGD):
    """Auto-PGD on the difference of logits ratio, which no scale of the logits can blind (Croce and Hein, 2020).

    The same steps as ``apgd-ce``. The loss is the margin over the spread of the top three logits; with
    fewer than 3 classes, the margin alone. Towards a target it climbs the target's lead in logits, because
    the ratio also rises when the leading class draws away from the third.

    Args:
        steps: number of updates of a run; at most restarts · (steps + 1) forward passes per image and one
            backward fewer, under L1 restarts · (steps + 3).
        rho: share of rising steps that is needed to keep the step length; not used under L1.
        restarts: how many runs there are, each from its own random start; an image leaves at its first break.
    """

    steps: int = 100
    rho: float = 0.75
    restarts: int = 1

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "F. Croce and M. Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse "
        "Parameter-free Attacks. ICML 2020. arXiv:2003.01690"
    )
    choose_when: ClassVar[str] = "cross-entropy may saturate: large logits, or gradients that are zero"

    def loss(self, problem: Problem) -> Loss | None:
        return losses.named("dlr", problem)


@dataclass(frozen=True)
class APGDPM(APGD):
    """Auto-PGD on the probability margin, as in the probability margin attack (Xie et al., 2024).

    The same steps as ``apgd-ce``. The loss is the best other probability minus that of the label: like the
    margin it looks at one rival, like cross-entropy it weighs how near the decision is. Towards a target,
    whose probability is near 0 and gives no gradient, it climbs the target's lead in logits.

    Args:
        steps: number of updates of a run; at most restarts · (steps + 1) forward passes per image and one
            backward fewer, under L1 restarts · (steps + 3).
        rho: share of rising steps that is needed to keep the step length; not used under L1.
        restarts: how many runs there are, each from its own random start; an image leaves at its first break.
    """

    steps: int = 100
    rho: float = 0.75
    restarts: int = 1

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Y. Xie, W. Zheng, H. Huang, G. Ye and X. Ma. Towards Million-Scale Adversarial Robustness Evaluation With "
        "Stronger Individual Attacks. 2024. arXiv:2411.15210"
    )
    choose_when: ClassVar[str] = "you want one strong attack on a robustly trained model, for the price of apgd-ce"

    def loss(self, problem: Problem) -> Loss | None:
        return losses.named("pm", problem)
