"""What a whole curve costs: 16 rungs of APGD-CE on the adversarially trained digits model, 300 images.

Prices are forwards plus backwards, counted, not timed. The full price is that of one run in which nothing
breaks: every image that is right to begin with, every step. Compared with 16 independent runs, one a rung, that
stop at the first break. The curve must be nowhere above theirs by more than noise.
Limits: 1.8 × the full price (goal 1.5), 0.35 × the independent runs.
"""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from common import digits

from aresbench.attacks.load import make_attack
from aresbench.core.budget import format_fraction, parse_budget
from aresbench.core.suite import Task
from aresbench.engine.driver import run_attack
from aresbench.engine.evaluate import evaluate
from aresbench.engine.prepare import prepared

N, TOP, RUNGS, ATTACK = 300, "0.24", 16, "apgd-ce(steps=100)"


def main() -> None:
    model, x, y, ids = digits(N)
    sizes = ",".join(f"{k}" for k in range(1, RUNGS + 1))
    ladder = parse_budget(f"linf:[{sizes}]/{RUNGS}/{1 / float(TOP):.10g}")
    with torch.no_grad():
        right = (model(x).argmax(1) == y).nonzero().flatten()
    full = len(right) * 2 * 100

    with tempfile.TemporaryDirectory() as folder:
        threat = f"adversary(linf, [{ladder.rungs_text()}], {ATTACK})"
        results = evaluate(model, [Task("digits", threat)], n=N, store=folder, doctor=False)
        attempts, images = results.attempts(), results.images()
    price = int(attempts["forwards"].sum() + attempts["backwards"].sum())
    breaking = np.array(
        [np.inf if b is None else float(parse_budget(f"linf:{b}").rungs[0]) for b in images["breaking_budget"]]
    )

    attack = make_attack(ATTACK)
    independent, worst = 0, -1.0
    print("rung     ours  independent runs")
    with prepared(model, x) as ready:
        for rung in ladder.rungs:
            out = run_attack(
                ready,
                attack,
                x[right],
                y[right],
                norm="linf",
                eps=float(rung),
                ids=[ids[k] for k in right.tolist()],
                label=format_fraction(rung),
                component=ATTACK,
            )
            independent += int(out.forwards.sum() + out.backwards.sum())
            theirs = (~out.broken).sum().item() / N
            ours = float((breaking > float(rung) * (1 + 1e-9)).mean())
            worst = max(worst, ours - theirs)
            print(f"{float(rung):.3f}  {ours:6.1%}  {theirs:6.1%}")
    print(f"forwards + backwards over the full price: {price / full:.2f}  limit 1.8, goal 1.5")
    print(f"forwards + backwards over {RUNGS} independent early-stopping runs: {price / independent:.2f}  limit 0.35")
    print(f"independent runs over the full price: {independent / full:.2f}")
    print(f"largest excess of our curve over theirs: {worst * 100:+.1f} points (noise: 2 of 300 images = 0.7 points)")


if __name__ == "__main__":
    main()
