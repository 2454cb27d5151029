"""Checkpoints: whole or absent, two of them kept, everything in them that the next step depends on.

The name of a checkpoint holds the step and the beginning of the SHA-256 of its bytes, so that a damaged one is known
as such and the one before it is taken.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aresbench.core.errors import StoreError
from aresbench.store.files import explain, sweep, write_atomic
from aresbench.training.folder import difference
from aresbench.training.recipe import Recipe

FOLDER = "checkpoints"
FORMAT = 1
KEPT = 2
_NAME = re.compile(r"step-(\d{9})-([0-9a-f]{16})\.pt")


@dataclass(frozen=True)
class Found:
    """A checkpoint that can be gone on from.

    Args:
        path: where it lies.
        damaged: what is wrong with newer ones.
    """

    path: Path
    damaged: tuple[str, ...] = ()


def save(folder: Path, recipe: Recipe, step: int, content: Mapping[str, Any]) -> Path:
    """Write the checkpoint of a step and let older ones go.

    Args:
        folder: of the training.
        recipe: of the training.
        step: updates made.
        content: tensors and plain values.

    Raises:
        StoreError: the disk is full or the folder may not be written; older checkpoints are as before.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "recipe": recipe.identity(), **content}, buffer)
    data = buffer.getvalue()
    path = folder / FOLDER / f"step-{step:09d}-{_digest(data)}.pt"
    write_atomic(path, data)
    # A second run of the same step on other processes has other bytes: the last one written is the one to keep.
    for old in [p for p in _all(folder) if _step(p) <= step and p != path][: -KEPT + 1]:
        old.unlink(missing_ok=True)
    return path


def newest_path(folder: Path) -> Path | None:
    """Where the newest checkpoint of a training's folder lies."""
    return next(iter(reversed(_all(folder))), None)


def newest(folder: Path, recipe: Recipe) -> Found | None:
    """The newest checkpoint that can be read; None where there is none.

    Raises:
        StoreError: there are checkpoints, and none can be read, or the newest is of another recipe or format.
    """
    reasons: list[str] = []
    for path in reversed(_all(folder)):
        with explain(path):
            data = path.read_bytes()
        if not path.stem.endswith(_digest(data)):
            reasons.append(f"{path.name} is damaged (its bytes are not those that were written)")
            continue
        _check(path, torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), recipe)
        return Found(path, tuple(reasons))
    if reasons:
        raise StoreError(
            f"no checkpoint in {folder / FOLDER} can be read: {'; '.join(reasons)}",
            "restore one from a copy, or begin anew in another folder with --out",
        )
    return None


def read(path: Path) -> dict[str, Any]:
    """What was saved.

    Raises:
        StoreError: it is not there, on this machine.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read here: {error.strerror}",
            "the folder of a training must lie where the processes of all machines see it",
        ) from error
    return content


def tidy(folder: Path) -> None:
    """Remove the half-written files of a run that was killed; nobody else writes here now."""
    for place in (folder, folder / FOLDER):
        sweep(place, older_than=0)


def _check(path: Path, content: Mapping[str, Any], recipe: Recipe) -> None:
    """Refuse what another version or another recipe has written."""
    if content.get("format") != FORMAT:
        raise StoreError(
            f"{path} has format {content.get('format')}, this version reads format {FORMAT}",
            "go on with the version that wrote it, or begin anew in another folder with --out",
        )
    if content["recipe"] != recipe.identity():
        raise StoreError(
            f"{path} is a checkpoint of another recipe: {difference(content['recipe'], recipe.identity())}",
            "remove it if it was put there by mistake, or begin anew in another folder with --out",
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _step(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found.group(1)) if found else -1


def _all(folder: Path) -> list[Path]:
    """Checkpoints, the oldest first; of one step, the one written last comes last."""
    place = folder / FOLDER
    if not place.is_dir():
        return []
    with explain(place):
        found = [(_step(p), p.stat().st_mtime_ns, p) for p in place.iterdir() if _NAME.fullmatch(p.name)]
    return [path for *_, path in sorted(found)]
