"""Distances, projections, steps and starts against plain definitions, scipy, and their own promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from aresbench.attacks import geometry
from aresbench.core.errors import SpecError
from aresbench.ops.random import Streams

NORMS = ["linf", "l2", "l1"]
ORD = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}


def images(n, shape=(3, 7, 5), seed=0, edges=True):
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *shape, generator=draw)
    if edges:
        x[x < 0.15], x[x > 0.85] = 0.0, 1.0
    return x, draw


def streams(n):
    return Streams(0, "test", [f"image {k}" for k in range(n)])


@pytest.mark.parametrize("norm", ORD)
def test_distance_is_the_norm_of_the_difference(norm):
    x, draw = images(6)
    other = torch.rand(x.shape, generator=draw)
    other[:, 0] = x[:, 0]
    wanted = [np.linalg.norm((a - b).double().numpy().ravel(), ORD[norm]) for a, b in zip(other, x, strict=True)]
    np.testing.assert_allclose(geometry.distance(other, x, norm), wanted, rtol=1e-6)


def test_l2_distance_of_a_large_image_is_exact_to_float32():
    x, draw = images(2, (3, 224, 224))
    other = torch.rand(x.shape, generator=draw)
    wanted = (other.double() - x.double()).flatten(1).norm(dim=1)
    torch.testing.assert_close(geometry.distance(other, x, "l2").double(), wanted, rtol=2e-7, atol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [0.001, 0.1, 3.0])
def test_projection_lands_in_ball_and_box_and_stays_there(norm, scale):
    x0, draw = images(40)
    eps = scale * torch.rand(40, generator=draw) * (10 if norm == "l1" else 1)
    far = x0 + 4 * scale * torch.randn(x0.shape, generator=draw)
    x = geometry.project(far, x0, eps, norm)
    assert x.min() >= 0 and x.max() <= 1
    assert (geometry.distance(x, x0, norm) <= geometry.allowance(eps)).all()
    torch.testing.assert_close(geometry.project(x, x0, eps, norm), x, rtol=0, atol=1e-7)
    assert geometry.project_(far, x0, eps, norm) is far  # in place
    assert torch.equal(far, x)


@pytest.mark.parametrize("eps", [0.1, 12.0, 600.0])
def test_l1_projection_of_a_large_image_is_inside_without_any_allowance(eps):
    x0, draw = images(2, (3, 224, 224))
    x = geometry.project(x0 + 0.01 * torch.randn(x0.shape, generator=draw), x0, torch.full((2,), eps), "l1")
    size = (x.double() - x0.double()).abs().flatten(1).sum(1)
    assert (size <= eps).all()
    assert (size >= eps * (1 - 1e-3) - 0.01).all()  # and no more is lost than rounding of 150 000 values


@pytest.mark.parametrize("norm", NORMS)
def test_projection_leaves_points_inside_alone_and_returns_the_image_at_eps_zero(norm):
    x0, draw = images(10)
    near = (x0 + 0.001 * torch.randn(x0.shape, generator=draw)).clamp(0, 1)
    torch.testing.assert_close(geometry.project(near, x0, torch.full((10,), 2.0), norm), near, rtol=0, atol=1e-7)
    assert torch.equal(geometry.project(torch.rand(x0.shape, generator=draw), x0, torch.zeros(10), norm), x0)
    assert torch.equal(geometry.project(near, x0, torch.full((10,), torch.inf), "linf"), near)


def test_stretching_reaches_the_surface_under_l2_only():
    x0, draw = images(6, edges=False)
    x0 = 0.4 + 0.2 * x0
    eps = 0.1 + 0.2 * torch.rand(6, generator=draw)
    eps[5] = 0
    near = x0 + 0.001 * torch.randn(x0.shape, generator=draw)
    near[0] = x0[0]
    wanted = eps.clone()
    wanted[0] = 0  # no direction to go
    torch.testing.assert_close(geometry.distance(geometry.stretch_(near.clone(), x0, eps, "l2"), x0, "l2"), wanted)
    assert torch.equal(geometry.stretch_(near.clone(), x0, eps, "linf"), geometry.project(near, x0, eps, "linf"))


@pytest.mark.parametrize(("norm", "edges"), [("linf", True), ("linf", False), ("l2", False)])
def test_projection_is_the_nearest_admissible_point(norm, edges):
    x0, draw = images(5, (1, 2, 3), edges=edges)
    x0 = x0 if edges else 0.4 + 0.2 * x0
    eps = 0.05 + 0.2 * torch.rand(5, generator=draw)
    far = x0 + 0.4 * torch.randn(x0.shape, generator=draw)
    ours = geometry.project(far, x0, eps, norm)
    for i in range(5):
        a, z, e = x0[i].flatten().double().numpy(), far[i].flatten().double().numpy(), float(eps[i])
        low, high = np.maximum(a - e, 0), np.minimum(a + e, 1)
        ball = {"type": "ineq", "fun": lambda v, a=a, e=e: e**2 - ((v - a) ** 2).sum()}
        found = optimize.minimize(
            lambda v, z=z: ((v - z) ** 2).sum(),
            a,
            jac=lambda v, z=z: 2 * (v - z),
            bounds=list(zip(low, high, strict=True)),
            constraints=[ball] if norm == "l2" else [],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(ours[i].flatten().double(), found.x, atol=2e-4)


def water_filling(x0, target, eps):
    """The nearest point of L1 ball and box, from its optimality condition, in numpy and scipy."""
    change = target - x0
    room = np.where(change > 0, 1 - x0, x0)

    def spare(loss):
        return np.minimum(np.maximum(np.abs(change) - loss, 0), room).sum() - eps

    loss = optimize.brentq(spare, 0, np.abs(change).max(), xtol=1e-15, rtol=1e-14) if spare(0) > 0 else 0.0
    return x0 + np.sign(change) * np.minimum(np.maximum(np.abs(change) - loss, 0), room)


def test_l1_projection_is_the_exact_one_in_200_cases():
    draw = np.random.default_rng(0)
    for _ in range(200):
        d, eps = int(draw.integers(1, 51)), float(np.exp(draw.normal(0, 1.5)))
        x0 = draw.random(d).round(int(draw.integers(0, 3)) + 1) * draw.choice([0, 1, 1], d)
        target = x0 + draw.normal(0, np.exp(draw.normal(-1, 1)), d)
        shape = (1, 1, 1, d)
        ours = geometry.project(
            torch.tensor(target).view(shape),
            torch.tensor(x0).view(shape),
            torch.tensor([eps], dtype=torch.float64),
            "l1",
        )
        np.testing.assert_allclose(ours.flatten(), water_filling(x0, target, eps), atol=1e-12)


def test_l1_projection_is_what_a_quadratic_programme_finds():
    x0, draw = images(12, (1, 3, 4))
    eps = 0.2 + 2 * torch.rand(12, generator=draw)
    far = x0 + 0.7 * torch.randn(x0.shape, generator=draw)
    ours = geometry.project(far, x0, eps, "l1")
    for i in range(12):
        a, z, e = x0[i].flatten().double().numpy(), far[i].flatten().double().numpy(), float(eps[i])
        # x = a + up - down, both at least 0
        found = optimize.minimize(
            lambda v, a=a, z=z: ((a + v[:12] - v[12:] - z) ** 2).sum(),
            np.zeros(24),
            jac=lambda v, a=a, z=z: np.concatenate((g := 2 * (a + v[:12] - v[12:] - z), -g)),
            bounds=[(0, b) for b in (1 - a)] + [(0, b) for b in a],
            constraints=[{"type": "ineq", "fun": lambda v, e=e: e - v.sum(), "jac": lambda v: -np.ones(24)}],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(ours[i].flatten().double(), a + found.x[:12] - found.x[12:], atol=2e-5)


@pytest.mark.parametrize("edges", [False, True])
def test_an_l1_step_is_the_best_of_its_length_inside_the_box(edges):
    x, draw = images(10, edges=edges)
    gradient = torch.randn(x.shape, generator=draw)
    gradient[0, :, :2] = 0  # nowhere to go
    step = torch.tensor([0.0, 0.3, 1, 2, 5, 10, 20, 50, 100, 1000])
    moved = geometry.ascend(x, gradient, step, "l1")
    assert moved.min() >= 0 and moved.max() <= 1
    d = x[0].numel()
    for i in range(10):
        a, g = x[i].flatten().double().numpy(), gradient[i].flatten().double().numpy()
        found = optimize.linprog(
            np.concatenate((-g, g)), A_ub=np.ones((1, 2 * d)), b_ub=[float(step[i])],
            bounds=[(0, b) for b in (1 - a)] + [(0, b) for b in a],
        )  # fmt: skip
        change = (moved[i] - x[i]).flatten().double().numpy()
        np.testing.assert_allclose(g @ change, -found.fun, rtol=1e-6, atol=1e-6)
        assert np.abs(change).sum() <= step[i] * (1 + 1e-6) + 1e-7


def test_keeping_the_worthiest_values_puts_all_others_back_to_the_bit():
    x0, draw = images(7)
    x = torch.rand(x0.shape, generator=draw)
    x[:, 1] = x0[:, 1]  # two thirds of the values differ
    worth = torch.randn(x.shape, generator=draw)
    count = torch.tensor([0.0, 1.0, 3.5, 20.0, 69.0, 70.0, torch.inf])
    for memory in (torch.contiguous_format, torch.channels_last):
        kept = geometry.keep_(x.clone(memory_format=memory), x0, count, worth)
        assert torch.equal(geometry.distance(kept, x0, "l0"), count.floor().clamp_max(70))
        stay = kept != x0
        assert torch.equal(kept[stay], x[stay])
        for k in range(1, 6):
            back = (x[k] != x0[k]) & ~stay[k]
            assert not back.any() or worth[k][stay[k]].min() >= worth[k][back].max()
    largest = geometry.project(2 * x - 0.5, x0, count, "l0")
    assert (geometry.distance(largest, x0, "l0") <= count).all()
    assert largest.min() >= 0 and largest.max() <= 1
    assert torch.equal(geometry.project(largest, x0, count, "l0"), largest)


def test_fewest_counts_the_values_a_linear_function_needs():
    x, draw = images(40)
    w = torch.randn(x.shape, generator=draw)
    rise = 12 * torch.rand(40, generator=draw)
    rise[0] = 1e4
    gains = np.sort((w.abs() * torch.where(w > 0, 1 - x, x)).flatten(1).double().numpy(), axis=1)[:, ::-1].cumsum(1)
    wanted = [min(int((row < goal).sum()) + 1, 105) for row, goal in zip(gains, rise.double().numpy(), strict=True)]
    assert geometry.fewest(x, w, rise).tolist() == wanted
    assert geometry.fewest(x, w * 0, rise).tolist() == [105] * 40


def test_the_last_slope_is_where_the_least_l1_change_ends():
    x, draw = images(40)
    w = torch.randn(x.shape, generator=draw)
    length = 40 * torch.rand(40, generator=draw)
    way = geometry.ascend(x, w, length, "l1") - x  # the best change of that length
    rise = (w * way).flatten(1).sum(1, dtype=torch.float64)
    moved = torch.where(way.abs() > 1e-5, w.abs(), torch.inf).flatten(1)
    np.testing.assert_allclose(geometry.last_slope(x, w, rise * 0.9999), moved.amin(1), rtol=0.05)
    assert geometry.last_slope(x, w * 0, rise).tolist() == [0.0] * 40


def test_a_sparse_step_moves_the_steepest_values_by_the_same_amount():
    x, draw = images(4, edges=False)
    gradient = torch.randn(x.shape, generator=draw)
    gradient[3].flatten()[5:] = 0
    values = torch.tensor([1, 7, x[0].numel(), 9])
    move = (geometry.sparse_step(x, gradient, torch.full((4,), 2.0), values) - x).flatten(1)
    for i, count in enumerate([1, 7, x[0].numel(), 5]):
        best = gradient[i].flatten().abs().argsort(descending=True)[:count]
        wanted = torch.zeros_like(move[i])
        wanted[best] = gradient[i].flatten()[best].sign() * 2 / count
        torch.testing.assert_close(move[i], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_step_is_the_steepest_of_its_length(norm):
    x, draw = images(8, edges=False)
    gradient = torch.randn(x.shape, generator=draw)
    step = torch.rand(8, generator=draw)
    move = geometry.ascend(x, gradient, step, norm) - x
    torch.testing.assert_close(geometry.size(move, norm), step, rtol=1e-5, atol=1e-6)
    gain = (move * gradient).flatten(1).sum(1)  # Hölder's bound is met with equality
    torch.testing.assert_close(gain, step * geometry.dual_size(gradient, norm), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_zero_gradients_stay_and_tiny_ones_move_a_full_step(norm):
    x = torch.full((3, 1, 2, 2), 0.5)
    gradient = torch.ones_like(x)
    gradient[0] = 0
    gradient[1] = 1e-30  # its square is no float32 number
    moved = geometry.size(geometry.ascend(x, gradient, torch.full((3,), 0.25), norm) - x, norm)
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.25, 0.25]))


def test_farthest_corner_of_the_box():
    x = torch.tensor([0.25, 0.5, 1.0]).view(1, 1, 1, 3)
    torch.testing.assert_close(geometry.farthest_corner(x, "linf"), torch.tensor([1.0]))
    torch.testing.assert_close(geometry.farthest_corner(x, "l2"), torch.tensor([(0.75**2 + 0.5**2 + 1) ** 0.5]))


@pytest.mark.parametrize("norm", NORMS)
def test_uniform_starts_fill_the_ball_evenly(norm):
    n, shape, eps = 3000, (1, 2, 2), 0.3
    x0 = torch.full((n, *shape), 0.5)
    x = geometry.uniform_start(x0, torch.full((n,), eps), norm, streams(n))
    # the share of the volume inside the distance of an even draw is itself even on [0, 1]
    share = (geometry.distance(x, x0, norm) / eps).double().pow(4).numpy()
    assert stats.kstest(share, "uniform").pvalue > 0.001
    first = (x - x0)[:, 0, 0, 0].numpy()
    assert abs(first.mean()) < 4 * first.std() / n**0.5


@pytest.mark.parametrize("norm", NORMS)
def test_surface_starts_lie_on_the_surface_in_all_directions(norm):
    n, eps = 3000, torch.full((3000,), 0.3)
    x0 = torch.full((n, 1, 2, 2), 0.5)
    x = geometry.surface_start(x0, eps, norm, streams(n))
    near = torch.isclose(geometry.distance(x, x0, norm), eps, rtol=1e-5)
    assert near.float().mean() >= (0.999 if norm == "l1" else 1)  # normal noise may be smaller than the ball
    moved = (x - x0)[:, 0, 0, 0]
    moved = moved[moved != 0]  # under L1 some values stay
    assert len(moved) > n / 4
    assert stats.binomtest((moved > 0).sum().item(), len(moved)).pvalue > 0.001


@pytest.mark.parametrize("start", [geometry.uniform_start, geometry.surface_start])
@pytest.mark.parametrize("norm", NORMS)
def test_starts_are_admissible_belong_to_the_image_and_vanish_at_eps_zero(norm, start):
    x0, draw = images(9)
    eps = torch.rand(9, generator=draw)
    eps[0] = 0
    x = start(x0, eps, norm, streams(9))
    assert torch.equal(x[0], x0[0])
    assert x.min() >= 0 and x.max() <= 1
    assert (geometry.distance(x, x0, norm) <= geometry.allowance(eps)).all()
    some = torch.tensor([4, 2, 7])
    assert torch.equal(start(x0[some], eps[some], norm, streams(9).select(some)), x[some])
    run = torch.tensor([0, 0, 1, 0, 0, 2, 0, 0, 0])
    again = start(x0, eps, norm, streams(9), run)
    assert torch.equal((again != x).flatten(1).any(1), run > 0)


@pytest.mark.parametrize("norm", NORMS)
def test_the_memory_format_of_the_images_is_kept(norm):
    x0 = images(2, (3, 8, 8))[0].contiguous(memory_format=torch.channels_last)
    eps = torch.full((2,), 0.1)
    for x in (
        geometry.project(x0 + 1, x0, eps, norm),
        geometry.ascend(x0, x0, eps, norm),
        geometry.uniform_start(x0, eps, norm, streams(2)),
        geometry.surface_start(x0, eps, norm, streams(2)),
    ):
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_norms_without_a_projection_are_refused():
    x0, _ = images(2)
    eps = torch.ones(2)
    for call in (
        lambda: geometry.project(x0, x0, eps, "l3"),
        lambda: geometry.ascend(x0, x0, eps, "l0"),
        lambda: geometry.uniform_start(x0, eps, "l0", streams(2)),
        lambda: geometry.surface_start(x0, eps, "l0", streams(2)),
        lambda: geometry.size(x0, "l7"),
    ):
        with pytest.raises(SpecError):
            call()
