"""Runs the command in this process or in a fresh one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import aresbench
from aresbench.cli.main import main


@dataclass(frozen=True)
class Said:
    """What a command printed and its exit status."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]

TINY = """
name = "tiny"
title = "A suite of three small tasks"
models = ["samples:digits-plain"]
[[tasks]]
data = "digits"
n = 6
threats = ["clean", "corruption(brightness, 2)", { threat = "adversary(linf, [1/16, 1/8*], fgsm)", name = "ladder" }]
"""


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run ``aresbench WORDS…`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARESBENCH_DEBUG", raising=False)

    def run(*words: str) -> Said:
        capsys.readouterr()
        try:
            status = main(words)
        except SystemExit as stop:
            status = int(stop.code or 0)
        printed = capsys.readouterr()
        return Said(status, printed.out, printed.err)

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A suite file that runs in a second."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture
def fresh(tmp_path: Path) -> Command:
    """Run ``python CODE`` in a new process, with the package that is tested here."""
    env = {**os.environ, "PYTHONPATH": str(Path(aresbench.__file__).parents[1])}

    def run(code: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run
