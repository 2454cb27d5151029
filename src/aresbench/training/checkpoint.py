"""Checkpoints: whole or absent, two of them kept, everything in them that the next step depends on."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path
from typing import Any

import torch

from aresbench.core.errors import StoreError
from aresbench.store.files import TEMPORARY, explain, sync_folder

KEPT = 2
_NAME = re.compile(r"step-(\d{9})\.pt")


def save(folder: Path, step: int, content: dict[str, Any]) -> Path:
    """Write the checkpoint of a step and let older ones go.

    Raises:
        StoreError: the disk is full or the folder may not be written; older checkpoints are as before.
    """
    path = folder / f"step-{step:09d}.pt"
    write_torch(path, content)
    for old in _all(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def write_torch(path: Path, content: Any) -> None:
    """``torch.save`` into a file that is whole under its name or absent."""
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    with explain(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def newest_path(folder: Path) -> Path | None:
    """Where the newest checkpoint lies."""
    return next(iter(reversed(_all(folder))), None)


def newest(folder: Path) -> dict[str, Any] | None:
    """What is in the newest checkpoint that can be read; None where there is none.

    Raises:
        StoreError: there are checkpoints, and none can be read.
    """
    found = _all(folder)
    reasons = []
    for path in reversed(found):
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return content
        except Exception as error:
            reasons.append(f"{path.name}: {error}")
    if found:
        raise StoreError(f"no checkpoint in {folder} can be read: {'; '.join(reasons)}", "begin in another folder")
    return None


def _all(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name))
