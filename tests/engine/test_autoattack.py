"""AutoAttack, whole: the same rows for any batch and order and after a kill, and what the field's own finds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pyautoattack import AutoAttack as Peer

import aresbench as ab
from aresbench.attacks.load import members
from aresbench.store import Store

N, EPS = 10, 0.15


@pytest.fixture(scope="module")
def whole(robust, digits):
    x, y, ids = digits
    return ab.attack(robust, x[:N], y[:N], "autoattack", f"linf:{EPS}", ids=ids[:N])


def test_standard_is_what_the_field_calls_so():
    assert list(members("autoattack", "linf")) == [
        "apgd-ce(steps=100)",
        "apgd-t(steps=100)",
        "fab-t(steps=100)",
        "square(queries=5000)",
    ]


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_batch_size_changes_nothing(batch, whole, robust, digits):
    x, y, ids = digits
    n = 4 if batch == 1 else N  # one at a time is slow
    out = ab.attack(robust, x[:n], y[:n], "autoattack", f"linf:{EPS}", ids=ids[:n], batch=batch)
    assert not out.broken.all()
    assert torch.equal(out.broken, whole.broken[:n])


def test_the_order_of_the_images_changes_nothing(whole, robust, digits):
    x, y, ids = digits
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    out = ab.attack(robust, x[order], y[order], "autoattack", f"linf:{EPS}", ids=[ids[k] for k in order])
    assert torch.equal(out.broken, whole.broken[order])


SCRIPT = """
import sys
import aresbench as ab
task = ab.Task("digits", "adversary(linf, 0.15, autoattack)")
ab.evaluate("samples:digits-robust", [task], n=10, store=sys.argv[1], doctor=False)
"""


def test_killed_in_its_middle_it_goes_on_with_the_next_attack(tmp_path, whole):
    arguments = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    process = subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 240
    while process.poll() is None and not {"apgd-t(steps=100)", "fab-t(steps=100)"} & set(_tried(tmp_path)):
        assert time.monotonic() < deadline, "the run writes nothing"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = _tried(tmp_path)
    assert before, "nothing was kept"
    assert "square(queries=5000)" not in before, "it was over before it was killed"
    task = ab.Task("digits", f"adversary(linf, {EPS}, autoattack)")
    (reading,) = list(ab.evaluate("samples:digits-robust", [task], n=N, store=tmp_path, doctor=False))
    attempts = reading.attempts
    assert len(attempts) == len(attempts[["id", "attack"]].drop_duplicates()), "nothing is attempted twice"
    found = reading.images["breaking_budget"]
    assert sorted(found.fillna("-")) == sorted(
        "0" if not right else str(EPS) if broken else "-"
        for right, broken in zip(whole.correct.tolist(), whole.broken.tolist(), strict=True)
    )


def _tried(folder: Path) -> list[str]:
    """The attacks of the attempts journalled so far."""
    if not (folder / "archive.json").exists():
        return []
    return [attack for cell in Store(folder).cells() for attack in cell.attempts()["attack"]]


def test_it_breaks_what_pyautoattack_breaks_with_no_more_forwards(whole, robust, digits):
    x, y, _ = digits
    counted = [0]

    def model(x: torch.Tensor) -> torch.Tensor:
        counted[0] += len(x)
        return robust(x)

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return model(x)

    peer = Peer(Module(), norm="Linf", eps=EPS, version="standard", device="cpu", seed=0)
    adversarial, *_ = peer.run_standard_evaluation(x[:N], y[:N], batch_size=N)
    with torch.no_grad():
        theirs = whole.correct & (robust(adversarial).argmax(1) != y[:N])
    assert (whole.broken | ~theirs).all(), "something that it breaks resists ours"
    assert whole.forwards.sum() <= counted[0]
