"""Minimal-norm attacks beside the exact answer on linear models, and beside adv-lib on the committed models."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from aresbench.attacks import geometry
from aresbench.attacks.ddn import DDN
from aresbench.core.errors import SpecError
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine.problem import EngineProblem
from aresbench.models.load import load_model
from aresbench.ops.random import Streams

# adv-lib imports a plotting server that its attacks do not need
sys.modules.setdefault("visdom", ModuleType("visdom"))
from adv_lib.attacks.decoupled_direction_norm import ddn as advlib_ddn  # noqa: E402

INF = float("inf")


def nearest(model, x, y, norm):
    """Exact distance [N] from each image to the nearest break of a linear model in the box, by bisection in float64."""
    weight, bias = model.weight.detach().double(), model.bias.detach().double()
    x = x.flatten(1).double()
    logits = x @ weight.T + bias
    best = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for k in range(len(bias)):
        w = weight[k] - weight[y]
        gap = logits.gather(1, y[:, None])[:, 0] - logits[:, k]
        way = w.sign() if norm == "linf" else w
        low, high = torch.zeros(len(x), 1, dtype=torch.float64), torch.full((len(x), 1), 1e4, dtype=torch.float64)
        for _ in range(80):
            middle = (low + high) / 2
            enough = (w * ((x + middle * way).clamp(0, 1) - x)).sum(1, keepdim=True) >= gap[:, None]
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        delta = (x + high * way).clamp(0, 1) - x
        far = torch.linalg.vector_norm(delta, INF if norm == "linf" else 2, dim=1)
        reachable = ((w * delta).sum(1) >= gap - 1e-9) & (k != y)
        best = torch.minimum(best, torch.where(reachable, far, torch.inf))
    return best.numpy()


@pytest.fixture(scope="module", params=["samples:digits-plain", "samples:digits-robust"])
def committed(request):
    """(model, 96 images it gets right, their labels)."""
    model = load_model(request.param).eval().requires_grad_(False)
    data = load_dataset("digits")[:120]
    x, _, _ = load_images(data, range(120), model.preprocessing)
    y = torch.tensor(data.labels)
    with torch.no_grad():
        right = model(x).argmax(1) == y
    return model, x[right][:96], y[right][:96]


def peer_distance(model, x, y, found, norm):
    """Distances [N] of another library's images, infinite where they do not break."""
    with torch.no_grad():
        broken = model(found).argmax(1) != y
    return np.where(broken, geometry.distance(found, x, norm), np.inf)


# -- DDN --------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [False, True], ids=["box inactive", "box active"])
def test_ddn_finds_the_nearest_break(linear, run, edges):
    model, x, y = linear(edges=edges)
    out = run(model, DDN(), x, y, "l2", INF, goal="minimise")
    ratio = out.distance.numpy() / nearest(model, x, y, "l2")
    assert ratio.min() >= 1 - 1e-5
    assert (ratio <= 1.02).mean() >= (0.95 if edges else 1.0)  # where the box cuts, one small image comes less near
    assert ratio.max() <= 1.03


def test_ddn_comes_as_near_as_advlib_among_several_classes(linear, run):
    model, x, y = linear(classes=5)
    mine = run(model, DDN(), x, y, "l2", INF, goal="minimise").distance.numpy()
    theirs = peer_distance(model, x, y, advlib_ddn(model, x, y, levels=None), "l2")
    exact = nearest(model, x, y, "l2")
    assert (mine >= exact * (1 - 1e-5)).all()
    assert (mine <= theirs * 1.001).all()
    assert np.median(mine / exact) <= 1.25  # cross-entropy climbs towards several classes at once


def test_ddn_finds_the_distances_of_advlib(committed, run):
    model, x, y = committed
    mine = run(model, DDN(), x, y, "l2", INF, goal="minimise").distance.numpy()
    theirs = peer_distance(model, x, y, advlib_ddn(model, x, y, levels=None), "l2")
    assert np.isfinite(mine).all()
    assert np.median(mine) <= np.median(theirs) * 1.001
    assert (np.abs(mine / theirs - 1) <= 0.01).mean() >= 0.95


def test_ddn_with_levels_offers_only_images_of_8_bits(committed, run):
    model, x, y = (part[:24] if isinstance(part, torch.Tensor) else part for part in committed)
    for eps in (INF, 1.5):
        out = run(model, DDN(steps=60, levels=256), x, y, "l2", eps, goal="minimise")
        steps = out.x_adv[out.broken] * 255
        assert out.broken.any()
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
        assert (out.rejected == 0).all()
        assert (out.distance[out.broken] <= eps).all()


def test_ddn_walks_the_sphere_as_published(linear):
    """Three steps written out again from the paper's formulas, in float64."""
    model, x, y = linear(n=6, low=0.45, high=0.55)
    asked = []

    def watched(images):
        asked.append(images.detach().clone())
        return model(images)

    problem = EngineProblem(
        watched, x, y, torch.full((6,), INF), Streams(0, "test", list("abcdef")),
        norm="l2", goal="minimise", num_classes=2, rows=torch.arange(6),
    )  # fmt: skip
    attack = DDN(steps=4, init_norm=0.2, gamma=0.1)
    state = attack.start(problem)
    for _ in range(4):
        state = attack.step(problem, state)
        state.t = state.t + 1
    attack.finish(problem, state)

    w = (model.weight[1 - y] - model.weight[y]).detach().double()
    delta, radius = torch.zeros_like(w), torch.full((6, 1), 0.2, dtype=torch.float64)
    for k, seen in enumerate(asked):
        torch.testing.assert_close(seen.flatten(1).double(), x.flatten(1).double() + delta, rtol=0, atol=1e-6)
        logits = model(seen).detach()
        broken = (logits.argmax(1) != y)[:, None]
        alpha = 0.01 + 0.99 * (1 + np.cos(np.pi * k / 4)) / 2
        delta = delta + alpha * w / w.norm(dim=1, keepdim=True)
        radius = torch.where(broken, radius * 0.9, radius * 1.1)
        delta = radius * delta / delta.norm(dim=1, keepdim=True)
    assert len(asked) == 5


@pytest.mark.parametrize(
    "make", [lambda: DDN(steps=0), lambda: DDN(gamma=1.0), lambda: DDN(init_norm=0), lambda: DDN(levels=1)]
)
def test_senseless_settings_are_refused(make):
    with pytest.raises(SpecError, match="must be"):
        make()
