"""Rows, cells and a small disk for the archive's tests."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aresbench.store import Cell, Store

Row = dict[str, Any]


def describe(model: str = "m") -> dict[str, Any]:
    identity = {
        "model": {"name": model, "fingerprint": "0123"},
        "dataset": "digits",
        "threat": "clean",
        "protocol": {"size": [32, 32]},
        "settings": {},
        "seed": 0,
    }
    return {"identity": identity, "suite": None, "task": {"name": "clean", "kind": "clean"}}


@pytest.fixture
def description() -> Callable[..., dict[str, Any]]:
    return describe


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def cell(store: Store) -> Cell:
    return store.cell(describe())


@pytest.fixture
def image() -> Callable[..., Row]:
    """One images row as an engine makes it: numpy numbers, optional columns only where known."""

    def make(i: int, **known: Any) -> Row:
        return {
            "id": f"test/{i:05d}",
            "position": i,
            "shard": i // 32,
            "label": np.int64(i % 10),
            "prediction": i % 10,
            "top5": np.arange(5),
            "margin": np.float32(0.5),
            "confidence": 0.9,
            "correct": np.bool_(True),
            **known,
        }

    return make


@pytest.fixture
def attempt() -> Callable[..., Row]:
    """One attempts row."""

    def make(i: int, **known: Any) -> Row:
        zeros = ("backwards", "zero_gradients", "nan_gradients", "rejected", "seed")
        row = {"id": f"test/{i:05d}", "position": i, "shard": i // 32, "attack": "pgd(steps=20)", "norm": "linf"}
        row |= {"eps": "1/255", "start": "cold", "pinned": True, "verdict": "resisted", "forwards": 21}
        return row | dict.fromkeys(zeros, 0) | known

    return make


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on a disk of 256 kB: a real one where the machine lets us mount it, else one that acts so."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") and subprocess.run(command, capture_output=True, check=False).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    left = 256 * 1024
    really_write = os.write

    def write(handle: int, data: bytes) -> int:
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = really_write(handle, bytes(data)[:left])
        left -= done
        return done

    monkeypatch.setattr(os, "write", write)
    yield folder
