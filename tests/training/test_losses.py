"""What training lowers, against formulas worked out by other means: two classes by hand, more in numpy's float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from aresbench.training import losses

Y = torch.tensor([0, 2, 1, 3])
LABELS = torch.nn.functional.one_hot(Y, 4).double() * 0.9 + 0.025  # smoothed


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(4, 4, generator=draw, dtype=torch.float64) * 2 for _ in range(2))  # type: ignore[return-value]


def _p(logits: Tensor) -> np.ndarray:
    e = np.exp(logits.numpy())
    return np.asarray(e / e.sum(1, keepdims=True))


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def _two(gap: float) -> Tensor:
    """Logits of two classes whose first leads by ``gap``."""
    return torch.tensor([[gap + 0.3, 0.3]], dtype=torch.float64)


def _same(found: Tensor, wanted: np.ndarray | float) -> None:
    np.testing.assert_allclose(found.numpy(), np.atleast_1d(wanted), rtol=1e-12, atol=1e-14)


def test_two_classes_by_hand() -> None:
    a, b = 1.7, -0.4
    p, q = _sigmoid(a), _sigmoid(b)
    hard = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([0])
    kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    _same(losses.soft_cross_entropy(_two(a), hard), math.log1p(math.exp(-a)))
    _same(losses.kl_divergence(_two(a), _two(b)), kl)
    _same(losses.trades(_two(a), _two(b), hard, 6.0), -math.log(p) + 6 * kl)
    bce = -math.log(q) - math.log(1.0001 - (1 - q))
    _same(losses.boosted_cross_entropy(_two(b), y, hard), bce)
    _same(losses.mart(_two(a), _two(b), y, hard, 5.0), bce + 5 * kl * (1 - p))


def test_several_classes_and_soft_labels_in_numpy(logits: tuple[Tensor, Tensor]) -> None:
    clean, attacked = logits
    p, q, labels, y = _p(clean), _p(attacked), LABELS.numpy(), Y.numpy()
    rows = np.arange(4)
    kl = (p * np.log(p / q)).sum(1)
    _same(losses.kl_divergence(clean, attacked), kl)
    _same(losses.trades(clean, attacked, LABELS, 3.0), -(labels * np.log(p)).sum(1) + 3 * kl)
    wrong = q.copy()
    wrong[rows, y] = 0
    bce = -(labels * np.log(q)).sum(1) - np.log(1.0001 - wrong.max(1))
    _same(losses.mart(clean, attacked, Y, LABELS, 6.0), bce + 6 * kl * (1 - p[rows, y]))


def test_divergence_is_zero_at_equal_answers_only(logits: tuple[Tensor, Tensor]) -> None:
    clean, attacked = logits
    assert losses.kl_divergence(clean, clean + 5.0).abs().max() < 1e-12  # a shift of all logits is no change
    assert (losses.kl_divergence(clean, attacked) > 0).all()


def test_a_certain_wrong_class_costs_a_finite_amount() -> None:
    sure = torch.tensor([[-500.0, 500.0, 0.0]], requires_grad=True)
    hard = torch.tensor([[1.0, 0.0, 0.0]])
    value = losses.boosted_cross_entropy(sure, torch.tensor([0]), hard)
    value.sum().backward()
    assert value.isfinite().all()
    assert value.item() == pytest.approx(1000 - math.log(1e-4), abs=1e-2)
    assert sure.grad is not None
    assert sure.grad.isfinite().all()


@pytest.mark.parametrize("name", ["trades", "mart", "kl", "bce"])
def test_gradients_to_both_answers(name: str, logits: tuple[Tensor, Tensor]) -> None:
    functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "trades": lambda a, b: losses.trades(a, b, LABELS, 6.0),
        "mart": lambda a, b: losses.mart(a, b, Y, LABELS, 6.0),
        "kl": losses.kl_divergence,
        "bce": lambda a, b: losses.boosted_cross_entropy(a, Y, LABELS) + losses.soft_cross_entropy(b, LABELS),
    }
    inputs = tuple(part.requires_grad_() for part in logits)
    assert torch.autograd.gradcheck(functions[name], inputs)
    for slope in torch.autograd.grad(functions[name](*inputs).sum(), inputs):
        assert (slope.abs().amax(1) > 0).all()


def test_misalignment_is_one_minus_the_cosine() -> None:
    along = torch.tensor([[[3.0, 0.0]], [[1.0, 1.0]], [[0.0, 2.0]], [[1.0, 0.0]]], dtype=torch.float64)
    other = torch.tensor([[[7.0, 0.0]], [[0.0, 5.0]], [[0.0, -1.0]], [[0.0, 4.0]]], dtype=torch.float64)
    _same(losses.misalignment(along, other), np.array([0.0, 1 - 1 / math.sqrt(2), 2.0, 1.0]))
    tiny = torch.tensor([[1e-30, 1e-30]])  # float32: its square is 0
    assert losses.misalignment(tiny, tiny).abs().max() < 1e-6


def test_misalignment_has_gradients_and_none_at_zero() -> None:
    draw = torch.Generator().manual_seed(1)
    a, b = (torch.randn(3, 2, 2, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(losses.misalignment, (a, b))
    nothing = torch.zeros(3, 2, 2, dtype=torch.float64, requires_grad=True)
    value = losses.misalignment(nothing, b)
    slopes = torch.autograd.grad(value.sum(), (nothing, b))
    assert value.tolist() == [0.0, 0.0, 0.0]
    assert all((slope == 0).all() for slope in slopes)
