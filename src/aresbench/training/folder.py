"""The folder of a training: one recipe, and one run at a time."""

from __future__ import annotations

import fcntl
import os
import socket
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aresbench.core.errors import StoreError
from aresbench.store.files import explain, write_atomic
from aresbench.training.recipe import Recipe, read_recipe
from aresbench.training.world import World

RECIPE, LOCK = "recipe.toml", ".lock"


@contextmanager
def held(folder: Path, world: World) -> Iterator[None]:
    """The folder as this run's own: a second run that comes meanwhile is refused.

    The system lets go of it when the process ends, however it ends.

    Raises:
        StoreError: another run is at work there, or the folder may not be written.
    """
    handle: list[int] = []
    world.once(lambda: handle.append(_lock(folder)))
    try:
        yield
    finally:
        for number in handle:
            os.close(number)


def _lock(folder: Path) -> int:
    """Lock the folder and write down who holds it."""
    path = folder / LOCK
    with explain(path):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # A record lock belongs to this process alone: workers that outlive it by some seconds do not hold it.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
        os.close(handle)
        raise StoreError(
            f"a training is at work in {folder} ({holder or 'another process'})",
            "wait for it or stop it, or choose another folder with --out",
        ) from None
    except OSError:  # a file system without locks: the run is nobody's worse than without this care
        return handle
    with explain(path):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return handle


def claim(recipe: Recipe, folder: Path) -> None:
    """Write the recipe into the folder, or see that it is the one that is there.

    A recipe without any checkpoint or weights beside it is no training: it may have been refused, and mended since.

    Raises:
        StoreError: another training lies there; the first settings that differ are named.
    """
    path = folder / RECIPE
    begun = any(folder.glob("checkpoints/step-*")) or any(folder.glob("*.safetensors"))
    if begun and path.is_file():
        other = read_recipe(tomllib.loads(path.read_text("utf-8")), str(path))
        if other.hash != recipe.hash:
            raise StoreError(
                f"{folder} holds the training of another recipe: {difference(other.identity(), recipe.identity())}",
                "choose another folder with --out, or go on with the recipe that is there: "
                f"aresbench train {path} --out {folder}",
            )
    write_atomic(path, recipe.toml().encode())


def difference(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """The settings in which two recipes differ, at most three; of each what ``Recipe.identity`` says."""
    before, now = _flat(there), _flat(asked)
    found = [
        f"{name} is {before.get(name)!r} there and {now.get(name)!r} here"
        for name in {**now, **before}
        if before.get(name) != now.get(name)
    ]
    return "; ".join(found[:3]) + ("; …" if len(found) > 3 else "")


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their full names."""
    flat: dict[str, Any] = {}
    for key, value in identity.items():
        flat |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
    return flat
