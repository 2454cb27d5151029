"""Processes for tests that kill them or let them talk: forked in an instant from one that has imported everything.

A test names a function of its own file; one process or several run it, each with torchrun's environment.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

GRACE = 3.0  # seconds


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit status (negative: the signal that killed it), and what it returned or raised."""

    status: int
    value: Any = None
    error: str = ""


class Forge:
    """The process that forks the others; started at its first use."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(
        self,
        file: str,
        function: str,
        processes: int = 1,
        environment: Mapping[str, str] | None = None,
        launcher: str = "torchrun",
        **given: Any,
    ) -> list[Outcome]:
        """Call ``function`` of ``file`` with plain values in as many processes, and wait for them all.

        Args:
            environment: what they find in their environment beside what the launcher sets.
            launcher: ``torchrun``, or ``slurm`` (which tells each its place and nothing else).
        """
        if self._process is None:
            quiet = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"file": file, "function": function, "processes": processes, "given": given, "launcher": launcher}
        self._process.stdin.write(json.dumps(order | {"environment": dict(environment or {})}) + "\n")
        self._process.stdin.flush()
        return [Outcome(*each) for each in json.loads(self._process.stdout.readline())]

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._process.stdin is not None and self._process.stdout is not None:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    """Forks processes in an instant."""
    made = Forge()
    yield made
    made.close()


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _serve() -> None:
    """Fork what is ordered on standard input, one order a line; answer with the outcomes."""
    import torch

    from aresbench.training.learner import make_learner
    from aresbench.training.loop import datasets
    from aresbench.training.recipe import load_recipe
    from aresbench.training.world import World

    torch.set_num_threads(1)
    recipe = load_recipe("digits-adversarial")  # what is imported on the way, the children need not import
    learned, _ = datasets(recipe)
    make_learner(recipe, learned.classes, len(learned), World(0, 1, torch.device("cpu")))
    for line in sys.stdin:
        order = json.loads(line)
        sys.stdout.write(json.dumps(_outcomes(order)) + "\n")
        sys.stdout.flush()


def _outcomes(order: Mapping[str, Any], patience: float = 120.0) -> list[tuple[int, Any, str]]:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    children = []
    for rank in range(order["processes"]):
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            for pipe in (ours, *(pipe for _, pipe in children)):
                os.close(pipe)
            if order["launcher"] == "slurm":
                place = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
            else:
                place = address | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(order["processes"])}
            _child(order, place, theirs)
        os.close(theirs)
        children.append((pid, ours))
    return _ends(children, time.monotonic() + patience)


def _ends(children: list[tuple[int, int]], end: float) -> list[tuple[int, Any, str]]:
    """How each ended; as a launcher does, the others are killed soon after one has failed."""
    texts: dict[int, bytes] = {pipe: b"" for _, pipe in children}
    status: dict[int, int] = {}
    while len(status) < len(children):
        alive = [(pid, pipe) for pid, pipe in children if pid not in status]
        ready, _, _ = select.select([pipe for _, pipe in alive], [], [], 0.05)
        for pid, pipe in alive:
            if pipe in ready:
                part = os.read(pipe, 65536)
                texts[pipe] += part
                if not part:
                    status[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    os.close(pipe)
                    if status[pid] != 0:
                        end = min(end, time.monotonic() + GRACE)
            elif time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
    told = []
    for pid, pipe in children:
        value, error = json.loads(texts[pipe]) if texts[pipe] else (None, "")
        told.append((status[pid], value, error))
    return told


def _child(order: Mapping[str, Any], place: Mapping[str, str], pipe: int) -> None:
    """Call the function, tell its outcome and end at once."""
    os.dup2(2, 1)  # standard output belongs to the answers
    sys.modules["torch"].set_num_threads(1)  # torch renews its pool of threads here, before two threads ask for it
    os.environ.update(place if order["processes"] > 1 else {})
    os.environ.update(order["environment"])
    status = 0
    try:
        spec = importlib.util.spec_from_file_location("ordered", order["file"])
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["ordered"] = module
        spec.loader.exec_module(module)
        answer = [getattr(module, order["function"])(**order["given"]), ""]
    except BaseException as error:
        status = 1
        answer = [None, f"{type(error).__name__}: {error}\n{traceback.format_exc()}"]
    os.write(pipe, json.dumps(answer).encode())
    os._exit(status)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    _serve()
