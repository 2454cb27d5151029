"""What the driver costs: PGD-20 on EfficientNet-Lite0 at 224 px, batch 8, over plain forward and gradient passes.

The budget is so small that nothing breaks, so that every image takes every step. The final judging
forward is included in ours. The plain passes run on the identically prepared module (frozen, batch norm
merged, same layout); what preparing gains over the module as it was loaded is printed apart.
Limit: 1.07.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from common import photographs, ratio
from torch import Tensor, nn

from aresbench.attacks.load import make_attack
from aresbench.engine.driver import run_attack
from aresbench.engine.prepare import prepared

STEPS, BATCH, EPS = 20, 8, 1e-6


def plain_passes(module: nn.Module, x: Tensor, y: Tensor) -> None:
    """As many forward and input-gradient passes as PGD makes, and nothing else."""
    for _ in range(STEPS):
        images = x.detach().requires_grad_(True)
        loss = F.cross_entropy(module(images), y, reduction="sum")
        torch.autograd.grad(loss, images)


def main() -> None:
    model, x, y = photographs(20)
    with torch.no_grad():
        right = (model(x).argmax(1) == y).nonzero().flatten()[:BATCH]
    x, y = x[right], y[right]
    attack = make_attack(f"pgd(steps={STEPS})")
    with prepared(model, x) as ready:
        placed = ready.place(x)

        def ours() -> None:
            out = run_attack(ready, attack, x, y, norm="linf", eps=EPS, batch=BATCH)
            assert not out.broken.any()
            assert (out.forwards == STEPS + 1).all()

        value, a, b = ratio(ours, lambda: plain_passes(ready.search, placed, y), rounds=7)
        print(f"driver overhead: {value:.3f}  (ours {a:.2f} s, plain passes {b:.2f} s)  limit 1.07")
        gain, a, b = ratio(lambda: plain_passes(ready.search, placed, y), lambda: plain_passes(model, x, y), rounds=3)
        print(f"preparing the module: {gain:.3f} of the time of the module as loaded  ({a:.2f} s, {b:.2f} s)")


if __name__ == "__main__":
    main()
