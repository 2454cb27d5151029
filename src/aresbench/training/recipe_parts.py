"""The parts of a recipe: what each setting means, and which values it may have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aresbench.core.budget import Budget, parse_budget
from aresbench.core.errors import SpecError
from aresbench.core.preprocessing import INTERPOLATIONS, Preprocessing
from aresbench.training.checks import above, at_least, below_one, climbing_attack, named, one_of, share
from aresbench.training.policies import check_policy

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Model:
    """What is trained.

    Args:
        architecture: ``timm:NAME`` (no tag), ``small-cnn``, ``preact-resnet18``, ``wrn-28-10``, ``wrn-34-10`` (for
            32×32 pixels), or ``./file.py:factory``.
        arguments: further settings of a timm architecture, e.g. ``{embed_dim = 192}``.
        initial: weights the training begins with, as ``load_model`` names them (``timm:convnext_base.fb_in22k``,
            ``weights.safetensors?arch=timm:resnet50``), or a folder of an earlier training; empty: random ones.
            The head takes over the rows of the same classes (by wnid or name; also from ImageNet-21k); the others
            begin anew, and the card says which. Position embeddings are resized.
        activation: ``gelu`` or ``silu`` in place of every ReLU; empty: as the architecture has it.
        stem: ``convolutional`` for a stack of strided 3×3 convolutions in place of the patch embedding of timm's
            ViT and ConvNeXt; empty: as the architecture has it.
        drop_path: rate of stochastic depth.
        drop: rate of dropout before the head.
        size: input height and width in pixels.
        resize: length of the shorter side before the centre crop when the model is measured; 0: no crop, the
            picture is resized to ``size``.
        interpolation: Pillow's filter when the model is measured.
        mean, std: per channel in [0,1] units.
    """

    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    initial: str = ""
    activation: str = ""
    stem: str = ""
    drop_path: float = 0.0
    drop: float = 0.0
    size: int = 224
    resize: int = 256
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        one_of("model.activation", self.activation, ("", "gelu", "silu"))
        one_of("model.stem", self.stem, ("", "convolutional"))
        one_of("model.interpolation", self.interpolation, INTERPOLATIONS)
        share("model.drop_path", self.drop_path)
        share("model.drop", self.drop)
        at_least("model.size", self.size, 1)
        if len(self.mean) != 3 or len(self.std) != 3:
            raise SpecError("model.mean and model.std are three numbers each", "one for red, green and blue")
        share("model.mean", min(self.mean))
        share("model.mean", max(self.mean))
        above("model.std", min(self.std))
        if not self.architecture:
            raise SpecError("model.architecture is empty", "write e.g. timm:resnet50")
        if self.resize and self.resize < self.size:
            raise SpecError(f"model.resize = {self.resize} is below model.size = {self.size}", "write 0 for no crop")

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures become inputs when the model is measured."""
        size = (self.size, self.size)
        if not self.resize:
            return Preprocessing(size, interpolation=self.interpolation, squash=True)
        return Preprocessing(size, resize=self.resize, interpolation=self.interpolation)


@dataclass(frozen=True)
class Data:
    """What it is trained on, and on which images it is watched.

    Args:
        train: dataset to learn from, e.g. ``imagenet-train`` or ``digits(split=train)``.
        held_out: that many images of ``train`` are not learned from: on them the run is watched and its best
            weights are chosen. Ignored where ``validation`` names a dataset.
        validation: dataset to watch the run on. Never the one the model will be judged by: choosing weights by
            test images makes their number too good.
        validation_images: how many of it, in published order; 0: all.
    """

    train: str
    held_out: int = 1000
    validation: str = ""
    validation_images: int = 1000

    def __post_init__(self) -> None:
        at_least("data.held_out", self.held_out, 0)
        at_least("data.validation_images", self.validation_images, 0)
        if self.validation and self.validation == self.train:
            raise SpecError(
                f"data.validation = {self.validation!r} are the images that are learned from",
                "leave it empty: data.held_out of them are then kept apart",
            )


@dataclass(frozen=True)
class Augment:
    """How training images are varied. Everything is drawn anew for each image and epoch.

    Args:
        crop: ``resized`` (a random part of the picture, resized: Szegedy et al., 2015), ``shift`` (padded by
            ``padding`` pixels and cropped), or ``none``.
        scale, ratio: area share and aspect ratio of the part, lowest and highest.
        padding: pixels.
        interpolation: Pillow's filter, or ``random`` (bilinear or bicubic, drawn for each image).
        flip: chance of a mirror image.
        color_jitter: strength of the random brightness, contrast and saturation; off under a ``policy``, but for 3a.
        policy: timm's name of a RandAugment or AutoAugment policy, e.g. ``rand-m9-mstd0.5-inc1``; empty: none.
        erase: chance of a rectangle replaced by noise of the data's mean and spread (random erasing).
        erase_count: most rectangles.
        mixup, cutmix: α of the Beta distributions that mix two images; 0: off.
        mix_chance: chance that a batch is mixed at all.
        switch_chance: chance of CutMix where both are on; at 1 only CutMix is ever used.
        mix_mode: ``batch``, ``pair`` or ``elem``: what shares one draw.
        smoothing: label smoothing: this share of each label is spread over all classes.
    """

    crop: str = "resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    padding: int = 0
    interpolation: str = "random"
    flip: float = 0.5
    color_jitter: float = 0.0
    policy: str = ""
    erase: float = 0.0
    erase_count: int = 1
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_chance: float = 1.0
    switch_chance: float = 0.5
    mix_mode: str = "batch"
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        one_of("augment.crop", self.crop, ("resized", "shift", "none"))
        one_of("augment.interpolation", self.interpolation, (*INTERPOLATIONS, "random"))
        one_of("augment.mix_mode", self.mix_mode, ("batch", "pair", "elem"))
        for name in ("flip", "erase", "mix_chance", "switch_chance"):
            share(f"augment.{name}", getattr(self, name))
        for name in ("padding", "color_jitter", "mixup", "cutmix"):
            at_least(f"augment.{name}", getattr(self, name), 0)
        at_least("augment.erase_count", self.erase_count, 1)
        if self.crop == "shift" and not self.padding:
            raise SpecError("augment.crop = 'shift' moves an image by augment.padding pixels, and that is 0")
        if self.policy:
            check_policy("augment.policy", self.policy)
        for name in ("scale", "ratio"):
            pair = getattr(self, name)
            if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
                raise SpecError(f"augment.{name} = {list(pair)} is no pair of a lowest and a highest number")
        if self.scale[1] > 1:
            raise SpecError(f"augment.scale = {list(self.scale)} reaches beyond the picture", "at most 1")
        below_one("augment.smoothing", self.smoothing)


@dataclass(frozen=True)
class Threat:
    """The adversary in training.

    Args:
        budgets: what it may do, e.g. ``["linf:4/255"]``.
        choose: which of several budgets: ``random`` or ``alternate`` (one for each batch), or ``worst`` (all are
            attacked, the highest loss of each image counts).
        attack: one of the attacks of ``aresbench list attacks`` with settings. Every image takes all its steps.
        iterate: which point of each image is learned from: the ``last`` one, or the ``best`` by loss (one more
            forward pass).
        labels: what the attack drives away from: ``soft`` (the mixed and smoothed labels the loss learns),
            ``smooth`` (the smoothed main label) or ``hard`` (the main label).
        batch_norm: ``eval``: the attack sees running statistics. ``train``: those of the batch, as the update will;
            running statistics are left alone.
        budget_warmup: epochs over which the budget grows linearly to its size.
        step_warmup: epochs over which the step length of the attack grows linearly to its own.
        precision: of the attack's passes, ``float32`` or ``bfloat16``.
    """

    budgets: tuple[str, ...] = ("linf:4/255",)
    choose: str = "random"
    attack: str = "pgd(steps=3, rel_step=2/3)"
    iterate: str = "last"
    labels: str = "soft"
    batch_norm: str = "eval"
    budget_warmup: float = 0.0
    step_warmup: float = 0.0
    precision: str = "float32"

    def __post_init__(self) -> None:
        one_of("threat.choose", self.choose, ("random", "alternate", "worst"))
        one_of("threat.iterate", self.iterate, ("last", "best"))
        one_of("threat.labels", self.labels, ("soft", "smooth", "hard"))
        one_of("threat.batch_norm", self.batch_norm, ("eval", "train"))
        one_of("threat.precision", self.precision, PRECISIONS)
        at_least("threat.budget_warmup", self.budget_warmup, 0)
        at_least("threat.step_warmup", self.step_warmup, 0)
        if not self.budgets:
            raise SpecError("threat.budgets is empty", 'write e.g. budgets = ["linf:4/255"]')
        for text in self.budgets:
            try:
                marks = parse_budget(text).marks
            except SpecError as error:
                raise SpecError(f"threat.budgets: {error.problem}", error.remedy) from None
            if len(marks) != 1 or not marks[0] > 0:
                raise SpecError(f"threat.budgets: {text!r} is not one size above 0", "give one size for each budget")
        climbing_attack("threat.attack", self.attack, [budget.norm for budget in self.parsed])

    @property
    def parsed(self) -> tuple[Budget, ...]:
        """The budgets, read."""
        ladders = [parse_budget(text) for text in self.budgets]
        return tuple(Budget(ladder.norm, ladder.marks[0]) for ladder in ladders)


@dataclass(frozen=True)
class Optimizer:
    """How weights move.

    Args:
        name: of timm's optimisers: ``sgd`` (Nesterov), ``momentum`` (plain), ``adamw``, ``lamb`` …
        lr: learning rate, for batches of ``lr_batch`` images.
        lr_batch: the rate is multiplied by batch / lr_batch; 0: it is taken as it stands.
        momentum, betas, eps: of the optimiser; empty or 0: its own.
        weight_decay: not applied to biases and normalisation layers.
        layer_decay: factor of the rate from one layer to the one below; 0: none.
        clip: longest gradient (L2 over all weights); 0: no limit.
    """

    name: str = "sgd"
    lr: float = 0.2
    lr_batch: int = 512
    momentum: float = 0.9
    betas: tuple[float, ...] = ()
    eps: float = 0.0
    weight_decay: float = 1e-4
    layer_decay: float = 0.0
    clip: float = 0.0

    def __post_init__(self) -> None:
        above("optimizer.lr", self.lr)
        for name in ("lr_batch", "eps", "weight_decay", "clip"):
            at_least(f"optimizer.{name}", getattr(self, name), 0)
        below_one("optimizer.momentum", self.momentum)
        share("optimizer.layer_decay", self.layer_decay)
        for beta in self.betas:
            below_one("optimizer.betas", beta)


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes, by epochs; it moves at every update.

    Args:
        epochs: length of the training, warm-up included.
        name: ``cosine``, ``linear`` (down to ``min_lr``), ``step``, ``multistep`` or ``constant``.
        warmup: epochs of linear rise from ``warmup_lr``.
        warmup_lr, min_lr: rates that are not scaled by the batch.
        decay_every, decay_at: epochs between the falls of ``step``; the epochs of those of ``multistep``.
        decay_by: factor of one fall.
    """

    epochs: int
    name: str = "cosine"
    warmup: int = 0
    warmup_lr: float = 0.0
    min_lr: float = 0.0
    decay_every: float = 30.0
    decay_at: tuple[int, ...] = ()
    decay_by: float = 0.1

    def __post_init__(self) -> None:
        at_least("schedule.epochs", self.epochs, 1)
        one_of("schedule.name", self.name, ("cosine", "linear", "step", "multistep", "constant"))
        if not 0 <= self.warmup <= self.epochs:
            raise SpecError(f"schedule.warmup = {self.warmup} of {self.epochs} epochs")
        at_least("schedule.warmup_lr", self.warmup_lr, 0)
        at_least("schedule.min_lr", self.min_lr, 0)
        above("schedule.decay_every", self.decay_every)
        above("schedule.decay_by", self.decay_by)
        share("schedule.decay_by", self.decay_by)
        if self.name == "multistep" and (not self.decay_at or list(self.decay_at) != sorted(set(self.decay_at))):
            raise SpecError(f"schedule.decay_at = {list(self.decay_at)} is no rising list of epochs")


@dataclass(frozen=True)
class Average:
    """A moving average of the weights, kept beside them.

    Args:
        decay: share of the old average at each update; 0: none is kept.
        warmup: let the decay rise from 0 at first, so that the random beginning is soon forgotten.
    """

    decay: float = 0.0
    warmup: bool = False

    def __post_init__(self) -> None:
        below_one("average.decay", self.decay)


@dataclass(frozen=True)
class Engine:
    """How a batch is worked through; part of the recipe because the numbers depend on it.

    Args:
        batch: images of one update, over all processes.
        accumulate: parts each process works through one after the other before an update.
        precision: of the training pass: ``float32``, or ``bfloat16`` (weights and updates stay in float32).
        channels_last: memory layout that convolutions prefer.
        sync_batch_norm: batch statistics over all processes instead of each one's own.
        parallel: ``ddp`` (every process holds the model) or ``fsdp`` (each holds a part: for models that are too
            large, at the price of communication in the attack).
    """

    batch: int = 512
    accumulate: int = 1
    precision: str = "float32"
    channels_last: bool = True
    sync_batch_norm: bool = False
    parallel: str = "ddp"

    def __post_init__(self) -> None:
        at_least("engine.batch", self.batch, 2)
        at_least("engine.accumulate", self.accumulate, 1)
        one_of("engine.precision", self.precision, PRECISIONS)
        one_of("engine.parallel", self.parallel, ("ddp", "fsdp"))
        if self.batch % self.accumulate:
            raise SpecError(
                f"engine.batch = {self.batch} does not fall into engine.accumulate = {self.accumulate} equal parts"
            )


@dataclass(frozen=True)
class Watch:
    """How the run is watched on held-out images.

    Args:
        every: epochs between two measurements.
        attack: that measures robust accuracy, at the (first) budget of the threat.
        overfitting: what to do when robustness collapses (catastrophic overfitting): ``stop``, ``rollback`` (go
            back to the weights before it and train on with ``rescue``), or ``ignore``.
        gap: it has collapsed when FGSM accuracy on held-out images exceeds PGD-10 accuracy by this share, or when
            PGD-10 accuracy falls below half its best.
        check_every: updates between two looks; 0: ten times an epoch.
        rescue: the attack after a rollback.
    """

    every: int = 1
    attack: str = "pgd(steps=10)"
    overfitting: str = "stop"
    gap: float = 0.2
    check_every: int = 0
    rescue: str = "pgd(steps=2, rel_step=0.75)"

    def __post_init__(self) -> None:
        at_least("watch.every", self.every, 1)
        one_of("watch.overfitting", self.overfitting, ("stop", "rollback", "ignore"))
        above("watch.gap", self.gap)
        share("watch.gap", self.gap)
        at_least("watch.check_every", self.check_every, 0)
        named("attacks", "watch.attack", self.attack)
        climbing_attack("watch.rescue", self.rescue, ())


@dataclass(frozen=True)
class Machine:
    """What may differ from machine to machine without changing the weights; no part of the recipe's identity.

    Args:
        workers: processes that read and augment images; 0: the training process does it.
        prefetch: batches each worker keeps ready.
        compile: let torch compile the passes of attack and training.
        checkpoint_minutes: time between two checkpoints.
        log_every: updates between two lines of the log.
        tensorboard: also write TensorBoard's files.
    """

    workers: int = 4
    prefetch: int = 2
    compile: bool = False
    checkpoint_minutes: float = 10.0
    log_every: int = 20

    def __post_init__(self) -> None:
        at_least("machine.workers", self.workers, 0)
        at_least("machine.prefetch", self.prefetch, 1)
        above("machine.checkpoint_minutes", self.checkpoint_minutes)
        at_least("machine.log_every", self.log_every, 1)

    tensorboard: bool = False
