"""On linear models the right answer is known; every attack must find it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aresbench.attacks.apgd import APGDCE, APGDDLR, APGDPM
from aresbench.attacks.apgd_t import APGDT
from aresbench.attacks.bim import BIM
from aresbench.attacks.fgsm import FGSM
from aresbench.attacks.fmn import FMN
from aresbench.attacks.losses import margin
from aresbench.attacks.mim import MIM
from aresbench.attacks.pgd import PGD
from aresbench.attacks.square import Square

BOUNDED = [FGSM(), BIM(), MIM(), PGD(), PGD(random_start=False), APGDCE(), APGDDLR(), APGDPM(), APGDT()]


def direction(model, y):
    """Gradient of (other logit − true logit) of a two-class linear model, [N, d]."""
    return (model.weight[1 - y] - model.weight[y]).detach()


def needed(model, x, y):
    """How much (other logit − true logit) must rise for each of the other classes: ([N, K-1, d], [N, K-1])."""
    weight, bias = model.weight.detach().double(), model.bias.detach().double()
    logits = x.flatten(1).double() @ weight.T + bias
    n, k = logits.shape
    others = torch.stack([torch.tensor([c for c in range(k) if c != label]) for label in y.tolist()])
    slopes = weight[others] - weight[y][:, None]
    return slopes.numpy(), (logits[torch.arange(n), y][:, None] - logits.gather(1, others)).numpy()


def fill(w, x, length):
    """The change of L1 norm ``length`` inside the box along which w·x rises most: the steepest go to the edge."""
    room, change, spent = np.where(w > 0, 1 - x, x), np.zeros_like(w), 0.0
    for k in np.argsort(-np.abs(w)):
        change[k] = min(room[k], max(length - spent, 0.0))
        spent += room[k]
    return np.sign(w) * change


def nearest(model, x, y, norm):
    """Exact distance [N] to the nearest misclassified point of the box, by bisection in float64."""
    slopes, gaps = needed(model, x, y)
    x = x.flatten(1).double().numpy()
    distances = np.empty(gaps.shape)
    for i in range(len(x)):
        for k in range(gaps.shape[1]):
            w = slopes[i, k]

            def change(scale, w=w, i=i):
                if norm == "l1":
                    return fill(w, x[i], scale)
                way = np.sign(w) if norm == "linf" else w
                return np.clip(scale * way, -x[i], 1 - x[i])

            low, high = 0.0, 1e4
            for _ in range(100):
                middle = (low + high) / 2
                low, high = (low, middle) if w @ change(middle) >= gaps[i, k] else (middle, high)
            delta = change(high)
            distances[i, k] = (
                np.inf
                if w @ delta < gaps[i, k] - 1e-9
                else np.linalg.norm(delta, {"linf": np.inf, "l2": 2, "l1": 1}[norm])
            )
    return distances.min(1)


@pytest.mark.parametrize("edges", [False, True], ids=["box inactive", "box active"])
@pytest.mark.parametrize("attack", BOUNDED, ids=str)
def test_bounded_attacks_reach_the_worst_linf_point(linear, run, attack, edges):
    low, high = (0.0, 1.0) if edges else (0.3, 0.7)
    model, x, y = linear(low=low, high=high, edges=edges)
    eps = 0.1
    out = run(model, attack, x, y, "linf", eps, goal="maximise", keep="best")
    worst = (x.flatten(1) + eps * direction(model, y).sign()).clamp(0, 1).view_as(x)
    with torch.no_grad():
        found, truth = margin(model(out.x_adv), y), margin(model(worst), y)
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "attack", [FGSM(), BIM(), MIM(), PGD(steps=100), APGDCE(), APGDDLR(), APGDPM(), APGDT()], ids=str
)
def test_bounded_attacks_reach_the_worst_l2_point(linear, run, attack):
    model, x, y = linear(low=0.4, high=0.6)
    eps = 0.3  # no pixel moves by more than 0.3, so the box plays no part
    out = run(model, attack, x, y, "l2", eps, goal="maximise", keep="best")
    w = direction(model, y)
    worst = (x.flatten(1) + eps * w / w.norm(dim=1, keepdim=True)).view_as(x)
    with torch.no_grad():
        found, truth = margin(model(out.x_adv), y), margin(model(worst), y)
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("attack", BOUNDED, ids=str)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bounded_attacks_break_just_above_the_exact_distance_and_not_below(linear, run, attack, norm):
    model, x, y = linear(low=0.3, high=0.7)
    exact = torch.tensor(nearest(model, x, y, norm))
    assert run(model, attack, x, y, norm, exact * 1.01).broken.all()
    assert not run(model, attack, x, y, norm, exact * 0.99).broken.any()


@pytest.mark.parametrize("edges", [False, True], ids=["box inactive", "box active"])
@pytest.mark.parametrize("attack", [FGSM(), BIM()], ids=str)
def test_steps_from_the_image_reach_the_worst_l1_point(linear, run, attack, edges):
    model, x, y = linear(edges=edges)
    eps = 3.0
    out = run(model, attack, x, y, "l1", eps, goal="maximise", keep="best")
    ways, images = direction(model, y).double().numpy(), x.flatten(1).double().numpy()
    worst = [a + fill(w, a, eps) for w, a in zip(ways, images, strict=True)]
    with torch.no_grad():
        found, truth = margin(model(out.x_adv), y), margin(model(torch.tensor(np.array(worst)).float().view_as(x)), y)
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-5)


# APGD moves several values at once, by the same amount: where one or two are best it stays above the distance.
@pytest.mark.parametrize("edges", [False, True], ids=["box inactive", "box active"])
@pytest.mark.parametrize(
    ("attack", "factor", "share"),
    [
        (FGSM(), 1.01, 1.0),
        (BIM(), 1.01, 1.0),
        (PGD(), 1.03, 1.0),
        (PGD(steps=100, rel_step=0.05), 1.01, 1.0),
        (APGDCE(), 1.25, 0.9),
        (APGDT(steps=40), 1.25, 0.9),
    ],
    ids=str,
)
def test_bounded_attacks_break_above_the_exact_l1_distance_and_not_below(linear, run, attack, factor, share, edges):
    model, x, y = linear(edges=edges)
    exact = torch.tensor(nearest(model, x, y, "l1"))
    assert run(model, attack, x, y, "l1", exact * factor).broken.float().mean() >= share
    assert not run(model, attack, x, y, "l1", exact * 0.99).broken.any()


@pytest.mark.parametrize("classes", [3, 6])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_t_tries_every_class_so_that_it_finds_the_nearest(linear, run, norm, classes):
    model, x, y = linear(classes=classes, low=0.3, high=0.7)
    exact = torch.tensor(nearest(model, x, y, norm))
    assert run(model, APGDT(), x, y, norm, exact * 1.01).broken.all()
    assert not run(model, APGDT(steps=10), x, y, norm, exact * 0.99).broken.any()


@pytest.mark.parametrize("edges", [False, True], ids=["box inactive", "box active"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fmn_finds_the_nearest_break(linear, run, norm, edges):
    model, x, y = linear(edges=edges)
    out = run(model, FMN(), x, y, norm, float("inf"), goal="minimise")
    ratio = out.distance.numpy() / nearest(model, x, y, norm)
    assert ratio.min() >= 1 - 1e-5
    assert ratio.max() <= 1.02


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fmn_finds_the_nearest_of_several_classes_for_most_images(linear, run, norm):
    model, x, y = linear(classes=5)
    out = run(model, FMN(), x, y, norm, float("inf"), goal="minimise")
    ratio = out.distance.numpy() / nearest(model, x, y, norm)
    assert ratio.min() >= 1 - 1e-5
    assert (ratio <= 1.02).mean() >= 0.8  # it climbs towards the best logit, which is not always the nearest class


@pytest.mark.parametrize("edges", [False, True], ids=["box inactive", "box active"])
def test_square_comes_within_a_quarter_of_the_nearest_break(linear, run, edges):
    model, x, y = linear(edges=edges)
    exact = torch.tensor(nearest(model, x, y, "linf"))
    square = Square(queries=2000)
    assert run(model, square, x, y, "linf", exact * 1.25).broken.all()
    assert not run(model, square, x, y, "linf", exact * 0.99).broken.any()


@pytest.mark.parametrize("attack", [*BOUNDED, Square(queries=2000)], ids=str)
def test_targets_are_reached_and_nothing_else_counts(linear, run, attack):
    model, x, y = linear(classes=4)
    target = (y + 1) % 4
    out = run(model, attack, x, y, "linf", 0.35, target=target)
    with torch.no_grad():
        assert (model(out.x_adv[out.broken]).argmax(1) == target[out.broken]).all()
    assert out.broken.float().mean() >= 0.9


def test_fmn_finds_the_nearest_point_of_the_target_class(linear, run):
    model, x, y = linear(classes=2)
    free = run(model, FMN(), x, y, "l2", float("inf"), goal="minimise")
    aimed = run(model, FMN(), x, y, "l2", float("inf"), goal="minimise", target=1 - y)
    torch.testing.assert_close(aimed.distance, free.distance, rtol=1e-3, atol=0)
