"""One batch and what a method may do with it: the engine's side of ``methods.base.Lesson``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from aresbench.attacks.base import Loss
from aresbench.engine.ascent import ascend, standing_still
from aresbench.ops.random import Streams, key_of
from aresbench.training.learner import Learner
from aresbench.training.losses import soft_cross_entropy
from aresbench.training.recipe import Recipe


class ClassroomLesson:
    """A batch (or the part of one that fits into memory), with its labels, budget and draws.

    Args:
        learner: what learns.
        x: [N, 3, H, W] float32 in [0, 1].
        labels: [N, K].
        ids: N stable ids.
        epoch: which, for the draws.
        part, parts: which part of an update this is, of how many.
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
        self.gradients = 0
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

    def _passes(self, precision: str) -> AbstractContextManager[None]:
        """The context in which the model computes at a precision."""
        return torch.autocast(self.x.device.type, torch.bfloat16, enabled=precision == "bfloat16")

    def forward(self, x: Tensor) -> Tensor:
        self.gradients += len(x)
        with self._passes(self.learner.recipe.engine.precision):
            logits: Tensor = self.learner.model(x)
        return logits.float()

    def answer(self, x: Tensor) -> Tensor:
        with torch.no_grad(), standing_still(self.learner.classifier, self.learner.recipe.threat.batch_norm):
            return self._searched(x)

    def _searched(self, x: Tensor) -> Tensor:
        with self._passes(self.learner.recipe.threat.precision):
            logits: Tensor = self.learner.classifier(x)
        return logits.float()

    def attack(self, loss: Loss | None = None, start_from: Tensor | None = None) -> Tensor:
        threat = self.learner.recipe.threat
        raised = loss or attacked_loss(self.learner.recipe, self.labels)
        if threat.choose != "worst" or len(threat.budgets) == 1:
            return self._attack(self.norm, self.eps, raised, start_from)
        worst, highest = self.x, torch.full((len(self.x),), -torch.inf, device=self.x.device)
        for budget in threat.parsed:
            found = self._attack(budget.norm, self._sizes(float(budget.eps)), raised, start_from)
            value = raised(self.answer(found), self.y)
            better = value > highest
            worst = torch.where(better[:, None, None, None], found, worst)
            highest = torch.where(better, value, highest)
        return worst

    def _attack(self, norm: str, eps: Tensor, loss: Loss, start_from: Tensor | None) -> Tensor:
        threat = self.learner.recipe.threat
        with standing_still(self.learner.classifier, threat.batch_norm):
            found = ascend(
                self._searched,
                self.learner.attack_now(),
                self.x,
                self.y,
                norm=norm,
                eps=eps,
                streams=self.streams,
                num_classes=self.labels.shape[1],
                loss=loss,
                keep=threat.iterate,
                start_from=start_from,
            )
        self.gradients += (
            int(found.backwards.sum()) if not self.x.is_cuda else len(self.x) * self.learner.attack.total_steps
        )
        return found.x

    def update(self, objective: Callable[[], Tensor]) -> None:
        last = self.part == self.parts - 1
        with self.learner.together(last):
            loss = objective().mean()
            (loss / self.parts).backward()
        self.losses.append(loss.detach())
        if last:
            self.learner.move()


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
