"""FAB-T: FAB towards one wrong class after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from aresbench.attacks import losses
from aresbench.attacks.base import Loss, Problem
from aresbench.attacks.fab import Boundaries, FABState
from aresbench.attacks.settings import check_whole


@dataclass(frozen=True)
class FABT(Boundaries):
    """FAB towards the likeliest wrong classes, one after the other, at one gradient a step (Croce and Hein, 2020).

    The classes are taken in the order of the logits at the clean image. Each run begins at the image and makes
    the steps of FAB, as if the boundary to its class were the only one; any wrong class counts as a break. The
    final search is made once, on the way to the nearest break of all runs. Under a targeted threat there is one
    run, on the target's lead over the best other class.

    Args:
        steps: steps of a run, of two forward and one backward pass each. An image costs min(targets, classes - 1)
            runs, and four forward passes: one for the order of the classes, three for the final search.
        targets: how many classes are tried; never more than there are wrong ones.
        alpha_max: largest share by which a step is drawn towards the image.
        eta: by which factor the way to the plane is overshot.
        beta: where the search goes on after a break: this share of the way from the image to it.
        restarts: runs per class. Later ones begin at random, half as far away as the nearest break so far or,
            where that is smaller, as the budget.
    """

    steps: int = 100
    targets: int = 9
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
    choose_when: ClassVar[str] = "you want the nearest break of all classes, or a second opinion on APGD, at any price"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "targets", least=1)

    @property
    def total_steps(self) -> int:
        return self.targets * self.restarts * self.steps

    def steps_for(self, problem: Problem) -> int:
        return self._targets(problem) * self.restarts * self.steps

    def _targets(self, problem: Problem) -> int:
        return 1 if problem.target is not None else min(self.targets, problem.num_classes - 1)

    def start(self, problem: Problem) -> FABState:
        return self._begin(problem, self._targets(problem))

    def boundary(self, problem: Problem, state: FABState, x: Tensor) -> tuple[Tensor, Tensor]:
        # Between two looks of the driver an image may stand past its last step.
        place = (state.t // (self.steps * self.restarts)).clamp_max(state.rivals.shape[1] - 1)
        _, lead, slope = problem.gradient(x, self._lead(problem, state.rivals.gather(1, place.unsqueeze(1))))
        return lead, slope

    @staticmethod
    def _lead(problem: Problem, rival: Tensor) -> Loss:
        if problem.target is not None:
            return losses.goal_margin(problem)
        return lambda logits, y: (logits.gather(1, rival) - logits.gather(1, y.unsqueeze(1))).squeeze(1)
