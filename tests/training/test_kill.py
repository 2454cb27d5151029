"""A training that is killed at any moment, and begun again, ends with the very weights of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plugins.forked import Forge, Outcome

import aresbench.training.loop as loop
from aresbench.store import files
from aresbench.training import checkpoint, keeper
from aresbench.training.learner import Learner
from aresbench.training.recipe import load_recipe
from aresbench.training.watch import HeldOut

KILLS = 20
RECIPE = """
[model]
architecture = "small-cnn"
size = 32
resize = 32
[data]
train = "npz:learned.npz"
validation = "npz:watched.npz"
[augment]
crop = "shift"
padding = 2
mixup = 0.2
smoothing = 0.1
erase = 0.5
[threat]
budgets = ["linf:8/255"]
attack = "pgd(steps=2, rel_step=0.75)"
budget_warmup = 2
[optimizer]
name = "adamw"
lr = 3e-3
lr_batch = 0
[schedule]
epochs = 12
warmup = 2
[average]
decay = 0.8
[engine]
batch = 12
[watch]
attack = "pgd(steps=2)"
[machine]
workers = 0
checkpoint_minutes = 1e-9
log_every = 5
"""


@pytest.fixture(scope="module")
def recipe(coloured: Callable[[str, int], Path]) -> Path:
    """A recipe of 72 updates on 72 images, of which each measures itself on 30 others after every sixth."""
    return coloured(RECIPE, 72)


def run(recipe: str, out: str, changes: list[str], death: dict[str, Any] | None = None) -> list[str]:
    """Train in this process; die on the way if so ordered. Returns the notes of the card."""
    if death is not None and death["rank"] in (None, int(os.environ.get("RANK", "0"))):
        _arrange(death)
    return list(loop.train(load_recipe(recipe, changes), out).card["notes"])


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _arrange(death: dict[str, Any]) -> None:
    """Kill this process some updates from now: after a moment, or at a delicate place."""
    reached = threading.Event()
    left = [death["updates"]]
    advance = Learner.advance

    def counted(self: Learner) -> None:
        advance(self)
        left[0] -= 1
        if left[0] <= 0:
            reached.set()

    Learner.advance = counted  # type: ignore[method-assign]
    if left[0] <= 0:
        reached.set()
    if death["place"] == "anywhere":

        def wait() -> None:
            reached.wait()
            time.sleep(death["moment"])
            _die()

        threading.Thread(target=wait, daemon=True).start()
        return

    def deadly(work: Callable[..., Any], before: Callable[..., None] = lambda *args: None) -> Callable[..., Any]:
        def killed(*args: Any, **named: Any) -> Any:
            if reached.is_set():
                before(*args)
                _die()
            return work(*args, **named)

        return killed

    def half(handle: int, data: bytes) -> None:
        os.write(handle, data[: len(data) // 2])

    place = death["place"]
    if place == "half a checkpoint":
        files.write_all = deadly(files.write_all, half)
    elif place == "before the name":
        files.os.replace = deadly(os.replace)  # type: ignore[attr-defined]
    elif place == "old checkpoints":
        checkpoint._all = deadly(checkpoint._all)
    elif place == "measurement":
        HeldOut.measure = deadly(HeldOut.measure)  # type: ignore[method-assign]
    elif place == "half the weights":
        judge, write = keeper.Keeper.judge, keeper.write_atomic

        def forgetful(self: keeper.Keeper, watched: HeldOut) -> Any:
            self.best = None  # so that there is something to write
            return judge(self, watched)

        def guarded(path: Path, data: bytes) -> None:
            files.write_all = deadly(files.write_all, half)
            write(path, data)

        keeper.Keeper.judge = forgetful  # type: ignore[method-assign]
        keeper.write_atomic = guarded
    elif place == "after the weights":
        keeper.Keeper._write = _then_die(keeper.Keeper._write, reached)  # type: ignore[method-assign]
    else:
        raise ValueError(place)


def _then_die(work: Callable[..., None], when: threading.Event) -> Callable[..., None]:
    def killed(*args: Any, **named: Any) -> None:
        work(*args, **named)
        if when.is_set():
            _die()

    return killed


WRITING = ("half a checkpoint", "before the name", "old checkpoints", "half the weights")  # what process 0 does


def deaths(seed: int, ranks: tuple[int | None, ...]) -> list[dict[str, Any]]:
    """Where and when the processes die: at every delicate place, and at random moments."""
    rng = random.Random(seed)
    places = [*WRITING, "measurement", *["anywhere"] * (KILLS - len(WRITING) - 2)]
    rng.shuffle(places)
    return [
        {
            "place": place,
            "updates": rng.randint(0, 2),
            "moment": rng.uniform(0, 0.02),
            "rank": rng.choice(ranks) if place in ("measurement", "anywhere") else 0,
        }
        for place in ("after the weights", *places)  # the first measurement always leaves weights
    ]


def left_behind(folder: Path) -> dict[str, Any]:
    """What a training leaves, without the time it took."""
    card = json.loads((folder / "card.json").read_text("utf-8"))
    del card["training"]["hours"]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return {
        "card": card,
        "measured": [line for line in lines if line["kind"] == "measured"],
        "weights": (folder / "weights.safetensors").read_bytes(),
        "last": (folder / "last.safetensors").read_bytes(),
        "files": sorted(path.name for path in folder.iterdir()),
    }


def survived(forge: Forge, order: dict[str, Any], plan: list[dict[str, Any]]) -> int:
    """Train and die as planned, then to the end; how many were killed."""
    killed = 0
    for death in plan:
        ends = forge.run(__file__, "run", **order, death=death)
        killed += any(end.status == -signal.SIGKILL for end in ends)
        for end in ends:  # the others notice that somebody is gone; none goes on alone
            assert end.status != 0 or not any(e.status < 0 for e in ends)
    assert all_well(forge.run(__file__, "run", **order))
    return killed


def all_well(ends: list[Outcome]) -> bool:
    assert [end.error for end in ends] == [""] * len(ends)
    return all(end.status == 0 for end in ends)


@pytest.mark.parametrize(("processes", "ranks"), [(1, (0,)), (2, (0, 1, None))])
def test_twenty_kills_leave_the_weights_of_an_uninterrupted_run(
    forge: Forge, recipe: Path, tmp_path: Path, processes: int, ranks: tuple[int | None, ...]
) -> None:
    order = {"processes": processes, "recipe": str(recipe), "changes": []}
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert all_well(forge.run(__file__, "run", **order, out=str(whole)))
    killed = survived(forge, order | {"out": str(torn)}, deaths(7 + processes, ranks))
    assert killed >= KILLS - 2  # a run that came to its end before its death is no kill
    assert left_behind(torn) == left_behind(whole)
    assert not list(torn.rglob(".tmp-*"))
