"""PGD against torchattacks' PGD at equal steps, on the adversarially trained digits model.

The budget is one at which 40–60 % of the images resist, where an evaluation spends its time: images
that break leave our batch. Both run on the same module; both must reach the same robust accuracy.
Limit: 0.7.
"""

from __future__ import annotations

import torch
import torchattacks
from common import digits, ratio

from aresbench.attacks.load import make_attack
from aresbench.engine.driver import run_attack
from aresbench.engine.prepare import prepared

STEPS, EPS = 20, 0.16


def main() -> None:
    model, x, y, ids = digits(500)
    with torch.no_grad():
        clean = model(x).argmax(1) == y
    attack = make_attack(f"pgd(steps={STEPS})")
    peer = torchattacks.PGD(model, eps=EPS, alpha=EPS / 4, steps=STEPS)
    found = {}

    def ours() -> None:
        with prepared(model, x) as ready:
            right = (ready.confirm(ready.place(x)).argmax(1) == y).nonzero().flatten()
            chosen = [ids[k] for k in right.tolist()]
            out = run_attack(ready, attack, x[right], y[right], norm="linf", eps=EPS, ids=chosen)
            found["ours"] = (~out.broken).sum().item() / len(x)

    def theirs() -> None:
        torch.manual_seed(0)
        adversarial = peer(x, y)
        with torch.no_grad():
            found["theirs"] = ((model(adversarial).argmax(1) == y) & clean).float().mean().item()

    value, a, b = ratio(ours, theirs, rounds=9)
    resist = f"robust accuracy ours {found['ours']:.1%}, torchattacks {found['theirs']:.1%}"
    print(f"PGD-{STEPS} at L∞ {EPS}: {value:.2f} of torchattacks' time  ({a:.2f} s, {b:.2f} s), {resist}  limit 0.7")


if __name__ == "__main__":
    main()
