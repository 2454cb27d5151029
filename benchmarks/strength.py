"""How strong and how dear each attack is, on the committed digits models: the table of "How to choose an attack".

    python benchmarks/strength.py [images] [--norm l2]

Bounded attacks: the share of initially right images that resist at one budget. Minimal-norm attacks: the median
distance of the nearest break, and the share without one inside the same budget. Beside it forwards and backwards per
image; images that break leave early. Query attacks are given 2000 queries.
"""

from __future__ import annotations

import argparse
import time

import torch
from common import digits

from aresbench.attacks.base import Ensemble
from aresbench.attacks.load import make
from aresbench.engine.attack import attack

SPECS = (
    "fgsm", "bim", "mim", "vmi-fgsm", "pgd", "pgd(steps=100)", "pgd(steps=20, restarts=5)", "apgd-ce", "apgd-dlr",
    "apgd-pm", "apgd-t", "fab", "fab-t", "deepfool", "ddn", "fmn", "cw", "ead", "sigma-zero",
    "square(queries=2000)", "nes(queries=2000)", "spsa(queries=2000)", "nattack(queries=2000)",
    "boundary(queries=2000)", "evolutionary(queries=2000)", "hopskipjump(queries=2000)", "rays(queries=2000)",
    "autoattack", "autoattack(version=fast)",
)  # fmt: skip
BUDGETS = {"linf": {"robust": 0.15, "plain": 0.02}, "l2": {"robust": 1.6, "plain": 0.7}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=int, nargs="?", default=100)
    parser.add_argument("--norm", choices=BUDGETS, default="linf")
    parser.add_argument("--only", default="", help="attacks whose spec holds this word")
    chosen = parser.parse_args()
    norm = chosen.norm
    print(f"| attack | {' | '.join(f'{m} {e} | median | passes' for m, e in BUDGETS[norm].items())} | s |")
    for spec in SPECS:
        made = make(spec)
        if norm not in made.norms or chosen.only not in spec:
            continue
        cells, began = [], time.perf_counter()
        for name, eps in BUDGETS[norm].items():
            model, x, y, ids = digits(chosen.images, name)
            # A minimal-norm attack alone is asked for distances: its ladder reaches beyond any break.
            top = 1 if norm == "linf" else 100
            minimal = not isinstance(made, Ensemble) and made.kind == "minimal"
            out = attack(model, x, y, spec, f"{norm}:[{eps}, {top}]" if minimal else f"{norm}:{eps}", ids=ids)
            near = out.distance[out.correct]
            passes = (out.forwards + out.backwards)[out.correct].float().mean().item()
            middle = f"{torch.median(near).item():.3f}" if minimal else ""
            cells += [f"{(near > eps * (1 + 1e-6)).float().mean().item():.1%}", middle, f"{passes:.0f}"]
        print(f"| `{spec}` | {' | '.join(cells)} | {time.perf_counter() - began:.0f} |", flush=True)


if __name__ == "__main__":
    main()
