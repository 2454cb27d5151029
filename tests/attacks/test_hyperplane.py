"""The nearest point of a plane in the box: against scipy's solvers, and what must hold in any dimension."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from aresbench.attacks import hyperplane
from aresbench.attacks.hyperplane import towards
from aresbench.core.errors import SpecError

NORMS = ("linf", "l2", "l1")
CASES = 200


def draw(n, d, seed, dtype=torch.float64):
    """Images of which a third of the values lie at 0 or 1, slopes of which some are 0, and rises of either sign."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 1, d, generator=rng, dtype=dtype)
    x = torch.where(torch.rand(x.shape, generator=rng) < 1 / 3, x.round(), x)
    slope = torch.randn(x.shape, generator=rng, dtype=dtype)
    slope = torch.where(torch.rand(x.shape, generator=rng) < 0.1, 0.0, slope)
    rise = torch.rand(n, generator=rng, dtype=dtype) * torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)
    return x, slope, rise * highest(x, slope * rise.sign()[:, None, None, None])


def highest(x, slope):
    """How much ⟨slope, x⟩ can rise in the box."""
    return torch.where(slope > 0, slope * (1 - x), -slope * x).sum((1, 2, 3))


def size(v, norm):
    return torch.linalg.vector_norm(v.flatten(1), {"linf": float("inf"), "l2": 2, "l1": 1}[norm], dim=1)


def solved(x, w, rise, norm):
    """The smallest size of a change, by a general solver."""
    d = len(x)
    if norm == "l2":
        start = np.clip(x + np.sign(rise * w) * 0.5, 0, 1) - x
        found = minimize(
            lambda v: v @ v, start, jac=lambda v: 2 * v, bounds=list(zip(-x, 1 - x, strict=True)), method="SLSQP",
            constraints={"type": "eq", "fun": lambda v: w @ v - rise, "jac": lambda v: w},
            options={"maxiter": 500, "ftol": 1e-14},
        )  # fmt: skip
        assert abs(w @ found.x - rise) < 1e-6
        return np.sqrt(found.fun)
    count = 1 if norm == "linf" else d  # one bound on all changes, or one on each
    bounds = np.eye(d) if norm == "l1" else np.ones((d, 1))
    found = linprog(
        np.r_[np.zeros(d), np.ones(count)],
        A_ub=np.block([[np.eye(d), -bounds], [-np.eye(d), -bounds]]), b_ub=np.zeros(2 * d),
        A_eq=np.r_[w, np.zeros(count)][None], b_eq=[rise],
        bounds=[*zip(-x, 1 - x, strict=True), *[(0, None)] * count],
    )  # fmt: skip
    assert found.status == 0
    return found.fun


@pytest.mark.parametrize("norm", NORMS)
def test_the_change_is_the_solver_s(norm):
    rng = np.random.default_rng(0)
    for seed in range(CASES // 10):
        x, slope, rise = draw(10, int(rng.integers(1, 51)), seed)
        mine = size(towards(x, slope, rise, norm), norm)
        theirs = [solved(*(part[i].flatten().numpy() for part in (x, slope)), rise[i].item(), norm) for i in range(10)]
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("d", [1, 7, 3000])
def test_the_point_lies_on_the_plane_and_in_the_box(norm, d, dtype):
    x, slope, rise = draw(64, d, d, dtype)
    change = towards(x, slope, rise, norm)
    assert change.dtype == dtype
    assert (change[slope == 0] == 0).all()
    assert ((x + change).min() >= 0) and ((x + change).max() <= 1)
    got = (slope.double() * change.double()).sum((1, 2, 3))
    torch.testing.assert_close(got, rise.double(), rtol=1e-5, atol=1e-6)
    # The scale of the plane's equation is no part of it, even where squares would vanish.
    for scale in (2.0**-83, 2.0**40):
        again = towards(x, slope * scale, rise * scale, norm)
        torch.testing.assert_close(again, change, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_where_the_plane_misses_the_box_the_change_leads_to_the_highest_corner(norm):
    x, slope, _ = draw(20, 30, 5)
    corner = torch.where(slope > 0, 1.0, torch.where(slope < 0, 0.0, x)).to(x.dtype)
    for beyond in (1.001, 1e6, float("inf")):
        torch.testing.assert_close(x + towards(x, slope, highest(x, slope) * beyond, norm), corner)
        torch.testing.assert_close(x + towards(x, -slope, -highest(x, slope) * beyond, norm), corner)


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_moves_without_a_slope_a_rise_or_room(norm):
    x, slope, rise = draw(6, 20, 7)
    assert (towards(x, torch.zeros_like(slope), rise, norm) == 0).all()
    assert (towards(x, slope, torch.zeros_like(rise), norm) == 0).all()
    assert (towards(x, slope, torch.full_like(rise, torch.nan), norm) == 0).all()
    corner = (slope > 0).to(x.dtype)
    assert (towards(corner, slope, rise.abs() + 1, norm) == 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_images_do_not_feel_each_other_nor_the_layout(norm):
    x, slope, rise = draw(12, 48, 9)
    x, slope = x.view(12, 3, 4, 4), slope.view(12, 3, 4, 4)
    together = towards(x, slope, rise, norm)
    for i in range(12):
        torch.testing.assert_close(towards(x[i : i + 1], slope[i : i + 1], rise[i : i + 1], norm)[0], together[i])
    last = towards(x.contiguous(memory_format=torch.channels_last), slope, rise, norm)
    torch.testing.assert_close(last, together)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_newton_arrives_where_every_value_meets_the_box_at_another_level(norm):
    """Bounds that double from value to value need a round each."""
    room = 2.0 ** -torch.arange(40, dtype=torch.float64)
    x, slope = (1 - room).view(1, 1, 1, 40), (4.0 ** torch.arange(40)).view(1, 1, 1, 40).double()
    rise = 0.999 * highest(x, slope)
    change = towards(x, slope, rise, norm)
    torch.testing.assert_close((slope * change).sum((1, 2, 3)), rise)


def test_l0_is_refused():
    with pytest.raises(SpecError, match="nearest point"):
        hyperplane.towards(torch.rand(1, 1, 1, 3), torch.ones(1, 1, 1, 3), torch.ones(1), "l0")
