"""Our attacks beside other libraries' on the same models and images, at equal steps or queries.

    python benchmarks/side_by_side.py                       everything, and docs/explanation/side-by-side.md
    python benchmarks/side_by_side.py --case digits-robust --attack fmn
    python benchmarks/side_by_side.py --page                the page alone, of what was measured so far

All go through one counting module around the one model, and one referee judges what all return: image by image,
inside ball and box, and wrong. Each result is kept in ``build/side-by-side.json``, so that the page can be made of
parts. A library that is not installed, or images that are not at hand, are left out by name.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side_cases import CASES, INF, Case
from side_by_side_page import write
from side_by_side_peers import COMPARISONS, Comparison, silent
from torch import Tensor, nn

import aresbench as ab

ROOT = Path(__file__).parents[1]
LIBRARIES = ("pyautoattack", "adv-lib", "foolbox", "torchattacks", "adversarial-robustness-toolbox", "advertorch")


class Counting(nn.Module):
    """The model, with the images counted that go forwards through it and backwards; copies share the count."""

    def __init__(self, model: nn.Module, count: dict[str, int]) -> None:
        super().__init__()
        self.model, self.count = model, count
        self.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Counting:
        return Counting(copy.deepcopy(self.model, memo), self.count)

    def forward(self, x: Tensor) -> Tensor:
        self.count["forwards"] += len(x)
        logits = self.model(x.float())  # some libraries hand over float64
        if logits.requires_grad:
            logits.register_hook(self._backwards)
        return logits

    def _backwards(self, gradient: Tensor) -> None:
        self.count["backwards"] += len(gradient)


def referee(
    model: nn.Module, x: Tensor, y: Tensor, found: Tensor, norm: str, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """[N] wrong and inside, [N] distance (infinite where not wrong): each image alone, in plain torch."""
    wrong, far = [], []
    with torch.no_grad():
        for clean, label, point in zip(x, y, found.float(), strict=True):
            inside = bool(torch.isfinite(point).all() and point.min() >= -1e-6 and point.max() <= 1 + 1e-6)
            change = (point.clamp(0, 1) - clean).flatten().double()
            size = {
                "linf": change.abs().max(),
                "l2": change.norm(),
                "l1": change.abs().sum(),
                "l0": (change != 0).sum(),
            }
            near = float(size[norm]) <= eps * (1 + 1e-5) + 1e-7
            breaks = bool(model(point.clamp(0, 1)[None]).argmax() != label) and inside and near
            wrong.append(breaks)
            far.append(float(size[norm]) if breaks else INF)
    return np.array(wrong), np.array(far)


def measured(case: Case, at: Comparison, spec: str, call: Any) -> dict[str, Any]:
    """Run one side and judge it."""
    count = {"forwards": 0, "backwards": 0}
    eps = INF if at.minimal else case.budgets[at.norm] * at.scale
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  (some libraries draw from it)
    began = time.perf_counter()
    if call is None:
        found = ours(case, at, spec, count)
    else:
        searched = Counting(case.source or case.model, count)
        found = silent(call)(searched, case.x.clone(), case.y.clone(), eps).detach()
    seconds = time.perf_counter() - began
    wrong, far = referee(case.model, case.x, case.y, found, at.norm, eps)
    n = len(case.x)
    return {
        "forwards": count["forwards"] / n, "backwards": count["backwards"] / n, "seconds": seconds,
        "wrong": wrong.tolist(), "far": [None if math.isinf(d) else d for d in far],
    }  # fmt: skip


def ours(case: Case, at: Comparison, spec: str, count: dict[str, int]) -> Tensor:
    if at.minimal:
        top = {"linf": 1, "l2": 100, "l1": 10_000, "l0": 10**6}[at.norm]
        return ab.attack(Counting(case.model, count), case.x, case.y, spec, f"{at.norm}:{top}").x_adv
    budget = f"{at.norm}:{case.budgets[at.norm] * at.scale}"
    if case.source is not None:
        return ab.attack(case.model, case.x, case.y, spec, budget, surrogate=Counting(case.source, count)).x_adv
    return ab.attack(Counting(case.model, count), case.x, case.y, spec, budget).x_adv


def run(case: Case, at: Comparison) -> dict[str, Any]:
    """One of our attacks and its peers on one case."""
    case = case.take(at.images)
    peers: dict[str, Any] = {}
    for peer in at.peers:
        try:
            peers[peer.name] = measured(case, at, at.spec, peer.call) | {"note": peer.note}
        except ImportError as error:
            peers[peer.name] = {"failed": f"not installed ({error.name})", "note": peer.note}
        except Exception as error:  # other people's code: what it raises is part of what is shown
            peers[peer.name] = {"failed": f"{type(error).__name__}: {str(error)[:80]}", "note": peer.note}
    took = [p["forwards"] for p in peers.values() if "failed" not in p]
    spec = at.spec.replace("{q}", str(round(took[0]))) if took else at.spec.replace("{q}", "1000")
    out = {"spec": spec, "norm": at.norm, "minimal": at.minimal, "right": case.right.tolist(), "peers": peers}
    return out | {
        "ours": measured(case, at, spec, None),
        "eps": None if at.minimal else case.budgets[at.norm] * at.scale,
    }


def line(key: str, found: dict[str, Any]) -> str:
    right = np.array(found["right"])

    def score(side: dict[str, Any]) -> str:
        if "failed" in side:
            return side["failed"]
        far = np.array([INF if d is None else d for d in side["far"]])
        value = f"{np.median(far[right]):.4f}" if found["minimal"] else f"{1 - np.mean(side['wrong']):.3f}"
        return f"{value} ({side['forwards']:.0f}+{side['backwards']:.0f}, {side['seconds']:.1f} s)"

    sides = {"ours": found["ours"], **found["peers"]}
    return f"{key}: " + "; ".join(f"{name} {score(side)}" for name, side in sides.items())


def versions() -> dict[str, str]:
    known = {}
    for name in ("torch", *LIBRARIES):
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            known[name] = "not installed"
    return {"python": platform.python_version(), **known, "machine": f"{platform.system()} {platform.machine()}"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", default="", help="cases whose name holds this word")
    parser.add_argument("--attack", default="", help="attacks whose spec begins with this word")
    parser.add_argument(
        "--kept", type=Path, default=ROOT / "build" / "side-by-side.json", help="where results are kept"
    )
    parser.add_argument("--page", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    kept = json.loads(chosen.kept.read_text("utf-8")) if chosen.kept.is_file() else {}
    chosen.kept.parent.mkdir(parents=True, exist_ok=True)
    for name, make in {} if chosen.page else CASES.items():
        if chosen.case not in name:
            continue
        try:
            case = make()
        except ImportError as error:
            kept[name] = {"title": name, "missing": str(error.name or error)}
            continue
        part = kept.setdefault(name, {})
        part |= {"title": case.title, "n": len(case.x), "clean": float(case.right.float().mean())}
        for at in COMPARISONS:
            if name in at.cases and at.spec.startswith(chosen.attack):
                key = f"{at.spec} {at.norm}"
                part.setdefault("rows", {})[key] = found = run(case, at)
                print(line(f"{name}: {key}", found), flush=True)
                kept["versions"] = versions()
                chosen.kept.write_text(json.dumps(kept), "utf-8")
    write(kept, list(CASES), ROOT / "docs" / "explanation" / "side-by-side.md")


if __name__ == "__main__":
    main()
