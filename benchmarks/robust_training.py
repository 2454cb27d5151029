"""What the recipes for one machine end with: clean accuracy and AutoAttack's, ours and pyautoattack's.

    python benchmarks/robust_training.py OUT [images [recipe …]]

Trains (or goes on with) each recipe in OUT/NAME and measures the best weights on test images that chose nothing: all
500 of the digits, the first images (default 1,000) of Fashion-MNIST's in published order. Both libraries attack the
identical module under its first budget. A model that is trained already is only measured.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from pyautoattack import AutoAttack as Peer
from torch import Tensor, nn

import aresbench as ab
from aresbench.core.budget import parse_budget
from aresbench.data.base import load_images
from aresbench.metrics import wilson
from aresbench.training.recipe import load_recipe

RECIPES = [
    f"{data}-{method}" for data in ("digits", "fashion-mnist") for method in ("standard", "adversarial", "trades")
]
BATCH = 250


def theirs(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """[N] bool: right on the images that pyautoattack's standard version leaves."""
    peer = Peer(model, norm="Linf", eps=eps, version="standard", device="cpu", seed=0)
    adversarial, *_ = peer.run_standard_evaluation(x, y, batch_size=BATCH)
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in adversarial.split(BATCH)]) == y


def share(count: Tensor) -> str:
    """A share in percent with its 95 % interval."""
    low, high = wilson(int(count.sum()), len(count))
    return f"{100 * count.float().mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    out = Path(sys.argv[1])
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    for name in sys.argv[3:] or RECIPES:
        began = time.monotonic()
        recipe = load_recipe(name)
        trained = ab.train(recipe, out / name, device="cpu")
        spent = time.monotonic() - began
        model = ab.load_model(str(trained.folder)).eval()
        data = ab.load_dataset(recipe.data.train.replace("split=train", "split=test"))[:n]
        x, _, _ = load_images(data, range(len(data)), model.preprocessing)
        y = torch.from_numpy(data.labels)
        # A standard model is measured at the budget of its robust twin.
        budget = load_recipe(name.replace("standard", "adversarial")).threat.budgets[0]
        began = time.monotonic()
        found = ab.attack(model, x, y, "autoattack", budget, ids=data.ids)
        ours, ours_took = found.correct & ~found.broken, time.monotonic() - began
        began = time.monotonic()
        peer, peer_took = theirs(model, x, y, float(parse_budget(budget).marks[0])), time.monotonic() - began
        hours = trained.card["training"]["hours"]
        print(
            f"{name:24} {len(x):5} images at {budget}: clean {share(found.correct)}, AutoAttack ours {share(ours)} in "
            f"{ours_took:.0f} s, pyautoattack {share(peer)} in {peer_took:.0f} s; verdicts differ on "
            f"{int((ours != peer).sum())}; trained in {60 * hours:.1f} min (this call: {spent:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
