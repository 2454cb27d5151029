"""What a training tells while it runs: a line of JSON now and then, TensorBoard if it is there, time left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aresbench.core.errors import SpecError
from aresbench.core.words import duration
from aresbench.store.files import explain, write_atomic
from aresbench.training.images import Batch
from aresbench.training.learner import Learner
from aresbench.training.lesson import ClassroomLesson

LOG = "log.jsonl"
WAITING = 0.2  # this share of an epoch spent waiting for images is told
WORTH_TELLING = 5.0  # seconds


class Journal:
    """The log of a training; of several processes only the first writes.

    Args:
        folder: of the training.
        learner: what learns.
        tell: called with a line for people.
    """

    def __init__(self, folder: Path, learner: Learner, tell: Callable[[str], None]) -> None:
        self.path, self.learner, self.tell = folder / LOG, learner, tell
        self.seconds = self.gradients = 0.0
        self._board = _board(folder) if learner.recipe.machine.tensorboard and learner.world.first else None
        self._losses: list[Tensor] = []
        self._gradients: list[Tensor] = []  # counted where they are made: nobody waits for a GPU at every update
        self._images = 0
        self._waited = 0.0
        self._since = time.monotonic()
        self._first = learner.step, self._since

    def timed(self, source: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, with the time spent waiting for them noted; people are told where it is much of an epoch."""
        each = iter(source)
        epoch, waited, since = -1, 0.0, 0.0
        while True:
            began = time.monotonic()
            batch = next(each, None)
            now = time.monotonic()
            self._waited += now - began
            if batch is None or batch.epoch != epoch:
                self._tell_waiting(epoch, waited, began - since)
                if batch is None:
                    return
                # How long workers take to start says nothing about the rest.
                epoch, waited, since = batch.epoch, 0.0, now
            else:
                waited += now - began
            yield batch

    def _tell_waiting(self, epoch: int, waited: float, seconds: float) -> None:
        if waited > max(WORTH_TELLING, WAITING * seconds):
            self.tell(
                f"epoch {epoch + 1}: {waited / seconds:.0%} of the time went by waiting for images; "
                "`aresbench doctor RECIPE` says what to change"
            )

    def add(self, lessons: Sequence[ClassroomLesson]) -> None:
        """Take note of one update."""
        for lesson in lessons:
            self._losses += lesson.losses
            self._images += len(lesson.x)
            self._gradients.append(lesson.gradients)

    def due(self) -> bool:
        """Is it time for a line?"""
        return self.learner.step % self.learner.recipe.machine.log_every == 0

    def flush(self) -> float | None:
        """Write a line about the updates since the last one; their mean loss over all processes, if there were any."""
        if not self._losses:
            return None
        learner, world = self.learner, self.learner.world
        seconds = max(1e-9, time.monotonic() - self._since)
        told = torch.tensor(
            [
                torch.stack(self._losses).mean().item(),
                self._images,
                torch.stack(self._gradients).sum().item(),
                self._waited / seconds,
            ],
            dtype=torch.float32,
        )
        loss, images, gradients, waiting = world.sum(told).tolist()
        loss /= world.size
        self.seconds += seconds
        self.gradients += gradients
        self._write(
            "updates",
            loss=loss,
            lr=learner.lr,
            images_per_second=images / seconds,
            gradients_per_second=gradients / seconds,
            waiting=waiting / world.size,
        )
        left = (learner.total - learner.step) * (time.monotonic() - self._first[1])
        left /= max(1, learner.step - self._first[0])
        self.tell(
            f"epoch {learner.epoch:.2f} of {learner.recipe.schedule.epochs} · loss {loss:.3f} · "
            f"{gradients / seconds:,.0f} image gradients/s · {duration(left)} left"
        )
        self._losses, self._gradients, self._images, self._waited = [], [], 0, 0.0
        self._since = time.monotonic()
        return loss

    def measured(self, lines: Sequence[dict[str, Any]]) -> None:
        """Write down accuracies on held-out images."""
        for line in lines:
            self._write("measured", **line)
            self.tell(
                f"epoch {self.learner.epoch:.0f}: {line['weights']} weights, held-out images: clean "
                f"{line['clean']:.1%}, robust {line['robust']:.1%}"
            )

    def guarded(self, verdict: Any) -> None:
        """Write down a look at single-step against multi-step robustness."""
        self._write("guard", fgsm=verdict.fgsm, pgd=verdict.pgd, collapsed=verdict.collapsed)
        if verdict.collapsed:
            self.tell(verdict.message)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"seconds": self.seconds, "gradients": self.gradients}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint: forget lines about updates that will be done again."""
        self.seconds, self.gradients = state["seconds"], state["gradients"]
        if self.learner.world.first and self.path.is_file():
            lines = self.path.read_text("utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.learner.step]
            write_atomic(self.path, "".join(kept).encode())
        self._losses, self._gradients, self._images, self._waited = [], [], 0, 0.0
        self._since = time.monotonic()
        self._first = self.learner.step, self._since

    def _write(self, kind: str, **facts: Any) -> None:
        if not self.learner.world.first:
            return
        line = {"kind": kind, "step": self.learner.step, "epoch": round(self.learner.epoch, 4), **facts}
        with explain(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            who = f"/{facts['weights']}" if "weights" in facts else ""
            for name, value in facts.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self._board.add_scalar(f"{kind}/{name}{who}", value, self.learner.step)


def _board(folder: Path) -> Any:
    """TensorBoard's writer of event files in the training's folder.

    Raises:
        SpecError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SpecError(
            f"machine.tensorboard = true, and TensorBoard cannot be imported: {error}",
            'pip install "aresbench[tensorboard]", or leave it off: log.jsonl has the same numbers',
        ) from error
    return SummaryWriter(str(folder / "tensorboard"))
