"""Losses by name: their formulas, what they mean towards a target, and PGD climbing each of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from aresbench.attacks import losses
from aresbench.attacks.load import describe, make_attack
from aresbench.attacks.pgd import PGD
from aresbench.core.errors import SpecError
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.models.load import load_model


def written_out(name, z, y):
    """The loss of one image in plain arithmetic."""
    others = [float(v) for k, v in enumerate(z) if k != y]
    gap, top = max(others) - float(z[y]), sorted(map(float, z), reverse=True)
    if name == "ce":
        return float(torch.logsumexp(z, 0) - z[y])
    if name == "margin":
        return gap
    if name == "dlr":
        return gap / (top[0] - top[2])
    p = z.exp() / z.exp().sum()
    return max(float(v) for k, v in enumerate(p) if k != y) - float(p[y])


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_named_loss_is_its_formula_and_towards_a_target_its_lead(name):
    z = 3 * torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, target = torch.arange(20) % 5, (torch.arange(20) + 2) % 5
    wanted = torch.tensor([written_out(name, *pair) for pair in zip(z, y.tolist(), strict=True)], dtype=z.dtype)
    torch.testing.assert_close(losses.LOSSES[name](z, y), wanted)
    away = losses.named(name, SimpleNamespace(target=None))
    towards = losses.named(name, SimpleNamespace(target=target))
    if name == "ce":
        assert away is None and towards is None  # the problem's own, which knows the target
    else:
        torch.testing.assert_close(away(z, y), wanted)
        lead = [-written_out("margin", *pair) for pair in zip(z, target.tolist(), strict=True)]
        torch.testing.assert_close(towards(z, y), torch.tensor(lead, dtype=z.dtype))


def test_the_probability_margin_keeps_its_gradient_at_full_confidence():
    z = torch.tensor([[20.0, 0.0, -30.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.probability_margin(z, torch.tensor([0])).sum(), z)
    # d(p1 - p0)/dz0 = -p0 (1 + p1 - p0), d/dz1 = p1 (1 - p1 + p0), d/dz2 = p2 (p0 - p1)
    p0, p1, p2 = torch.tensor([20.0, 0.0, -30.0], dtype=torch.float64).softmax(0)
    wanted = torch.stack((-p0 * (2 * p1 + p2), p1 * (1 - p1 + p0), p2 * (p0 - p1)))
    torch.testing.assert_close(gradient[0].double(), wanted, rtol=1e-5, atol=0)


def test_the_ratio_is_the_margin_where_it_is_not_defined():
    z, y = torch.tensor([[1.0, 3.0]]), torch.tensor([0])
    assert losses.LOSSES["dlr"](z, y).item() == 2.0


@pytest.mark.parametrize("name", ["margin", "dlr", "pm"])
def test_pgd_reaches_the_worst_point_of_a_linear_model(linear, run, name):
    model, x, y = linear(edges=True)
    out = run(model, PGD(loss=name), x, y, "linf", 0.1, goal="maximise", keep="best")
    way = (model.weight[1 - y] - model.weight[y]).detach().sign().view_as(x)
    torch.testing.assert_close(out.x_adv, (x + 0.1 * way).clamp(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
@pytest.mark.parametrize("name", ["margin", "dlr", "pm"])
def test_pgd_climbs_the_loss_it_is_given_on_digits(run, name, goal):
    model = load_model("samples:digits-robust").eval().requires_grad_(False)
    data = load_dataset("digits")[:60]
    x, _, _ = load_images(data, range(60), model.preprocessing)
    y, eps = torch.tensor(data.labels), 0.15
    target = (y + 3) % 10 if goal == "targeted" else None
    ours = run(model, PGD(5, random_start=False, loss=name), x, y, "linf", eps, goal="maximise", target=target).x_adv
    at = x.clone()
    for _ in range(5):  # five steps of eps / 4 by the formulas above
        at.requires_grad_(True)
        z = model(at).double()
        p = z.softmax(1) if name == "pm" and target is None else z
        own = torch.nn.functional.one_hot(y if target is None else target, 10).bool()
        value = p.masked_fill(own, -torch.inf).amax(1) - p[own]
        if name == "dlr" and target is None:
            top = z.sort(descending=True).values
            value = value / (top[:, 0] - top[:, 2])
        (gradient,) = torch.autograd.grad(value.sum() if target is None else -value.sum(), at)
        at = (at.detach() + eps / 4 * gradient.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    # the sign of an entry that is float noise is chance: a few such pixels are allowed
    apart = ((ours - at).abs().flatten(1) > eps / 100).float().mean(1)
    assert (apart <= 0.01).float().mean() >= 0.95


def test_the_loss_is_part_of_the_text_where_it_is_not_the_default():
    assert describe(make_attack("pgd(loss=margin)")) == "pgd(steps=20, loss=margin)"
    assert make_attack("pgd(loss=ce)") == PGD()
    with pytest.raises(SpecError, match="ce, margin, dlr, pm"):
        PGD(loss="hinge")
