"""What a step of adversarial training costs: PGD-3 training over the passes that it is made of.

Three comparisons, all in one process and alternating; the figure is the median of the ratios. On a CPU it is processor
time that is compared, so that other work on the machine counts for little; on a GPU, time on the clock.

1. The whole step (``learn``: images to the device, labels, attack, training pass, update) over three plain
   input-gradient passes and one plain training pass with its update, of the very same module prepared the same way.
   Limits: 1.05 where the last iterate is learned from, 1.15 where the best is (one more forward pass).
2. The whole step over a straightforward loop: parameter gradients in the attack, contiguous layout. Limit: 0.75.
3. On a GPU: with ``machine.compile`` over without.

    python benchmarks/training_step.py [--model timm:resnet18] [--size 64] [--batch 16] [--rounds 7] [--device cuda]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from aresbench.core.classes import Classes
from aresbench.engine.ascent import standing_still
from aresbench.training.images import Batch
from aresbench.training.learner import Learner, make_learner
from aresbench.training.loop import learn
from aresbench.training.losses import soft_cross_entropy
from aresbench.training.recipe import read_recipe
from aresbench.training.world import World

CLASSES, STEPS, EPS = 100, 3, 4 / 255


def make(args: argparse.Namespace, iterate: str = "last", compiled: bool = False) -> Learner:
    """A learner of random weights."""
    recipe = read_recipe(
        {
            "model": {"architecture": args.model, "size": args.size, "resize": args.size},
            "data": {"train": "samples"},
            "schedule": {"epochs": 1000, "name": "constant"},
            "threat": {"budgets": ["linf:4/255"], "attack": f"pgd(steps={STEPS}, rel_step=2/3)", "iterate": iterate},
            "optimizer": {"lr": 1e-4, "lr_batch": 0},
            "engine": {"batch": args.batch, "precision": args.precision},
            "augment": {"smoothing": 0.1},
            "machine": {"compile": compiled},
        },
        "benchmark",
    )
    classes = Classes(tuple(f"class {k}" for k in range(CLASSES)))
    return make_learner(recipe, classes, 100 * args.batch, World(0, 1, torch.device(args.device)))


def images(args: argparse.Namespace) -> Batch:
    """Noise: the cost does not depend on what is seen."""
    x = torch.randint(0, 256, (args.batch, 3, args.size, args.size), dtype=torch.uint8)
    y = torch.randint(0, CLASSES, (args.batch,))
    return Batch(x, y, tuple(map(str, range(args.batch))), 0)


def passes(learner: Learner, batch: Batch) -> Callable[[], None]:
    """Three input-gradient passes, one training pass and the update, on the same module."""
    device = learner.world.device
    x = batch.x.to(device).float().div_(255).contiguous(memory_format=torch.channels_last)
    labels = F.one_hot(batch.y, CLASSES).float().to(device)
    model, optimizer = learner.classifier, learner.optimizer
    half = torch.autocast(device.type, torch.bfloat16, enabled=learner.recipe.engine.precision == "bfloat16")

    def run() -> None:
        with standing_still(model):
            for _ in range(STEPS):
                seen = x.detach().requires_grad_(True)
                torch.autograd.grad(soft_cross_entropy(model(seen), labels).sum(), seen)
        with half:
            logits = model(x)
        soft_cross_entropy(logits.float(), labels).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def straightforward(learner: Learner, batch: Batch) -> Callable[[], None]:
    """A loop as one writes it first: gradients of all parameters in the attack, contiguous layout."""
    device = learner.world.device
    model, optimizer = learner.classifier.to(memory_format=torch.contiguous_format), learner.optimizer
    clean, y = batch.x.to(device).float() / 255, batch.y.to(device)

    def run() -> None:
        model.eval()
        x = (clean + torch.empty_like(clean).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(STEPS):
            x = x.detach().requires_grad_(True)
            F.cross_entropy(model(x), y).backward()
            assert x.grad is not None
            moved: Tensor = x.detach() + 2 / 3 * EPS * x.grad.sign()
            x = torch.min(torch.max(moved, clean - EPS), clean + EPS).clamp(0, 1)
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(x.detach()), y, label_smoothing=0.1).backward()
        optimizer.step()

    return run


def now() -> float:
    """Seconds: of the processor, or on the clock once a GPU has nothing left to do."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def compare(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median ratio, and the fastest of each in seconds; run alternately, and in either order."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(-2, rounds):
        for side in (0, 1) if turn % 2 else (1, 0):
            began = now()
            (ours, theirs)[side]()
            took = now() - began
            if turn >= 0:
                times[side].append(took)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    return ratio, min(times[0]), min(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="timm:resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    print(f"{args.model}, {args.size} px, batch {args.batch}, {args.device}, {args.precision}")
    batch = images(args)
    for iterate, limit in (("last", 1.05), ("best", 1.15)):
        learner = make(args, iterate)
        plain = passes(learner, batch)
        ratio, a, b = compare(lambda learner=learner: learn(learner, batch), plain, args.rounds)  # type: ignore[misc]
        print(f"step, {iterate} iterate, over its passes: {ratio:.3f}  ({a:.3f} s, {b:.3f} s)  limit {limit}")
    learner, other = make(args), make(args)
    ratio, a, b = compare(lambda: learn(learner, batch), straightforward(other, batch), args.rounds)
    print(f"step over a straightforward loop: {ratio:.3f}  ({a:.3f} s, {b:.3f} s)  limit 0.75")
    if args.device.startswith("cuda"):
        compiled = make(args, compiled=True)
        ratio, a, b = compare(lambda: learn(compiled, batch), lambda: learn(learner, batch), args.rounds)
        print(f"compiled step over the eager one: {ratio:.3f}  ({a:.3f} s, {b:.3f} s)")


if __name__ == "__main__":
    main()
