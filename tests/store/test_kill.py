"""A process killed at any moment costs nothing it had handed over, and never adds a row twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aresbench.store import Store

WRITER = """
import random, sys
from aresbench.store import Store, journal
journal.SYNC_EVERY = 0.02
path, first = sys.argv[1], int(sys.argv[2])
cell = Store(path).cell({"identity": {"model": {"name": "m"}, "dataset": "d", "threat": "clean"}})
rng = random.Random(first)
for i in range(first, first + 100_000, 4):
    numbers = range(i, i + 4)
    cell.append("images", [{"id": f"i{k:06d}", "position": k, "shard": k // 32, "label": 0, "prediction": 0,
        "top5": [0], "margin": 0.0, "confidence": 1.0, "correct": True} for k in numbers])
    print(i + 3, flush=True)
    if rng.random() < 0.3:
        cell.seal(rng.choice([None, [i // 32], [i // 32 - 1]]))
"""


def start(path: Path, first: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first)], stdout=subprocess.PIPE, text=True)


def finish(writer: subprocess.Popen[str]) -> int:
    """Kill it and return the last number it had handed over, -1 if none."""
    writer.send_signal(signal.SIGKILL)
    assert writer.stdout is not None
    said = writer.stdout.read().split("\n")[:-1]  # a number without its line end was not yet said
    writer.wait()
    writer.stdout.close()
    return int(said[-1]) if said else -1


def test_twenty_four_kills_lose_no_row_and_double_none(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    rng = random.Random(0)
    expected: set[int] = set()
    killed_at_work = 0
    for turn in range(12):
        pair = [(start(path, first), first) for first in (turn * 2_000_000, turn * 2_000_000 + 1_000_000)]
        for writer, _ in pair:
            assert writer.stdout is not None
            first_word = writer.stdout.readline()  # it is at work now
            assert first_word
        time.sleep(rng.uniform(0.0, 0.25))
        for writer, first in pair:
            last = max(finish(writer), first + 3)
            killed_at_work += 1
            expected |= set(range(first, last + 1))
        cell = Store(path).cells()[0]
        positions = cell.images()["position"].tolist()
        assert len(positions) == len(set(positions))
        # A row may be there although the kill came before the writer could say so.
        assert expected <= set(positions)
    assert killed_at_work == 24
    before = cell.images()
    cell.seal()
    assert Store(path).status().journals == 0
    assert cell.images().equals(before)


def test_readers_see_every_row_while_another_process_seals(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    writer = start(path, 0)
    handed_over = [-1]
    assert writer.stdout is not None
    lines = writer.stdout

    def listen() -> None:
        for line in lines:
            handed_over[0] = int(line)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        while handed_over[0] < 0:
            time.sleep(0.01)
        cell = Store(path).cells()[0]
        looks = 0
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            known = handed_over[0]
            positions = cell.images()["position"].tolist()
            assert positions[: known + 1] == list(range(known + 1))
            assert len(positions) == len(set(positions))
            looks += 1
        assert looks > 5
    finally:
        writer.kill()
        writer.wait()
        listener.join()
        lines.close()


def test_half_written_files_of_killed_processes_are_swept_when_old(tmp_path: Path, image: Callable[..., Any]) -> None:
    store = Store(tmp_path / "runs")
    cell = store.cell({"identity": {"model": {"name": "m"}}})
    old, young = cell.folder / ".tmp-old", cell.folder / ".tmp-young"
    old.write_text("half")
    young.write_text("half")
    os.utime(old, (0, 0))
    cell.append("images", [image(0)])
    cell.seal()
    assert young.exists() and not old.exists()
    assert len(cell.images()) == 1
