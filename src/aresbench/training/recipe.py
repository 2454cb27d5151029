"""A recipe: everything that decides what weights a training ends with, in one small readable file."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from aresbench.core.budget import Budget, parse_budget
from aresbench.core.errors import SpecError, UnknownName, did_you_mean
from aresbench.core.preprocessing import INTERPOLATIONS, Preprocessing
from aresbench.core.spec import parse_value

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Model:
    """What is trained.

    Args:
        architecture: ``timm:NAME`` (no tag), ``small-cnn`` or ``./file.py:factory``.
        arguments: further settings of a timm architecture, e.g. ``{embed_dim = 192}``.
        initial: weights the training begins with, as ``load_model`` names them (``timm:convnext_base.fb_in22k``,
            ``weights.safetensors?arch=timm:resnet50``), or a folder of an earlier training; empty: random ones.
            A head of other classes is matched by class names, or else begins anew.
        activation: ``gelu`` or ``silu`` in place of every ReLU; empty: as the architecture has it.
        stem: ``convolutional`` for a stack of strided 3×3 convolutions in place of a patch embedding; empty: as
            the architecture has it.
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
        color_jitter: strength of the random brightness, contrast and saturation; off under ``policy``.
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
        for name in ("scale", "ratio"):
            pair = getattr(self, name)
            if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
                raise SpecError(f"augment.{name} = {list(pair)} is no pair of a lowest and a highest number")
        if not 0 <= self.smoothing < 1:
            raise SpecError(f"augment.smoothing = {self.smoothing} is not in [0, 1)")


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
        if not self.budgets:
            raise SpecError("threat.budgets is empty", 'write e.g. budgets = ["linf:4/255"]')
        for text in self.budgets:
            if len(parse_budget(text).marks) != 1:
                raise SpecError(f"threat.budgets: {text!r} is a ladder of sizes", "give one size for each budget")

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
        at_least("optimizer.lr_batch", self.lr_batch, 0)


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
        if not 0 <= self.decay < 1:
            raise SpecError(f"average.decay = {self.decay} is not in [0, 1)")


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
    tensorboard: bool = False


@dataclass(frozen=True)
class Recipe:
    """A training, declared: model, data, augmentation, threat, method, optimiser, schedule, averaging.

    Args:
        name, title, paper, notes: what it is called, in a line; where it is from; where it departs from there.
        method: training method of ``aresbench list methods`` with settings, e.g. ``trades(beta=6)``.
        perturb: adversarial weight perturbation on top of it, e.g. ``awp(gamma=0.005)``; empty: none.
        seed: of every random draw.
    """

    model: Model
    data: Data
    schedule: Schedule
    name: str = ""
    title: str = ""
    paper: str = ""
    notes: tuple[str, ...] = ()
    method: str = "adversarial"
    perturb: str = ""
    seed: int = 0
    augment: Augment = field(default_factory=Augment)
    threat: Threat = field(default_factory=Threat)
    optimizer: Optimizer = field(default_factory=Optimizer)
    average: Average = field(default_factory=Average)
    engine: Engine = field(default_factory=Engine)
    watch: Watch = field(default_factory=Watch)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        part = self.engine.batch / self.engine.accumulate
        if (self.augment.mixup or self.augment.cutmix) and part % 2:
            raise SpecError(
                f"mixing pairs images, and batches of {part:g} images have an odd one",
                "make engine.batch / engine.accumulate even",
            )

    @property
    def lr(self) -> float:
        """The learning rate after scaling by the batch."""
        scale = self.engine.batch / self.optimizer.lr_batch if self.optimizer.lr_batch else 1.0
        return self.optimizer.lr * scale

    def identity(self) -> dict[str, Any]:
        """What decides the weights, as plain data."""
        words = ("name", "title", "paper", "notes", "machine")
        return {key: value for key, value in plain(self).items() if key not in words}

    @property
    def hash(self) -> str:
        """12 hex digits that change with anything that decides the weights."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def toml(self) -> str:
        """The whole recipe, every setting written out; ``read_recipe`` reads it back."""
        lines: list[str] = []
        tables: dict[str, Any] = plain(self)
        lines += [f"{key} = {_toml(value)}" for key, value in tables.items() if not isinstance(value, dict)]
        for key, value in tables.items():
            if isinstance(value, dict):
                lines += ["", f"[{key}]", *(f"{name} = {_toml(item)}" for name, item in value.items())]
        return "\n".join(lines) + "\n"


def plain(value: Any) -> Any:
    """A recipe (or a part of it) as dictionaries, lists, numbers and texts."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # TOML's numbers, truth values and basic strings are JSON's


def recipe_names() -> list[str]:
    """Names of the built-in recipes."""
    folder = resources.files("aresbench") / "recipes"
    return sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".toml"))


def load_recipe(name: str | Path, changes: Sequence[str] | Mapping[str, Any] = ()) -> Recipe:
    """A built-in recipe by name, or one of your own from a ``.toml`` file, with changes.

    Args:
        name: ``digits-pgd``, ``./mine.toml``.
        changes: ``["schedule.epochs=10", "threat.attack=pgd(steps=5)"]``, or the same as a mapping.

    Raises:
        UnknownName: no such recipe or file.
        SpecError: a key or a value the recipe does not know; the nearest right key is named.
    """
    text, where = str(name), str(name)
    if text.endswith(".toml"):
        path = Path(text).expanduser()
        if not path.is_file():
            raise UnknownName(f"there is no recipe file {text}", f"the path is relative to {Path.cwd()}")
        body = path.read_text("utf-8")
    elif text in recipe_names():
        body = (resources.files("aresbench") / "recipes" / f"{text}.toml").read_text("utf-8")
    else:
        raise UnknownName(
            f"there is no recipe called {text!r}",
            did_you_mean(text, recipe_names()) or "`aresbench list recipes` shows them all",
        )
    try:
        raw = tomllib.loads(body)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{where} is not valid TOML: {error}") from None
    raw.setdefault("name", Path(text).stem)
    pairs = changes.items() if isinstance(changes, Mapping) else map(_pair, changes)
    for key, value in pairs:
        _put(raw, key, value, where)
    return read_recipe(raw, where)


def read_recipe(raw: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from its parsed TOML; ``where`` names it in errors.

    Raises:
        SpecError: an unknown key, a missing one, or a value of the wrong kind.
    """
    recipe: Recipe = _read(Recipe, raw, where, "")
    return recipe


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SpecError(f"{text!r} is not a change to a recipe", "write key=value, e.g. schedule.epochs=10")
    return key.strip(), parse_value(value)


def _put(raw: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Write a change into the parsed file; the reader then judges it as if it had stood there."""
    path = key.split(".")
    if len(path) == 1 and key not in {f.name for f in fields(Recipe)}:
        homes = [f.name for f in fields(Recipe) if key in _names(f.name)]
        if homes:
            raise SpecError(f"{where}: {key!r} stands in a part of the recipe", f"write {homes[0]}.{key}=…")
    at = raw
    for part in path[:-1]:
        at = at.setdefault(part, {})
        if not isinstance(at, dict):
            raise SpecError(f"{where}: {part!r} in {key!r} has no parts")
    at[path[-1]] = value


def _names(section: str) -> list[str]:
    kind = get_type_hints(Recipe)[section]
    return [f.name for f in fields(kind)] if is_dataclass(kind) else []


def _read(kind: Any, raw: Any, where: str, section: str) -> Any:
    """A dataclass from a mapping whose keys and kinds are checked."""
    if not isinstance(raw, Mapping):
        raise SpecError(f"{where}: {section} is a part of the recipe, not a value", f"write [{section}] and its keys")
    hints = get_type_hints(kind)
    known: dict[str, Field[Any]] = {f.name: f for f in fields(kind)}
    inside = f"[{section}]: " if section else ""
    for key in raw:
        if key not in known:
            raise SpecError(f"{where}: {inside}unknown key {key!r}", _near(key, known, section))
    values: dict[str, Any] = {}
    for name, f in known.items():
        if name in raw:
            full = f"{section}.{name}" if section else name
            values[name] = (
                _read(hints[name], raw[name], where, name)
                if is_dataclass(hints[name])
                else _cast(hints[name], raw[name], where, full)
            )
        elif f.default is MISSING and f.default_factory is MISSING:
            raise SpecError(
                f"{where}: {inside}{name} is missing",
                f"write [{name}]" if is_dataclass(hints[name]) else f"write {name} = …",
            )
    try:
        return kind(**values)
    except SpecError as error:
        raise SpecError(f"{where}: {error.problem}", error.remedy) from None


def _near(key: str, known: Mapping[str, Any], section: str) -> str:
    """The nearest right key, here or in another part."""
    if section and (near := did_you_mean(key, known)):
        return near
    everywhere = [*known, *(f"{f.name}.{k}" for f in fields(Recipe) for k in _names(f.name))]
    ends = {path.rpartition(".")[2]: path for path in everywhere}
    return did_you_mean(key, [*everywhere, *ends]) or f"its keys are {', '.join(known)}"


def _cast(hint: Any, value: Any, where: str, key: str) -> Any:
    """The value in the kind a field has; whole numbers may stand for fractions, never the other way round."""
    if get_origin(hint) is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_cast(get_args(hint)[0], item, where, key) for item in items)
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for kind in kinds:
        plain_kind = get_origin(kind) or kind
        if plain_kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if plain_kind is str and isinstance(value, int | float) and not isinstance(value, bool):
            continue
        if isinstance(value, plain_kind) and (plain_kind is bool) == isinstance(value, bool):
            return value
    words = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", dict: "a table"}
    wanted = " or ".join(words.get(get_origin(kind) or kind, str(kind)) for kind in kinds)
    raise SpecError(f"{where}: {key} = {value!r} is not {wanted}")


def one_of(key: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a word that is none of ``choices``."""
    if value not in choices:
        words = ", ".join(repr(choice) for choice in choices)
        raise SpecError(f"{key} = {value!r} is none of {words}", did_you_mean(value, [c for c in choices if c]))


def share(key: str, value: float) -> None:
    """Refuse what is no share of one."""
    if not 0 <= value <= 1:
        raise SpecError(f"{key} = {value} is not between 0 and 1")


def above(key: str, value: float) -> None:
    """Refuse what is not positive."""
    if not value > 0:
        raise SpecError(f"{key} = {value} must be above 0")


def at_least(key: str, value: float, least: float) -> None:
    """Refuse what is too small."""
    if value < least:
        raise SpecError(f"{key} = {value} must be at least {least}")
