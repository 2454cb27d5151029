"""The learner: the model that is trained and everything that an update changes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from aresbench.attacks.base import Attack
from aresbench.attacks.load import make_attack
from aresbench.core.classes import Classes
from aresbench.core.errors import SpecError
from aresbench.models.classifier import Classifier
from aresbench.models.trainable import build
from aresbench.training.methods.base import Method
from aresbench.training.methods.load import fitting_method
from aresbench.training.perturbation import AWP, make_perturbation
from aresbench.training.recipe import Recipe, plain
from aresbench.training.spread import InParts, OnEach, Spread, local, refuse_in_parts
from aresbench.training.world import World


@dataclass
class Learner:
    """What is trained, and what moves it.

    Args:
        classifier: [0,1] images → logits, without any wrapping.
        spread: how it lies on the processes.
        optimizer: of timm.
        schedule: of timm: sets the learning rate from the number of updates.
        average: moving average of the weights, or None.
        method, attack: of the recipe.
        perturbation: of the weights, or None.
        step: updates made: batches learned from (a method may move the weights several times for one).
        carried: what the method hands from one batch of this process to its next, or None.
        notes: what has happened on the way (a rollback, another number of processes).
    """

    recipe: Recipe
    world: World
    classifier: Classifier
    spread: Spread
    optimizer: torch.optim.Optimizer
    schedule: Any
    average: Any
    method: Method
    attack: Attack
    per_epoch: int
    perturbation: AWP | None = None
    step: int = 0
    carried: Tensor | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def epoch(self) -> float:
        """Epochs behind us."""
        return self.step / self.per_epoch

    @property
    def total(self) -> int:
        """Updates of the whole training."""
        return self.per_epoch * self.recipe.schedule.epochs

    @property
    def outputs(self) -> int:
        """Number of logits."""
        count = self.classifier.num_classes
        assert count is not None
        return count

    @property
    def lr(self) -> float:
        """The learning rate of the next update (of its fastest layer)."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def grown(self, epochs: float) -> float:
        """How far something that grows linearly over ``epochs`` is, in (0, 1]: never 0, which would train on noise."""
        return min(1.0, (self.step + 1) / (epochs * self.per_epoch)) if epochs else 1.0

    def attack_now(self) -> Attack:
        """The attack with the step length that it has at this step."""
        share = self.grown(self.recipe.threat.step_warmup)
        if share == 1.0:
            return self.attack
        return replace(self.attack, rel_step=self.attack.rel_step * share)  # type: ignore[call-arg, attr-defined]

    def move(self) -> None:
        """Move the weights by the gradients that are there."""
        if self.recipe.optimizer.clip:
            nn.utils.clip_grad_norm_(self.classifier.parameters(), self.recipe.optimizer.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.classifier, self.step + 1)

    def advance(self) -> None:
        """One batch has been learned from."""
        self.step += 1
        self.schedule.step_update(self.step)

    # -- checkpoints --------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything the next update depends on; on every process (they tell one another their buffers)."""
        return {
            "step": self.step,
            "model": self.spread.tensors(self.classifier),
            "buffers": [part.cpu() for part in self.world.gather(_flat(self._buffers()))],
            "optimizer": self.spread.optimizer_state(self.optimizer),
            "average": None if self.average is None else self.spread.tensors(self.average.module),
            "carried": None if self.carried is None else torch.cat([c.cpu() for c in self.world.gather(self.carried)]),
            "notes": list(self.notes),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state. Of another number of processes, batch statistics become their mean.

        Raises:
            ModelError: it belongs to a model of other tensors.
        """
        self.spread.fill(self.classifier, state["model"])
        self.spread.fill_optimizer(self.optimizer, state["optimizer"])
        if self.average is not None:
            self.spread.fill(self.average.module, state["average"])
        parts = state["buffers"]
        own = parts[self.world.rank] if len(parts) == self.world.size else torch.stack(parts).mean(0)
        _unflat(own, self._buffers())
        carried = state["carried"]
        self.carried = (
            None if carried is None else carried.chunk(self.world.size)[self.world.rank].to(self.world.device)
        )
        self.step, self.notes = state["step"], list(state["notes"])
        self.schedule.step_update(self.step)

    def _buffers(self) -> list[Tensor]:
        """Running statistics (and their average), which each process keeps for itself."""
        modules = [self.classifier] if self.average is None else [self.classifier, self.average.module]
        return [b for module in modules for b in module.buffers() if b.is_floating_point()]

    def sound(self) -> bool:
        """Are all weights numbers, those of the average too?"""
        modules = [self.classifier] if self.average is None else [self.classifier, self.average.module]
        tensors = [local(p.detach()) for module in modules for p in module.parameters()] + self._buffers()
        sums = torch.stack([tensor.sum(dtype=torch.float64) for tensor in tensors])
        return not self.world.any(not bool(sums.isfinite().all()))[0]

    def share_statistics(self) -> None:
        """Make running statistics the mean over all processes (before a measurement)."""
        if self.world.size > 1:
            flat = _flat(self._buffers())
            _unflat(self.world.sum(flat) / self.world.size, self._buffers())


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors]) if tensors else torch.zeros(0)


def _unflat(flat: Tensor, tensors: list[Tensor]) -> None:
    with torch.no_grad():
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def make_learner(recipe: Recipe, classes: Classes, images: int, world: World) -> Learner:
    """Model, optimiser and the rest, as the recipe says, before the first update.

    Raises:
        SpecError: a method, attack or optimiser that does not exist or does not fit.
        ModelError: the model cannot be built or its first weights cannot be loaded.
    """
    from timm.optim import create_optimizer_v2
    from timm.utils import ModelEmaV3

    _divide(recipe, world)
    per_epoch = images // recipe.engine.batch
    method, attack = fitting_method(recipe), training_attack(recipe)
    torch.manual_seed(recipe.seed)
    classifier = build(classes, **plain(recipe.model)).to(world.device)
    in_parts = recipe.engine.parallel == "fsdp"
    if recipe.engine.channels_last and not in_parts:  # parts are cut from contiguous weights
        classifier.to(memory_format=torch.channels_last)
    if recipe.engine.sync_batch_norm and world.size > 1:
        classifier.module = nn.SyncBatchNorm.convert_sync_batchnorm(classifier.module)
    layers = len(list(classifier.modules()))
    classifier.module = method.prepare(classifier.module)
    classifier.train()
    perturbation, compiled = make_perturbation(recipe.perturb), recipe.machine.compile
    average = None
    if recipe.average.decay:
        average = ModelEmaV3(
            classifier, decay=recipe.average.decay, use_warmup=recipe.average.warmup, foreach=not in_parts
        )
    spread: Spread
    if in_parts:
        as_built = layers == len(list(classifier.modules()))
        refuse_in_parts(world, compiled, perturbation is not None, method.compiles and as_built)
        spread = InParts(classifier, None if average is None else average.module, world)
    else:
        if compiled and not method.compiles:
            raise SpecError(
                f"machine.compile: {recipe.method} derives gradients once more, which torch cannot compile",
                "set machine.compile = false",
            )
        spread = OnEach(classifier, world, compiled)
    o = recipe.optimizer
    own: dict[str, Any] = {"betas": o.betas, "eps": o.eps}
    optimizer = create_optimizer_v2(
        classifier.module,
        o.name,
        lr=recipe.lr,
        weight_decay=o.weight_decay,
        momentum=o.momentum,
        layer_decay=o.layer_decay or None,
        **{key: value for key, value in own.items() if value},
    )
    learner = Learner(
        recipe=recipe,
        world=world,
        classifier=classifier,
        spread=spread,
        optimizer=optimizer,
        schedule=_schedule(recipe, optimizer, per_epoch),
        average=average,
        method=method,
        attack=attack,
        per_epoch=per_epoch,
        perturbation=perturbation,
    )
    learner.schedule.step_update(0)
    return learner


def _divide(recipe: Recipe, world: World) -> None:
    """Refuse batches that do not fall into equal parts: their means would not be the mean of the whole."""
    batch, parts = recipe.engine.batch, world.size * recipe.engine.accumulate
    mixes = bool(recipe.augment.mixup or recipe.augment.cutmix)
    if batch % (parts * (2 if mixes else 1)):
        raise SpecError(
            f"engine.batch = {batch} does not fall into {parts} equal parts{' of pairs' if mixes else ''} "
            f"({world.size} processes, engine.accumulate = {recipe.engine.accumulate})",
            "start another number of processes, or change the recipe",
        )
    if recipe.engine.sync_batch_norm and world.size > 1 and world.device.type != "cuda":
        raise SpecError(
            "engine.sync_batch_norm: torch's SyncBatchNorm runs on GPUs only",
            "train on GPUs, in one process, or with engine.sync_batch_norm=false",
        )


def training_attack(recipe: Recipe) -> Attack:
    """The recipe's attack, if training can use it.

    Raises:
        SpecError: it needs no gradient, is no bounded one, or does not know a norm of the budgets.
    """
    attack = make_attack(recipe.threat.attack)
    if not isinstance(attack, Attack) or attack.access != "gradient" or attack.kind != "bounded":
        raise SpecError(
            f"threat.attack = {recipe.threat.attack!r} is no bounded attack that climbs gradients",
            "training needs one such as pgd(steps=3, rel_step=2/3) or apgd-ce(steps=2)",
        )
    for budget in recipe.threat.parsed:
        if budget.norm not in attack.norms:
            raise SpecError(
                f"{recipe.threat.attack} does not attack under {budget.norm}", f"it knows {', '.join(attack.norms)}"
            )
    if recipe.threat.step_warmup and "rel_step" not in {f.name for f in fields(attack)}:
        raise SpecError(
            f"threat.step_warmup: {recipe.threat.attack} has no step length that could grow", "leave it at 0"
        )
    return attack


def _schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, per_epoch: int) -> Any:
    """timm's scheduler, asked at every update; its answer depends on the number of updates alone."""
    from timm.scheduler import create_scheduler_v2

    s = recipe.schedule
    name = {"constant": "step", "linear": "poly"}.get(s.name, s.name)
    schedule, _ = create_scheduler_v2(
        optimizer,
        name,
        num_epochs=s.epochs,
        decay_epochs=s.decay_every if s.name == "step" else 10 * s.epochs,
        decay_milestones=list(s.decay_at),
        decay_rate=1.0 if s.name == "linear" else s.decay_by,  # the power of "poly"
        min_lr=s.min_lr,
        warmup_lr=s.warmup_lr,
        warmup_epochs=s.warmup,
        warmup_prefix=False,
        step_on_epochs=False,
        updates_per_epoch=per_epoch,
    )
    return schedule
