"""``ab.attack``: tensors in, tensors out, one rung after the other."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

import aresbench as ab
from aresbench.core.errors import DataError, SpecError, UnknownName


@pytest.fixture(scope="module")
def hyperplane():
    """A linear model and images at known distances from its plane, far inside the box."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 8, 8, generator=generator)
    weight /= weight.abs().sum()

    class Plane(nn.Module):
        def forward(self, x):
            f = ((x - 0.5) * weight.to(x)).sum((1, 2, 3)) * 40
            return torch.stack((f, -f), dim=1)

    far = torch.tensor([0.005, 0.02, 0.05, 0.11, 0.3])
    # Moving along sign(w) by d changes w·x by d, so these images lie exactly d away in L∞.
    x = 0.5 + far[:, None, None, None] * weight.sign()
    return Plane(), x, torch.zeros(5, dtype=torch.int64), far


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd-ce"])
def test_the_breaking_budget_is_the_first_rung_above_the_true_distance(attack, hyperplane):
    model, x, y, _ = hyperplane
    out = ab.attack(model, x, y, attack, "linf:[0.01, 0.03, 0.1, 0.2]")
    assert out.breaking_budget == (Fraction("0.01"), Fraction("0.03"), Fraction("0.1"), Fraction("0.2"), None)
    assert out.broken.tolist() == [True, True, True, True, False]
    assert torch.equal(out.x_adv[4], x[4])


def test_a_minimal_norm_attack_is_judged_at_every_rung(hyperplane):
    model, x, y, far = hyperplane
    out = ab.attack(model, x, y, "fmn", "linf:[0.01, 0.03, 0.1, 0.2]")
    assert out.breaking_budget == (Fraction("0.01"), Fraction("0.03"), Fraction("0.1"), Fraction("0.2"), None)
    torch.testing.assert_close(out.distance[:4], far[:4], rtol=0.02, atol=0)


def test_a_search_finds_the_distance_to_its_resolution(hyperplane):
    model, x, y, far = hyperplane
    out = ab.attack(model, x, y, "fgsm", "linf:search(0.02, doublings=3, bisections=8)")  # up to 0.16
    assert out.breaking_budget[4] is None and not out.broken[4]
    for truth, found in zip(far[:4].tolist(), out.breaking_budget[:4], strict=True):
        resolution = max(0.02, 2 ** math.floor(math.log2(truth / 0.02)) * 0.02) / 2**8
        assert 0 <= float(found) - truth + 1e-6 <= 1.01 * resolution + 1e-6
    assert torch.all(out.distance[:4] <= torch.tensor([float(b) for b in out.breaking_budget[:4]]) + 1e-6)


def test_every_forward_and_backward_is_counted(plain, digits):
    x, y, ids = (part[:10] for part in digits)
    calls = {"forward": 0, "backward": 0}

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = plain

        def forward(self, x):
            calls["forward"] += len(x)
            if torch.is_grad_enabled():
                calls["backward"] += len(x)
            return self.net(x)

    model = Counting()
    base = {"forward": 0, "backward": 0}
    ab.attack(model, x, y, "pgd(steps=1)", "linf:0", ids=ids)  # what preparing and the clean verdict cost
    fixed = calls["forward"] - 10 * 2
    calls.update(base)
    out = ab.attack(model, x, y, "pgd(steps=7)", "linf:0.02", ids=ids)
    assert out.backwards.sum() == calls["backward"]
    assert out.forwards.sum() == calls["forward"] - fixed


def test_settings_can_be_given_by_name(plain, digits):
    x, y, ids = (part[:6] for part in digits)
    a = ab.attack(plain, x, y, "pgd", "linf:0.02", ids=ids, steps=3)
    b = ab.attack(plain, x, y, "pgd(steps=3)", "linf:0.02", ids=ids)
    assert torch.equal(a.x_adv, b.x_adv)
    assert a.forwards.max() <= 5


def test_equal_pixels_draw_equal_numbers_without_ids(plain, digits):
    x, y, _ = digits
    alone = ab.attack(plain, x[3:4], y[3:4], "pgd(steps=5)", "linf:0.02")
    among = ab.attack(plain, x[:6], y[:6], "pgd(steps=5)", "linf:0.02")
    torch.testing.assert_close(alone.x_adv[0], among.x_adv[3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8])
def test_labels_may_be_integers_of_any_kind(kind, plain, digits):
    x, y, ids = digits
    wanted = ab.attack(plain, x[:4], y[:4], "fgsm", "linf:0.05", ids=ids[:4])
    got = ab.attack(plain, x[:4], y[:4].to(kind), "fgsm", "linf:0.05", ids=ids[:4])
    assert torch.equal(got.broken, wanted.broken)


class Spoilt(nn.Module):
    """NaN for every class: argmax then says class 0."""

    def forward(self, x):
        return x.mean((2, 3)) * torch.nan


def test_an_answer_of_nan_is_not_right():
    out = ab.attack(Spoilt(), torch.rand(3, 3, 4, 4), torch.zeros(3, dtype=torch.int64), "fgsm", "linf:0.05")
    assert not out.correct.any()


class Draws(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) + torch.randn(len(x), 3)


def test_a_model_that_draws_leaves_the_global_random_state_alone():
    x, y = torch.full((8, 3, 4, 4), 0.5), torch.zeros(8, dtype=torch.int64)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(ab.attack(Draws(), x, y, "fgsm", "linf:0.05").correct)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": lambda x: x * 255}, DataError, "divide 8-bit images by 255"),
        ({"x": lambda x: x - 0.5}, DataError, "leave normalisation to the model"),
        ({"x": lambda x: (x * 255).byte()}, DataError, "float tensor"),
        ({"x": lambda x: x[0]}, DataError, "N, C, H, W"),
        ({"x": lambda x: x[:0]}, DataError, "no images"),
        ({"x": lambda x: torch.full_like(x, torch.nan)}, DataError, "must lie in"),
        ({"y": lambda y: y[:2]}, DataError, "shape"),
        ({"y": lambda y: y.float()}, DataError, "integers"),
        ({"y": lambda y: y + 90}, DataError, "labels"),
        ({"attack": "pdg"}, UnknownName, "pgd"),
        ({"attack": "pgd(stesp=3)"}, SpecError, "steps"),
        ({"budget": "linf:big"}, SpecError, "not a budget"),
        ({"budget": "l0:3"}, SpecError, "does not attack under l0"),
        ({"ids": ["a"]}, DataError, "ids"),
        ({"target": torch.tensor([0, 0, 0, 0]), "y": torch.tensor([1, 2, 0, 3])}, DataError, "1 targets"),
    ],
)
def test_bad_input_is_named(change, error, words, plain, digits):
    arguments = {"x": digits[0][:4], "y": digits[1][:4], "attack": "pgd", "budget": "linf:0.02", "ids": None}
    for name, new in change.items():
        arguments[name] = new(arguments[name]) if callable(new) else new
    ids = arguments.pop("ids")
    with pytest.raises(error, match=words):
        ab.attack(plain, **arguments, ids=ids)


def test_arrays_in_place_of_tensors_are_refused_in_words(plain, digits):
    with pytest.raises(DataError, match="must be tensors"):
        ab.attack(plain, digits[0].numpy(), digits[1], "pgd", "linf:4/255")


def test_of_a_list_the_worst_case_counts_and_later_attacks_see_only_what_is_left(robust, digits):
    x, y, ids = digits
    first = ab.attack(robust, x, y, "pgd(steps=5)", "linf:0.15", ids=ids)
    for listed in (["pgd(steps=5)", "fmn(steps=20)"], "[pgd(steps=5), fmn(steps=20)]"):
        both = ab.attack(robust, x, y, listed, "linf:0.15", ids=ids)
        near = ab.attack(robust, x, y, "fmn(steps=20)", "linf:0.15", ids=ids)
        assert torch.equal(both.broken, first.broken | near.broken)
        assert both.broken.sum() > first.broken.sum()
        assert torch.equal(both.forwards[first.broken], first.forwards[first.broken])
        left = both.correct & ~first.broken
        assert (both.forwards[left] > first.forwards[left]).all()
        assert (both.forwards[left] <= first.forwards[left] + near.forwards[left]).all()
    with pytest.raises(SpecError, match="none of them"):
        ab.attack(robust, x, y, ["pgd", "fmn"], "linf:0.15", steps=5)
    with pytest.raises(SpecError, match="empty"):
        ab.attack(robust, x, y, [], "linf:0.15")
