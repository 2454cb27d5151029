"""The training loop: one readable loop for standard and adversarial training, on one process or many."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from aresbench.core.errors import AresError, DataError
from aresbench.data.base import Dataset
from aresbench.data.load import load_dataset
from aresbench.ops.memory import keep_freed_memory
from aresbench.ops.random import key_of
from aresbench.training import checkpoint
from aresbench.training.early import check
from aresbench.training.folder import claim, held
from aresbench.training.images import Batch, batches, random_states_kept, seed_everything
from aresbench.training.journal import Journal
from aresbench.training.keeper import Keeper, Trained
from aresbench.training.learner import Learner, make_learner
from aresbench.training.lesson import ClassroomLesson, mixed
from aresbench.training.overfitting import Guard
from aresbench.training.recipe import Recipe, load_recipe
from aresbench.training.watch import HeldOut
from aresbench.training.world import World, joined


class TrainingError(AresError, ArithmeticError):
    """A training cannot go on: its loss is no number, or its robustness has collapsed."""


class Interrupted(AresError, RuntimeError):
    """A training was asked to stop; its checkpoint is written."""


def train(
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    changes: Sequence[str] | Mapping[str, Any] = (),
    *,
    device: str | torch.device | None = None,
    progress: Callable[[str], None] | None = None,
) -> Trained:
    """Train a classifier as a recipe says; the same call again goes on where it stopped.

    Under torchrun or Slurm every process calls it. What follows the newest checkpoint is done again, and comes out
    the same.

    Args:
        recipe: name (``aresbench list recipes``), ``.toml`` file, or a ``Recipe``.
        out: folder of weights, card, log and checkpoints; default: ``models/NAME``.
        changes: to a recipe that is named: ``["schedule.epochs=10"]`` or ``{"schedule.epochs": 10}``.
        device: where to train; default: a GPU if there is one.
        progress: called with a line of text now and then.

    Raises:
        SpecError, UnknownName: the recipe cannot be read.
        DataError: the data are missing, or have a single class.
        ModelError: the model cannot be built.
        StoreError: ``out`` holds another training, or cannot be written.
        TrainingError: the loss is no number any more, or robustness has collapsed; the last good checkpoint is named.
        Interrupted: a signal asked it to stop.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, changes)
    check(recipe)
    folder = Path(out) if out is not None else Path("models") / recipe.name
    with joined(device) as world, held(folder, world), random_states_kept(), _asked_to_stop() as asked:
        return _train(recipe, folder, world, progress or (lambda line: None), asked)


def _train(recipe: Recipe, folder: Path, world: World, tell: Callable[[str], None], asked: list[int]) -> Trained:
    world.once(lambda: claim(recipe, folder))
    world.once(lambda: checkpoint.tidy(folder))
    if world.device.type == "cpu":
        keep_freed_memory()
    learned, held_out = datasets(recipe)
    learner = make_learner(recipe, learned.classes, len(learned), world)
    guard, keeper = Guard(learner), Keeper(folder, learner)
    watched = HeldOut(held_out, learner.classifier, world)
    journal = Journal(folder, learner, tell)

    def save() -> None:
        """Write a checkpoint, unless the weights are spoilt."""
        _check(journal.flush(), learner, folder, weights=True)
        parts = {"guard": guard.state(), "journal": journal.state()}
        state = learner.state() | parts | {"size": world.size}
        world.once(lambda: checkpoint.save(folder, recipe, learner.step, state))

    def restore() -> bool:
        """Go on from the newest checkpoint, if there is one."""
        found = world.once(lambda: checkpoint.newest(folder, recipe))
        if found is None:
            return False
        saved = checkpoint.read(found.path)
        learner.load(saved)
        guard.load(saved["guard"])
        keeper.load()
        learner.notes += [f"{damage}; went on from update {learner.step:,}" for damage in found.damaged]
        if saved["size"] != world.size:
            learner.notes.append(f"from update {learner.step:,} on {world.size} processes instead of {saved['size']}")
        journal.load(saved["journal"])
        return True

    restore()
    written = time.monotonic()
    while learner.step < learner.total:
        for batch in journal.timed(batches(learned, recipe, world, learner.step)):
            journal.add(learn(learner, batch))
            if journal.due():
                _check(journal.flush(), learner, folder)
            if learner.step % learner.per_epoch == 0:
                learner.share_statistics()
                if learner.step // learner.per_epoch % recipe.watch.every == 0 or learner.step == learner.total:
                    _check(journal.flush(), learner, folder, weights=True)
                    journal.measured(keeper.judge(watched))
            good = False
            if guard.due():
                _check(journal.flush(), learner, folder, weights=True)
                verdict = guard.look(watched)
                journal.guarded(verdict)
                if verdict.collapsed and not guard.act(restore):
                    raise TrainingError(verdict.message, _last_good(folder))
                if verdict.collapsed:
                    break  # rolled back: the batches begin again at an earlier update
                good = True
            # All processes stop or save at the same update, whoever was asked or looked at the clock.
            late = not guard.active and time.monotonic() - written > 60 * recipe.machine.checkpoint_minutes
            stop, due = world.any(bool(asked), late or good)
            if stop or due:
                save()
                written = time.monotonic()
            if stop:
                raise Interrupted(
                    f"stopped after {learner.step:,} of {learner.total:,} updates, as asked",
                    "the same command goes on from there",
                )
    save()
    return keeper.finish(journal)


def learn(learner: Learner, batch: Batch) -> list[ClassroomLesson]:
    """One update: mix the images, and let the method learn from them in as many parts as the recipe says."""
    recipe, world = learner.recipe, learner.world
    seed_everything(key_of(recipe.seed, "update", learner.step, world.rank))
    layout = torch.channels_last if recipe.engine.channels_last else torch.contiguous_format
    lessons = []
    parts = recipe.engine.accumulate
    size = len(batch.y) // parts
    for part in range(parts):
        rows = slice(part * size, (part + 1) * size)
        x = batch.x[rows].to(world.device, non_blocking=True).float().div_(255).contiguous(memory_format=layout)
        x, labels = mixed(x, batch.y[rows].to(world.device), recipe, learner.outputs)
        lesson = ClassroomLesson(learner, x, labels, batch.ids[rows], batch.epoch, part, parts)
        learner.method.learn(lesson)
        lessons.append(lesson)
    learner.advance()
    return lessons


def datasets(recipe: Recipe) -> tuple[Dataset, Dataset]:
    """The images to learn from, and those held out.

    Raises:
        DataError: a single class, too few images, or held-out images of other classes.
    """
    d = recipe.data
    whole = load_dataset(d.train)
    if len(set(whole.labels.tolist())) < 2:
        name = whole.classes.names[int(whole.labels[0])]
        raise DataError(
            f"all {len(whole)} images of {d.train} are of one class ({name})", "a classifier needs two classes or more"
        )
    if d.validation:
        held_out = load_dataset(d.validation)
        if held_out.classes != whole.classes:
            raise DataError(
                f"{d.validation} has other classes than {d.train}", "watch the run on images of its classes"
            )
        learned = whole
        held_out = held_out[: d.validation_images] if d.validation_images else held_out
    else:
        if not 0 < d.held_out < len(whole):
            raise DataError(
                f"data.held_out = {d.held_out} of {len(whole)} images", "hold out some and learn from the rest"
            )
        held_out, learned = whole[: d.held_out], whole[d.held_out :]
    if len(learned) < recipe.engine.batch:
        raise DataError(
            f"{len(learned)} images fill no batch of {recipe.engine.batch}",
            f"set engine.batch to {len(learned)} or less",
        )
    return learned, held_out


def _check(loss: float | None, learner: Learner, folder: Path, weights: bool = False) -> None:
    """Stop where the loss is no number any more, or the weights are none (a finite loss can have an infinite slope)."""
    if loss is not None and not abs(loss) < float("inf"):
        spoilt = f"the loss is {loss}"
    elif weights and not learner.sound():
        spoilt = "weights are no finite numbers"
    else:
        return
    raise TrainingError(
        f"{spoilt} near update {learner.step:,} of {learner.total:,}",
        f"{_last_good(folder)}; a smaller optimizer.lr, a longer schedule.warmup or optimizer.clip=1 may help",
    )


def _last_good(folder: Path) -> str:
    path = checkpoint.newest_path(folder)
    return f"the last good checkpoint is {path}" if path else "there is no earlier checkpoint"


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Collects Ctrl-C, SIGTERM and SIGUSR1 (Slurm sends these before it takes the machine back) and lets nobody die.

    Who presses Ctrl-C twice does not want to wait.
    """
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    except ValueError:  # not the main thread: signals are somebody else's
        before = {}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
