"""The suite on small models with true weights: full AutoAttack, curves, corruptions, transfer; a report, a leaderboard.

    python benchmarks/true_models.py [n] [out]

The digits pair of this package and its three EfficientNet-Lites, advertorch's MNIST pair and pyautoattack's CIFAR-10
ResNet-18 (``peer_models.py`` says how to get them; what is not installed is left out by name), on n images each
(default: 100; at most the 20 photographs there are; half of n for MNIST, a sixth for the ResNet-18).
``true_models.toml`` says what each is asked. The same command goes on where it stopped. Writes ``out/report.html``,
``out/site`` and, beside them, the archive.

At the end AutoAttack's verdicts are compared, image by image, with pyautoattack's own on the identical module.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import aresbench as ab
from aresbench.core.budget import parse_fraction
from aresbench.core.errors import AresError
from aresbench.core.suite import Suite, load_suite
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine.events import Event
from aresbench.engine.prepare import prepared
from aresbench.engine.results import Results
from aresbench.models.load import load_model
from aresbench.report.leaderboard.site import build_leaderboard
from aresbench.report.reading import Reading
from aresbench.store import Store

HERE = Path(__file__).parent
DIGITS, MNIST, CIFAR = "digits", "./peer_models.py:Mnist5k", "./peer_models.py:CifarExact"
MODELS = {
    DIGITS: ["samples:digits-plain", "samples:digits-robust"],
    MNIST: ["./peer_models.py:mnist_plain", "./peer_models.py:mnist_robust"],
    CIFAR: ["./peer_models.py:cifar_resnet18"],
    "samples": [f"samples:efficientnet-lite{k}" for k in range(3)],
}
SHARE = {MNIST: 0.5, CIFAR: 0.16}  # of n; where most images resist, or the network is large for one core
DATA = {model: data for data, models in MODELS.items() for model in models}
COMPARED = {  # L∞ budgets at which pyautoattack judges too
    "samples:digits-robust": 0.15,
    "./peer_models.py:mnist_robust": 0.3,
}


def parts(suite: Suite, n: int) -> Iterator[tuple[str, list[str], Suite, int]]:
    """Each dataset's part of the suite with the models that are installed, and its number of images."""
    for data, names in MODELS.items():
        try:
            count = min(max(1, int(n * SHARE.get(data, 1))), len(load_dataset(data)))
        except AresError as error:
            print(f"left out: {data}: {error}", flush=True)
            continue
        models = []
        for name in names:
            try:
                load_model(name)
                models.append(name)
            except AresError as error:
                print(f"left out: {name}: {error}", flush=True)
        tasks = tuple(task for task in suite.tasks if task.dataset == data)
        if models:
            yield data, models, dataclasses.replace(suite, tasks=tasks), count


def say(event: Event) -> None:
    """What was left out and why, and what each adversary took."""
    if event.kind in ("skip", "failed", "note"):
        print(f"{event.kind}: {event.message}", flush=True)


def compare(results: Results) -> None:
    """The verdicts of AutoAttack in the archive and pyautoattack's own on the identical prepared module."""
    try:
        from pyautoattack import AutoAttack as Peer
    except ImportError:
        print("left out: pyautoattack is not installed")
        return
    for reading in results["AutoAttack L∞"]:
        spec = next(m for models in MODELS.values() for m in models if m.removeprefix("./") == reading.model)
        if spec not in COMPARED:
            continue
        rows, eps = reading.images, COMPARED[spec]
        model, data = load_model(spec), load_dataset(DATA[spec]).take(len(rows))
        x, _, _ = load_images(data, range(len(data)), model.preprocessing)
        y = torch.tensor(data.labels)
        began = time.perf_counter()
        with prepared(model, x) as ready:
            peer = Peer(lambda z, ready=ready: ready(ready.place(z)), norm="Linf", eps=eps, device="cpu", seed=0)
            found, *_ = peer.run_standard_evaluation(x, y, batch_size=len(x))
        with torch.no_grad():
            theirs = (model(found).argmax(1) == y).numpy()
        breaking = rows.loc[list(data.ids), "breaking_budget"]
        ours = np.array([not isinstance(b, str) or float(parse_fraction(b)) > eps * 1.001 for b in breaking])
        different = [data.ids[k] for k in np.flatnonzero(ours != theirs)]
        seconds = f"{time.perf_counter() - began:.0f} s for theirs"
        print(f"{reading.model}, L∞ {eps:.3g}: of {len(x)} resist ours {ours.sum()}, theirs {theirs.sum()}; {seconds}")
        print(f"  verdicts differ on {len(different)}: {', '.join(different) or '–'}", flush=True)


def main() -> None:
    """Run, print the table, write the pages, compare."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    out = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="true-models-")).resolve()
    os.chdir(HERE)  # so that peer_models.py is named alike wherever this is started
    found: list[Reading] = []
    for data, models, suite, count in parts(load_suite("true_models.toml"), n):
        began = time.perf_counter()
        results = ab.evaluate(models, suite, n=count, store=out / "runs", progress=say)
        print(results)
        found += results.readings
        print(f"{data}: {count} images, {time.perf_counter() - began:.0f} s", flush=True)
    cells = Store(out / "runs").cells()
    ab.report(cells, out / "report.html")
    build_leaderboard(cells, out / "site")
    print(f"report: {out / 'report.html'}\nleaderboard: {out / 'site' / 'index.html'}", flush=True)
    compare(Results(found))


if __name__ == "__main__":
    main()
