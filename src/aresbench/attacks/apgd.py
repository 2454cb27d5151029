"""APGD: projected steps with momentum whose length follows the progress of each image."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Attack, Loss, Problem, State
from aresbench.attacks.settings import check_number, check_whole

MOMENTUM = 0.75  # weight of the new step against the last displacement


@dataclass
class APGDState(State):
    """One row per image; everything that decides its step length is its own.

    Args:
        x: [N, C, H, W], the next point to ask about.
        previous: [N, C, H, W], the iterate before it.
        best, best_gradient: [N, C, H, W], the point of highest loss so far and its gradient.
        best_loss: [N], its loss.
        loss: [N], the loss at the last iterate (0 before the first update).
        length: [N], length of a step.
        rises: [N] int64, steps since the last check after which the loss had risen.
        window: [N] int64, steps between the last check and the next.
        next_check: [N] int64, the step of the next check.
        halved: [N] bool, was the length halved at the last check?
        best_at_check: [N], ``best_loss`` at the last check.
    """

    x: Tensor
    previous: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    loss: Tensor
    length: Tensor
    rises: Tensor
    window: Tensor
    next_check: Tensor
    halved: Tensor
    best_at_check: Tensor


def begin(problem: Problem, x: Tensor, steps: int) -> APGDState:
    """The state of a run of ``steps`` updates that begins at ``x``."""
    eps = problem.eps
    t = torch.zeros_like(problem.y)
    window = torch.full_like(t, max(int(0.22 * steps), 1))
    return APGDState(
        t,
        x=x,
        previous=x,
        best=x,
        best_gradient=torch.zeros_like(x),
        best_loss=torch.full_like(eps, -torch.inf),
        loss=torch.zeros_like(eps),
        length=2 * eps,
        rises=t,
        window=window,
        next_check=window,
        halved=torch.ones_like(t, dtype=torch.bool),
        best_at_check=torch.full_like(eps, -torch.inf),
    )


def first_point(problem: Problem) -> Tensor:
    """Where a warm start says, else on the surface of the ball."""
    if problem.start_from is not None:
        return geometry.project(problem.start_from, problem.x, problem.eps, problem.norm)
    return geometry.surface_start(problem.x, problem.eps, problem.norm, problem.streams)


S = TypeVar("S", bound=APGDState)


def advance(problem: Problem, state: S, done: Tensor, loss_of: Loss | None, steps: int, rho: float) -> S:
    """One update of a run of ``steps``; asks about ``state.x`` and offers it.

    Args:
        done: [N] int64, updates made so far in this run.
        loss_of: what the run climbs; ``None``: the problem's own loss.
        rho: share of rising steps that is needed to keep the step length.
    """
    s, x0, eps, norm = state, problem.x, problem.eps, problem.norm
    logits, loss, gradient = problem.gradient(s.x, loss_of)
    problem.offer(s.x, logits)

    # What this answer changes. The loss of the start is a best loss, but no step yet.
    first = done == 0
    improved = loss > s.best_loss
    wide = geometry.per_image(improved | first, s.x)
    best = torch.where(wide, s.x, s.best)
    best_gradient = torch.where(wide, gradient, s.best_gradient)
    best_loss = torch.where(improved, loss, s.best_loss)
    rises = s.rises + ((loss > s.loss) & ~first)
    loss = torch.where(first, s.loss, loss)

    # Checkpoints.
    due = done == s.next_check
    stuck = ~s.halved & (s.best_at_check >= best_loss)
    halve = due & ((rises <= rho * s.window) | stuck)
    length = torch.where(halve, s.length / 2, s.length)
    wide = geometry.per_image(halve, s.x)
    x = torch.where(wide, best, s.x)
    gradient = torch.where(wide, best_gradient, gradient)
    shorter = (s.window - max(int(0.03 * steps), 1)).clamp_min(max(int(0.06 * steps), 1))
    window = torch.where(due, shorter, s.window)

    # The step: a projected ascent, mixed with the last displacement from the second step on.
    fresh = geometry.per_image(torch.where(first, 1.0, MOMENTUM).to(x.dtype), x)
    moved = geometry.project_(geometry.ascend(x, gradient, length, norm), x0, eps, norm)
    moved.sub_(x).mul_(fresh).add_(x).addcmul_(x - s.previous, 1 - fresh)
    return replace(
        s,
        x=geometry.project_(moved, x0, eps, norm),
        previous=x,
        best=best,
        best_gradient=best_gradient,
        best_loss=best_loss,
        loss=loss,
        length=length,
        rises=torch.where(due, 0, rises),
        window=window,
        next_check=torch.where(due, done + window, s.next_check),
        halved=torch.where(due, halve, s.halved),
        best_at_check=torch.where(due, best_loss, s.best_at_check),
    )


@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD on some loss: what its attacks share."""

    steps: int
    rho: float

    @abstractmethod
    def loss(self, problem: Problem) -> Loss | None:
        """What the steps climb; ``None``: the problem's own loss."""

    def __post_init__(self) -> None:
        check_whole(self, "steps", least=1)
        check_number(self, "rho", high=1.0)

    @property
    def total_steps(self) -> int:
        return self.steps

    def start(self, problem: Problem) -> APGDState:
        return begin(problem, first_point(problem), self.steps)

    def step(self, problem: Problem, state: APGDState) -> APGDState:
        return advance(problem, state, state.t, self.loss(problem), self.steps, self.rho)

    def finish(self, problem: Problem, state: APGDState) -> None:
        problem.offer(state.x)


@dataclass(frozen=True)
class APGDCE(APGD):
    """Auto-PGD on the cross-entropy: no step size to tune (Croce and Hein, 2020).

    Steps begin at 2 eps. At checkpoints after 22 %, 41 %, 57 % … of the steps an image halves its step
    length and goes back to its best point if its loss rose in at most ``rho`` of the steps since the
    last check, or if neither length nor best loss changed between the last two. Starts on the surface
    of the ball, as AutoAttack does.

    Two details follow the authors' code, so that its numbers are met: the first comparison of a
    loss is with 0 (under cross-entropy it always counts as a rise), and after going back the momentum still
    points from the iterate before, so that the first step from the best point spans the jump.

    Args:
        steps: number of updates; at most steps + 1 forward and steps backward passes per image.
        rho: share of rising steps that is needed to keep the step length.
    """

    steps: int = 100
    rho: float = 0.75

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
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
        steps: number of updates; at most steps + 1 forward and steps backward passes per image.
        rho: share of rising steps that is needed to keep the step length.
    """

    steps: int = 100
    rho: float = 0.75

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
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
        steps: number of updates; at most steps + 1 forward and steps backward passes per image.
        rho: share of rising steps that is needed to keep the step length.
    """

    steps: int = 100
    rho: float = 0.75

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
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
