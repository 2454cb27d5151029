"""Minimal-norm attacks beside the exact answer on linear models, and beside adv-lib on the committed models."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from aresbench.attacks import geometry
from aresbench.attacks.ddn import DDN
from aresbench.attacks.deepfool import DeepFool
from aresbench.core.errors import SpecError
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine.problem import EngineProblem
from aresbench.models.load import load_model
from aresbench.ops.random import Streams

# adv-lib imports a plotting server that its attacks do not need
sys.modules.setdefault("visdom", ModuleType("visdom"))
from adv_lib.attacks.decoupled_direction_norm import ddn as advlib_ddn  # noqa: E402
from adv_lib.attacks.deepfool import df as advlib_deepfool  # noqa: E402

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


# -- DeepFool ---------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_deepfool_is_exact_after_one_step(linear, run, norm, classes):
    model, x, y = linear(classes=classes, low=0.3, high=0.7)
    out = run(model, DeepFool(), x, y, norm, INF, goal="minimise")
    np.testing.assert_allclose(out.distance.numpy() / nearest(model, x, y, norm), 1.02, rtol=1e-3)
    assert (out.first_step == 1).all()
    assert (out.forwards == classes + 2).all()  # the image, each rival's gradient, the point, the judge's own
    assert (out.backwards == classes - 1).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_deepfool_finds_the_nearest_break_where_the_box_cuts(linear, run, norm):
    model, x, y = linear(edges=True)
    out = run(model, DeepFool(), x, y, norm, INF, goal="minimise")
    ratio = out.distance.numpy() / nearest(model, x, y, norm)
    assert ratio.min() >= 1 - 1e-5
    assert ratio.max() <= 1.0201
    assert (out.first_step > 1).any()  # the box took part


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_deepfool_reaches_the_nearest_point_of_the_target_class(linear, run, norm):
    model, x, y = linear(classes=4, low=0.3, high=0.7)
    target = (y + 1) % 4
    out = run(model, DeepFool(), x, y, norm, INF, goal="minimise", target=target)
    assert (out.prediction == target).all()
    free = run(model, DeepFool(), x, y, norm, INF, goal="minimise")
    assert (out.distance >= free.distance * 0.999).all()
    two, x, y = linear(low=0.3, high=0.7)
    aimed = run(two, DeepFool(), x, y, norm, INF, goal="minimise", target=1 - y)
    np.testing.assert_allclose(aimed.distance.numpy() / nearest(two, x, y, norm), 1.02, rtol=1e-3)


def test_deepfool_looks_only_at_the_candidates(linear, run):
    model, x, y = linear(classes=6, low=0.3, high=0.7)
    out = run(model, DeepFool(candidates=2), x, y, "l2", INF, goal="minimise")
    all_of_them = run(model, DeepFool(), x, y, "l2", INF, goal="minimise")
    assert (out.distance > all_of_them.distance * 1.01).any()
    assert (out.backwards < all_of_them.backwards).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_deepfool_finds_the_distances_of_advlib(committed, run, norm):
    model, x, y = committed
    mine = run(model, DeepFool(), x, y, norm, INF, goal="minimise").distance.numpy()
    order = INF if norm == "linf" else 2
    theirs = peer_distance(model, x, y, advlib_deepfool(model, x, y, steps=50, norm=order), norm)
    assert np.isfinite(mine).all()
    assert np.median(mine) <= np.median(theirs) * 1.01
    # The peer adds 1e-4 to each step, which makes it a little farther where distances are small.
    assert (mine / theirs).max() <= 1.01
    assert (mine / theirs).min() >= 0.97


# -- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: DDN(steps=0),
        lambda: DDN(gamma=1.0),
        lambda: DDN(init_norm=0),
        lambda: DDN(levels=1),
        lambda: DeepFool(overshoot=-0.1),
        lambda: DeepFool(candidates=1),
    ],
)
def test_senseless_settings_are_refused(make):
    with pytest.raises(SpecError, match="must be"):
        make()
