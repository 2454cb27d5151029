"""Minimal-norm attacks by optimisation: beside exact answers, and beside other libraries at equal budgets."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
import torchattacks
from torch import nn

from aresbench.attacks import geometry
from aresbench.attacks.cw import CW
from aresbench.attacks.ead import EAD
from aresbench.attacks.fmn import FMN
from aresbench.attacks.sigma_zero import SigmaZero
from aresbench.core.errors import SpecError
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine.problem import EngineProblem
from aresbench.models.load import load_model
from aresbench.ops.random import Streams

# adv-lib imports a plotting server that its attacks do not need
sys.modules.setdefault("visdom", ModuleType("visdom"))
from adv_lib.attacks import carlini_wagner_l2, carlini_wagner_linf  # noqa: E402
from adv_lib.attacks import fmn as advlib_fmn  # noqa: E402
from adv_lib.attacks import sigma_zero as advlib_sigma_zero  # noqa: E402

INF = float("inf")
ORDER = {"linf": INF, "l2": 2, "l1": 1, "l0": 0}


def straight(w, x, gap, norm):
    """Least change [d] under linf or l2 with w·change ≥ gap in the box, by bisection; ``None``: there is none."""
    way = np.sign(w) if norm == "linf" else w
    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if w @ np.clip(middle * way, -x, 1 - x) >= gap else (middle, high)
    return np.clip(high * way, -x, 1 - x)


def sparse(w, x, gap, norm):
    """Least change under l1 or l0: the values that bring most (per unit of length under l1) go to the edge first."""
    room = np.where(w > 0, 1 - x, -x)
    change = np.zeros_like(x)
    for k in np.argsort(-np.abs(w if norm == "l1" else w * room)):
        left = gap - w @ change
        if left <= 0:
            break
        part = left / (w[k] * room[k]) if w[k] * room[k] > 0 else 0.0
        change[k] = room[k] * (min(1.0, part) if norm == "l1" else 1.0)
    return change


def nearest(model, x, y, norm):
    """Exact distance [N] from each image to the nearest break of a linear model in the box, in float64."""
    weight, bias = model.weight.detach().double().numpy(), model.bias.detach().double().numpy()
    best = np.full(len(x), np.inf)
    for i, (image, label) in enumerate(zip(x.flatten(1).double().numpy(), y.tolist(), strict=True)):
        logits = weight @ image + bias
        for k in set(range(len(bias))) - {label}:
            w, gap = weight[k] - weight[label], logits[label] - logits[k]
            change = (straight if norm in ("linf", "l2") else sparse)(w, image, gap, norm)
            if w @ change >= gap - 1e-9:
                best[i] = min(best[i], np.linalg.norm(change, ORDER[norm]))
    return best


class Bent(nn.Module):
    """Two inputs, a hidden layer of 12 ReLUs, three classes."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        self.first, self.second = nn.Linear(2, 12), nn.Linear(12, 3)
        with torch.no_grad():
            for layer in (self.first, self.second):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw))
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=draw) * 0.5 - 0.3)

    def forward(self, x):
        return self.second(self.first(x.flatten(1)).relu())


@pytest.fixture(scope="session")
def bent():
    """(model, images of two values, labels, {norm: exact distance [N]}): every point of a fine grid was tried."""
    model = Bent().eval().requires_grad_(False)
    x = 0.05 + 0.9 * torch.rand(40, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    side = torch.linspace(0, 1, 1001)
    across, down = (part.flatten() for part in torch.meshgrid(side, side, indexing="ij"))
    said = model(torch.stack((across, down), 1)).argmax(1)
    exact = {norm: [] for norm in ORDER}
    for (a, b), label in zip(x.flatten(1).tolist(), y, strict=True):
        first, second = (across[said != label] - a).abs(), (down[said != label] - b).abs()
        exact["linf"].append(torch.maximum(first, second).min())
        exact["l2"].append(torch.hypot(first, second).min())
        exact["l1"].append((first + second).min())
        lines = torch.stack((side, torch.full_like(side, b)), 1), torch.stack((torch.full_like(side, a), side), 1)
        exact["l0"].append(1.0 if any((model(line).argmax(1) != label).any() for line in lines) else 2.0)
    far = np.array(exact["linf"]) > 0.05  # nearer ones fall between the points of the grid
    return model, x[far], y[far], {norm: np.array(values)[far] for norm, values in exact.items()}


@pytest.fixture(scope="module", params=["samples:digits-plain", "samples:digits-robust"])
def committed(request):
    """(model, 20 images it gets right, their labels)."""
    model = load_model(request.param).eval().requires_grad_(False)
    data = load_dataset("digits")[:30]
    x, _, _ = load_images(data, range(30), model.preprocessing)
    y = torch.tensor(data.labels)
    with torch.no_grad():
        right = model(x).argmax(1) == y
    return model, x[right][:20], y[right][:20]


def peer_distance(model, x, y, found, norm):
    """Distances [N] of another library's images, infinite where they do not break."""
    with torch.no_grad():
        broken = model(found).argmax(1) != y
    return np.where(broken, geometry.distance(found, x, norm), np.inf)


def search(run, model, attack, x, y, norm, **options):
    """Distances found without any bound; none may be closer than the nearest possible."""
    return run(model, attack, x, y, norm, INF, goal="minimise", **options).distance.numpy()


# -- C&W --------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [False, True], ids=["box inactive", "box active"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_cw_finds_the_nearest_break(linear, run, norm, edges):
    """Far fewer than the default steps are enough; a third of the values may stand at exactly 0 or 1."""
    model, x, y = linear(edges=edges)
    ratio = search(run, model, CW(steps=540), x, y, norm) / nearest(model, x, y, norm)
    assert ratio.min() >= 1 - 1e-5
    assert ratio.max() <= 1.02


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_cw_finds_the_nearest_of_several_classes_for_most_images(linear, run, norm):
    model, x, y = linear(classes=5, n=24, edges=True)
    ratio = search(run, model, CW(steps=540), x, y, norm) / nearest(model, x, y, norm)
    assert ratio.min() >= 1 - 1e-5
    assert (ratio <= 1.02).mean() >= 0.9


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_cw_finds_the_nearest_break_of_a_small_network(bent, run, norm):
    model, x, y, exact = bent
    ratio = search(run, model, CW(steps=540), x, y, norm) / exact[norm]
    assert ratio.min() >= 0.96  # the grid has gaps
    assert (ratio <= 1.02).mean() >= 0.9


def test_cw_comes_back_to_images_at_the_very_boundary(linear, run):
    """With one length of step for all images, those nearest are overshot."""
    model, x, y = linear(low=0.4, high=0.6)
    with torch.no_grad():
        w = (model.weight[1 - y] - model.weight[y]).double()
        gap = (x.flatten(1).double() * w).sum(1) + (model.bias[1 - y] - model.bias[y])
        x = (x.flatten(1) - ((gap + 1e-2) / w.pow(2).sum(1))[:, None] * w).float().view_as(x)
    for norm in ("l2", "linf"):
        ratio = search(run, model, CW(steps=60), x, y, norm) / nearest(model, x, y, norm)
        assert ratio.max() <= 1.02


def test_cw_searches_the_least_weight_that_breaks(linear):
    model, x, y = linear(n=8, low=0.45, high=0.55)
    problem = EngineProblem(
        model, x, y, torch.full((8,), INF), Streams(0, "test", list("abcdefgh")),
        norm="l2", goal="minimise", num_classes=2, rows=torch.arange(8),
    )  # fmt: skip
    attack = CW(steps=900)
    state = attack.start(problem)
    while (state.t < 899).any():
        state = attack.step(problem, state)
        state.t = state.t + 1
    w = (model.weight[1 - y] - model.weight[y]).detach()
    least = -2 * ((x.flatten(1) * w).sum(1) + (model.bias[1 - y] - model.bias[y]).detach()) / w.pow(2).sum(1)
    np.testing.assert_allclose(state.sought / least, 1, atol=0.1)


def test_cw_reaches_the_nearest_point_of_the_target_class(linear, run):
    model, x, y = linear(classes=2)
    for norm in ("l2", "linf"):
        aimed = search(run, model, CW(steps=600), x, y, norm, target=1 - y)
        np.testing.assert_allclose(aimed / nearest(model, x, y, norm), 1, atol=0.02)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_cw_comes_nearer_than_advlib(committed, run, norm):
    """The peer's least tenth of an image's steps is ours: its L∞ search sets no limit to its rounds."""
    model, x, y = committed
    if norm == "l2":
        theirs = carlini_wagner_l2(model, x, y, max_iterations=20)
    else:
        theirs = carlini_wagner_linf(model, x, y, max_iterations=10, initial_const=1e-2)
    theirs = peer_distance(model, x, y, theirs, norm)
    mine = search(run, model, CW(steps=180), x, y, norm)
    assert np.isfinite(mine).all()
    assert np.median(mine) <= np.median(theirs)
    assert (mine <= theirs * 1.01).mean() >= 0.95


# -- EAD --------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [False, True], ids=["box inactive", "box active"])
def test_ead_finds_the_nearest_break(linear, run, edges):
    model, x, y = linear(n=16, edges=edges)
    ratio = search(run, model, EAD(steps=1200), x, y, "l1") / nearest(model, x, y, "l1")
    assert ratio.min() >= 1 - 1e-5
    assert ratio.max() <= 1.02


def test_ead_finds_the_nearest_of_several_classes_for_most_images(linear, run):
    model, x, y = linear(classes=5, n=16, edges=True)
    ratio = search(run, model, EAD(steps=900), x, y, "l1") / nearest(model, x, y, "l1")
    assert ratio.min() >= 1 - 1e-5
    assert (ratio <= 1.02).mean() >= 0.8  # it climbs towards the best logit, which is not always the nearest class


def test_ead_finds_the_nearest_break_of_a_small_network(bent, run):
    model, x, y, exact = bent
    ratio = search(run, model, EAD(steps=2700), x, y, "l1") / exact["l1"]
    assert ratio.min() >= 0.96
    assert (ratio <= 1.02).mean() >= 0.75
    assert np.median(ratio) <= 1.005


def test_ead_reaches_the_nearest_point_of_the_target_class(linear, run):
    model, x, y = linear(n=12)
    aimed = search(run, model, EAD(steps=900), x, y, "l1", target=1 - y)
    np.testing.assert_allclose(aimed / nearest(model, x, y, "l1"), 1, atol=0.02)


def test_ead_stays_inside_a_finite_budget(committed, run):
    model, x, y = committed
    out = run(model, EAD(steps=60), x, y, "l1", 12.0, goal="minimise")
    assert out.broken.any()
    assert (out.rejected == 0).all()


def test_ead_comes_much_nearer_than_torchattacks(committed, run):
    model, x, y = (part[:12] if isinstance(part, torch.Tensor) else part for part in committed)
    with torch.enable_grad():
        found = torchattacks.EADL1(model, max_iterations=27, binary_search_steps=9)(x, y).detach()
    theirs = peer_distance(model, x, y, found, "l1")
    mine = search(run, model, EAD(steps=240), x, y, "l1")
    assert np.isfinite(mine).all()
    assert np.median(mine) <= 0.95 * np.median(theirs)


# -- FMN under L1 and L0 (under L∞ and L2 beside the bounded attacks) -------------------------


@pytest.mark.parametrize("edges", [False, True], ids=["box inactive", "box active"])
def test_fmn_finds_the_nearest_break_under_l1(linear, run, edges):
    model, x, y = linear(edges=edges)
    ratio = search(run, model, FMN(), x, y, "l1") / nearest(model, x, y, "l1")
    assert ratio.min() >= 1 - 1e-5
    assert ratio.max() <= 1.02


@pytest.mark.parametrize("classes", [2, 5])
def test_fmn_finds_the_fewest_values_that_break(linear, run, classes):
    model, x, y = linear(classes=classes, edges=True)
    more = search(run, model, FMN(), x, y, "l0") - nearest(model, x, y, "l0")
    assert more.min() >= 0
    assert (more == 0).mean() >= 0.9
    assert more.max() <= 1


@pytest.mark.parametrize("norm", ["l1", "l0"])
def test_fmn_finds_the_nearest_break_of_a_small_network(bent, run, norm):
    model, x, y, exact = bent
    ratio = search(run, model, FMN(), x, y, norm) / exact[norm]
    assert ratio.min() >= (0.96 if norm == "l1" else 1)
    assert (ratio <= 1.02).mean() >= 0.8  # where the image's own side of a bend is not the break's, it may go astray


@pytest.mark.parametrize("norm", ["l1", "l0"])
def test_fmn_comes_as_near_as_advlib(committed, run, norm):
    model, x, y = committed
    theirs = peer_distance(model, x, y, advlib_fmn(model, x, y, norm=ORDER[norm], steps=60), norm)
    mine = search(run, model, FMN(steps=60), x, y, norm)
    assert np.isfinite(mine).all()
    assert np.median(mine) <= np.median(theirs) * 1.01
    if norm == "l1":
        assert (mine <= theirs * 1.02).mean() >= 0.9
    else:
        assert mine.mean() <= 0.95 * theirs.mean()


# -- sigma-zero -------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 5])
def test_sigma_zero_finds_the_fewest_values_that_break(linear, run, classes):
    model, x, y = linear(classes=classes, edges=True)
    more = search(run, model, SigmaZero(steps=500), x, y, "l0") - nearest(model, x, y, "l0")
    assert more.min() >= 0
    assert (more == 0).mean() >= 0.9
    assert more.max() <= 1


def test_sigma_zero_finds_the_fewest_values_of_a_small_network(bent, run):
    model, x, y, exact = bent
    more = search(run, model, SigmaZero(steps=300), x, y, "l0") - exact["l0"]
    assert more.min() >= 0
    assert (more == 0).mean() >= 0.8


def test_sigma_zero_finds_as_few_values_as_advlib(committed, run):
    model, x, y = committed
    theirs = peer_distance(model, x, y, advlib_sigma_zero(model, x, y, num_steps=120), "l0")
    mine = search(run, model, SigmaZero(steps=120), x, y, "l0")
    assert np.isfinite(mine).all()
    assert np.median(mine) <= np.median(theirs) + 1
    assert mine.mean() <= theirs.mean() * 1.05


def test_sigma_zero_descends_the_smooth_count_as_published(linear):
    """Three steps written out again from the paper's formulas, in float64, with Adam as in the authors' code."""
    model, x, y = linear(n=6)
    asked = []

    def watched(images):
        asked.append(images.detach().clone())
        return model(images)

    problem = EngineProblem(
        watched, x, y, torch.full((6,), INF), Streams(0, "test", list("abcdef")),
        norm="l0", goal="minimise", num_classes=2, rows=torch.arange(6),
    )  # fmt: skip
    attack = SigmaZero(steps=4, threshold=0.05)
    state = attack.start(problem)
    for _ in range(4):
        state = attack.step(problem, state)
        state.t = state.t + 1

    w = (model.weight[1 - y] - model.weight[y]).detach().double()
    x0 = x.flatten(1).double()
    delta, mean, square = torch.zeros_like(w), torch.zeros_like(w), torch.zeros_like(w)
    threshold = torch.full((6, 1), 0.05, dtype=torch.float64)
    for k, seen in enumerate(asked):
        torch.testing.assert_close(seen.flatten(1).double(), x0 + delta, rtol=0, atol=1e-5)
        broken = (model(seen).argmax(1) != y)[:, None]
        slope = 2 * 0.001 * delta / (delta**2 + 0.001) ** 2 / w.shape[1] - torch.where(broken, 0.0, w)
        slope = slope / slope.abs().amax(1, keepdim=True)
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        lr = 0.1 + 0.9 * (1 + np.cos(np.pi * k / 4)) / 2
        delta = delta - lr * (mean / (1 - 0.9 ** (k + 1))) / ((square / (1 - 0.999 ** (k + 1))).sqrt() + 1e-8)
        delta = (x0 + delta).clamp(0, 1) - x0
        threshold = (threshold + torch.where(broken, 0.01 * lr, -0.01 * lr)).clamp(0, 1)
        delta = torch.where(delta.abs() < threshold, 0.0, delta)
    assert len(asked) == 4


def test_sigma_zero_offers_nothing_beyond_a_finite_budget(committed, run):
    model, x, y = committed
    out = run(model, SigmaZero(steps=60), x, y, "l0", 8.0, goal="minimise")
    assert out.broken.any()
    assert (out.rejected == 0).all()
    assert (out.distance[out.broken] <= 8).all()


# -- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: CW(steps=0),
        lambda: CW(searches=0),
        lambda: CW(lr=0),
        lambda: EAD(beta=0),
        lambda: EAD(lr=0),
        lambda: SigmaZero(sigma=0),
        lambda: SigmaZero(threshold=2),
    ],
)
def test_senseless_settings_are_refused(make):
    with pytest.raises(SpecError, match="must be"):
        make()
