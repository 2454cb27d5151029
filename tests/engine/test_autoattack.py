"""AutoAttack, whole: the same rows for any batch and order and after a kill, and what the field's own finds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from pyautoattack import AutoAttack as Peer

import aresbench as ab
from aresbench.attacks.load import make_attack, members
from aresbench.store import Store

N, EPS = 10, 0.15


@pytest.fixture(scope="module")
def whole(robust, digits):
    x, y, ids = digits
    return ab.attack(robust, x[:N], y[:N], "autoattack", f"linf:{EPS}", ids=ids[:N])


@pytest.mark.parametrize(
    ("spec", "norm", "parts"),
    [
        ("autoattack", "linf", ["apgd-ce", "apgd-t", "fab-t", "square"]),
        ("autoattack", "l2", ["apgd-ce", "apgd-t", "fab-t", "square"]),
        ("autoattack", "l1", ["apgd-ce(restarts=5)", "apgd-t(targets=5)", "fab-t", "square"]),
        (
            "autoattack(version=plus)",
            "linf",
            ["apgd-ce(restarts=5)", "apgd-dlr(restarts=5)", "fab(restarts=5)", "square", "apgd-t", "fab-t"],
        ),
        ("autoattack(version=rand)", "l2", ["eot(attack=apgd-ce, draws=20)", "eot(attack=apgd-dlr, draws=20)"]),
    ],
)
def test_the_versions_are_what_the_field_calls_so(spec, norm, parts):
    assert list(members(spec, norm).values()) == [make_attack(part) for part in parts]
    settings = {
        "apgd-ce": {"steps": 100, "rho": 0.75},
        "apgd-t": {"steps": 100},
        "fab-t": {"steps": 100, "targets": 9, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9},
        "square": {"queries": 5000, "p_init": 0.8, "rescale_schedule": False},
    }
    for part in parts:
        for name, wanted in settings.items():
            if part.partition("(")[0] == name:
                assert asdict(make_attack(part)).items() >= wanted.items()


def test_our_own_order_breaks_what_standard_breaks_for_less(whole, robust, digits):
    x, y, ids = digits
    fast = ab.attack(robust, x[:N], y[:N], "autoattack(version=fast)", f"linf:{EPS}", ids=ids[:N])
    assert (fast.broken | ~whole.broken).all()
    assert (fast.forwards + fast.backwards).sum() < 0.5 * (whole.forwards + whole.backwards).sum()


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
