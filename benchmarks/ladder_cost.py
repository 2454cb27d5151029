"""What a whole curve costs: 16 rungs of an attack on the adversarially trained digits model.

    python benchmarks/ladder_cost.py                    APGD-CE, 300 images
    python benchmarks/ladder_cost.py autoattack 100     AutoAttack standard, 100 images

Prices are forwards plus backwards, counted, not timed. The full price is that of one run in which nothing
breaks: every image that is right to begin with, every step of every attack. Compared with 16 independent runs, one
a rung, that stop at the first break. The curve must be nowhere above theirs by more than noise.
Limits: 1.8 × the full price; of the independent runs 0.35 for one attack, 0.25 for AutoAttack.
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np
import torch
from common import digits
from torch import Tensor

from aresbench.attacks.load import members
from aresbench.core.budget import format_fraction, parse_budget
from aresbench.core.suite import Task
from aresbench.engine.attack import attack as attack_images
from aresbench.engine.driver import run_attack
from aresbench.engine.evaluate import evaluate
from aresbench.engine.prepare import prepared
from aresbench.models.classifier import Classifier

TOP, RUNGS = "0.24", 16


def price_of(model: Classifier, x: Tensor, y: Tensor, ids: list[str], spec: str, norm: str) -> int:
    """Passes one image costs that nothing breaks: measured at a budget of (nearly) nothing."""
    total = 0
    with prepared(model, x[:1]) as ready:
        for attack in members(spec, norm).values():
            goal = "minimise" if attack.kind == "minimal" else "break"
            eps = float("inf") if attack.kind == "minimal" else 1e-9
            out = run_attack(ready, attack, x[:1], y[:1], norm=norm, eps=eps, ids=ids[:1], goal=goal)
            total += int(out.forwards.sum() + out.backwards.sum())
    return total


def main() -> None:
    spec = sys.argv[1] if len(sys.argv) > 1 else "apgd-ce(steps=100)"
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 300
    model, x, y, ids = digits(n)
    sizes = ",".join(f"{k}" for k in range(1, RUNGS + 1))
    ladder = parse_budget(f"linf:[{sizes}]/{RUNGS}/{1 / float(TOP):.10g}")
    with torch.no_grad():
        right = (model(x).argmax(1) == y).nonzero().flatten()
    first = right[:1]
    full = len(right) * price_of(model, x[first], y[first], [ids[int(first)]], spec, "linf")

    with tempfile.TemporaryDirectory() as folder:
        threat = f"adversary(linf, [{ladder.rungs_text()}], {spec})"
        results = evaluate(model, [Task("digits", threat)], n=n, store=folder, doctor=False)
        attempts, images = results.attempts(), results.images()
    price = int(attempts["forwards"].sum() + attempts["backwards"].sum())
    breaking = np.array(
        [np.inf if b is None else float(parse_budget(f"linf:{b}").rungs[0]) for b in images["breaking_budget"]]
    )
    print(f"{spec}, {n} images: the curve's forwards + backwards over the full price: {price / full:.2f}  limit 1.8")

    independent, worst = 0, -1.0
    print("rung     ours  independent runs", flush=True)
    for rung in ladder.rungs:
        out = attack_images(model, x, y, spec, f"linf:{format_fraction(rung)}", ids=ids)
        independent += int(out.forwards.sum() + out.backwards.sum())
        theirs = (out.correct & ~out.broken).float().mean().item()
        ours = float((breaking > float(rung) * (1 + 1e-9)).mean())
        worst = max(worst, ours - theirs)
        print(f"{float(rung):.3f}  {ours:6.1%}  {theirs:6.1%}", flush=True)
    print(f"forwards + backwards over {RUNGS} independent early-stopping runs: {price / independent:.2f}")
    print(f"independent runs over the full price: {independent / full:.2f}")
    print(f"largest excess of our curve over theirs: {worst * 100:+.1f} points (2 of {n} images: {200 / n:.1f} points)")


if __name__ == "__main__":
    main()
