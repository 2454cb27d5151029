"""One batch and what a method may do with it: the engine's side of ``methods.base.Lesson``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from aresbench.attacks.base import Loss
from aresbench.engine.ascent import ascend, standing_still
from aresbench.ops.random import Streams, key_of
from aresbench.training.learner import Learner
from aresbench.training.losses import soft_cross_entropy
from aresbench.training.perturbation import movable, unrecorded
from aresbench.training.recipe import Recipe
from aresbench.training.split_norm import auxiliary


class ClassroomLesson:
    """A batch (or the part of one that fits into memory), with its labels, budget and draws.

    Args:
        learner: what learns.
        x: [N, 3, H, W] float32 in [0, 1].
        labels: [N, K].
        ids: N stable ids.
        epoch: which, for the draws.
        part, parts: which part of an update this is, of how many.

    Attributes:
        losses: the mean loss of each update.
        gradients: images that went through a backward pass, in the attack and in training.
    """

    def __init__(
        self, learner: Learner, x: Tensor, labels: Tensor, ids: Sequence[str], epoch: int, part: int = 0, parts: int = 1
    ) -> None:
        self.learner, self.x, self.labels = learner, x, labels
        self.y = labels.argmax(1)
        self.part, self.parts = part, parts
        self.progress = learner.step / learner.total
        self.streams = Streams(learner.recipe.seed, f"training/{epoch}", ids, x.device)
        self.losses: list[Tensor] = []
        self.gradients = torch.zeros((), dtype=torch.int64, device=x.device)
        budget = learner.recipe.threat.parsed[self._choice()]
        self.norm = budget.norm
        self.eps = self._sizes(float(budget.eps))

    def _sizes(self, eps: float) -> Tensor:
        grown = self.learner.grown(self.learner.recipe.threat.budget_warmup)
        return torch.full((len(self.x),), eps * grown, device=self.x.device)

    def _choice(self) -> int:
        """Which of the budgets this update trains against."""
        threat, step = self.learner.recipe.threat, self.learner.step
        if threat.choose == "alternate":
            return step % len(threat.budgets)
        return key_of(self.learner.recipe.seed, "budget", step) % len(threat.budgets)

    @property
    def carried(self) -> Tensor | None:
        return self.learner.carried

    @carried.setter
    def carried(self, value: Tensor | None) -> None:
        self.learner.carried = value

    def _passes(self, precision: str) -> AbstractContextManager[None]:
        """The context in which the model computes at a precision."""
        return torch.autocast(self.x.device.type, torch.bfloat16, enabled=precision == "bfloat16")

    @contextmanager
    def _standing_still(self) -> Iterator[None]:
        """The classifier as attacks see it."""
        classifier, spread = self.learner.classifier, self.learner.spread
        still = standing_still(classifier, self.learner.recipe.threat.batch_norm)
        with auxiliary(classifier), still, spread.gathered():
            yield

    def forward(self, x: Tensor) -> Tensor:
        self.gradients += len(x)
        with self._passes(self.learner.recipe.engine.precision):
            logits: Tensor = self.learner.spread.model(x)
        return logits.float()

    def answer(self, x: Tensor) -> Tensor:
        with torch.no_grad(), self._standing_still():
            return self._searched(x)

    def _searched(self, x: Tensor) -> Tensor:
        with self._passes(self.learner.recipe.threat.precision):
            logits: Tensor = self.learner.spread.seen(x)
        return logits.float()

    def attack(
        self, loss: Loss | None = None, start_from: Tensor | None = None, around: Tensor | None = None
    ) -> Tensor:
        threat = self.learner.recipe.threat
        x = self.x if around is None else around
        raised = loss or attacked_loss(self.learner.recipe, self.labels)
        if threat.choose != "worst" or len(threat.budgets) == 1:
            return self._attack(x, self.norm, self.eps, raised, start_from)
        worst, highest = x, torch.full((len(x),), -torch.inf, device=x.device)
        for budget in threat.parsed:
            found = self._attack(x, budget.norm, self._sizes(float(budget.eps)), raised, start_from)
            value = raised(self.answer(found), self.y)
            better = value > highest
            worst = torch.where(better[:, None, None, None], found, worst)
            highest = torch.where(better, value, highest)
        return worst

    def _attack(self, x: Tensor, norm: str, eps: Tensor, loss: Loss, start_from: Tensor | None) -> Tensor:
        with self._standing_still():
            found = ascend(
                self._searched,
                self.learner.attack_now(),
                x,
                self.y,
                norm=norm,
                eps=eps,
                streams=self.streams,
                num_classes=self.labels.shape[1],
                loss=loss,
                keep=self.learner.recipe.threat.iterate,
                start_from=start_from,
            )
        self.gradients += found.backwards.sum()
        return found.x

    def update(self, objective: Callable[[], Tensor]) -> None:
        learner, awp = self.learner, self.learner.perturbation
        last = self.part == self.parts - 1
        if awp is None or learner.epoch < awp.from_epoch:
            self._descend(objective, last)
        else:
            weights = movable(learner.classifier)
            # Running statistics come from this pass: from the weights that stay.
            with awp.applied(weights, self._slopes(objective, weights)), unrecorded(learner.classifier):
                self._descend(objective, last)
        if last:
            learner.move()

    def _descend(self, objective: Callable[[], Tensor], last: bool) -> None:
        """Add the objective's gradients to those of the weights; processes exchange them in the last part."""
        with self.learner.spread.exchanging(last):
            loss = objective().mean()
            (loss / self.parts).backward()
        self.losses.append(loss.detach())

    def _slopes(self, objective: Callable[[], Tensor], weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """The objective's gradients, the mean over all processes; those of the weights are left alone."""
        with self.learner.spread.exchanging(False):
            found = torch.autograd.grad(objective().mean(), weights, allow_unused=True, materialize_grads=True)
        world = self.learner.world
        if world.size == 1:
            return found
        mean = world.sum(torch.cat([slope.reshape(-1) for slope in found])) / world.size
        parts = mean.split([weight.numel() for weight in weights])
        return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]


def mixed(x: Tensor, y: Tensor, recipe: Recipe, classes: int) -> tuple[Tensor, Tensor]:
    """Images mixed by timm's mixup and CutMix, and their labels [N, K], mixed and smoothed as well."""
    from timm.data.mixup import Mixup, mixup_target

    a = recipe.augment
    if not (a.mixup or a.cutmix):
        return x, mixup_target(y, classes, lam=1.0, smoothing=a.smoothing)
    mix = Mixup(
        a.mixup,
        a.cutmix,
        prob=a.mix_chance,
        switch_prob=a.switch_chance,
        mode=a.mix_mode,
        label_smoothing=a.smoothing,
        num_classes=classes,
    )
    images, labels = mix(x, y)
    return images, labels


def attacked_loss(recipe: Recipe, labels: Tensor) -> Loss:
    """What training's attack raises: cross-entropy to the labels the recipe names, one value per image."""
    if recipe.threat.labels == "soft":
        return lambda logits, y: soft_cross_entropy(logits, labels)
    smoothing = recipe.augment.smoothing if recipe.threat.labels == "smooth" else 0.0
    classes = labels.shape[1]

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        hard = torch.nn.functional.one_hot(y, classes).to(logits.dtype)
        return soft_cross_entropy(logits, hard * (1 - smoothing) + smoothing / classes)

    return loss
