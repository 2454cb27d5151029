"""AutoAttack standard against pyautoattack's, both on the identical prepared module.

    python benchmarks/against_autoattack.py [images]

On the adversarially trained digits model at a budget that 40–60 % of the images resist (survivors pay for nearly
everything), and on the plain model, where nothing survives. Robust accuracy must not be above theirs beyond noise,
nor forwards; limits of the wall time: 0.9 and 0.25. The versions of our own order are measured beside it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from common import digits
from pyautoattack import AutoAttack as Peer
from torch import Tensor, nn

from aresbench.engine.attack import attack
from aresbench.engine.prepare import Prepared, prepared

CASES = {"robust": (0.15, 0.9), "plain": (0.05, 0.25)}


class Counting(nn.Module):
    """The prepared module for a library that wants a plain one; counts the images of its passes."""

    def __init__(self, ready: Prepared) -> None:
        super().__init__()
        self.ready, self.forwards, self.backwards = ready, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        if x.requires_grad:
            self.backwards += len(x)
        return self.ready(self.ready.place(x))


@dataclass
class Found:
    robust: float
    seconds: float
    forwards: int
    backwards: int

    def __str__(self) -> str:
        passes = f"{self.forwards:,} forwards, {self.backwards:,} with a way back"
        return f"robust accuracy {self.robust:.1%}, {self.seconds:.1f} s, {passes}"


def timed(run: Callable[[], Found]) -> Found:
    began = time.perf_counter()
    found = run()
    found.seconds = time.perf_counter() - began
    return found


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for name, (eps, limit) in CASES.items():
        model, x, y, ids = digits(n, name)

        def ours(version: str, model: nn.Module = model, x: Tensor = x, y: Tensor = y, ids=ids, eps=eps) -> Found:
            out = attack(model, x, y, f"autoattack(version={version})", f"linf:{eps}", ids=ids)
            robust = (out.correct & ~out.broken).float().mean().item()
            return Found(robust, 0.0, int(out.forwards.sum()), int(out.backwards.sum()))

        def theirs(model: nn.Module = model, x: Tensor = x, y: Tensor = y, eps: float = eps) -> Found:
            with prepared(model, x) as ready:
                counted = Counting(ready)
                peer = Peer(counted, norm="Linf", eps=eps, version="standard", device="cpu", seed=0)
                adversarial, *_ = peer.run_standard_evaluation(x, y, batch_size=len(x))
                with torch.no_grad():
                    robust = (model(adversarial).argmax(1) == y).float().mean().item()
                return Found(robust, 0.0, counted.forwards, counted.backwards)

        peer = timed(theirs)
        print(f"{name} digits, L∞ {eps}, {n} images\n  pyautoattack        {peer}", flush=True)
        for version in ("standard", "fast"):
            mine = timed(lambda version=version: ours(version))
            bound = f"  limit {limit}" if version == "standard" else "  goal 0.5"
            ratio = f"{mine.seconds / peer.seconds:.2f} of its time{bound}"
            print(f"  ours, {version:9s}     {mine}\n    {ratio}", flush=True)


if __name__ == "__main__":
    main()
