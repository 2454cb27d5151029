"""EOT on models that draw: what it averages, what that costs, and what it gains."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aresbench.attacks.apgd import APGDCE
from aresbench.attacks.eot import EOT, Averaged
from aresbench.attacks.fmn import FMN
from aresbench.attacks.load import describe, make_attack
from aresbench.attacks.losses import goal_margin, margin
from aresbench.attacks.square import Square
from aresbench.core.errors import SpecError
from aresbench.core.registry import card, table
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine.prepare import prepared
from aresbench.engine.problem import EngineProblem
from aresbench.models.load import load_model
from aresbench.ops.random import Streams


class Wobbling(nn.Module):
    """A linear model whose every weight is drawn anew around its mean for each image of each question."""

    def __init__(self, model, sigma):
        super().__init__()
        self.model, self.sigma = model, sigma

    def forward(self, x):
        noise = torch.randn(len(x), *self.model.weight.shape) * self.sigma
        return self.model(x) + torch.einsum("nkd,nd->nk", noise, x.flatten(1))


class Noisy(nn.Module):
    """Gaussian noise on the image, as in randomised smoothing."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x + 0.25 * torch.randn_like(x))


class ResizedAndPadded(nn.Module):
    """A random size and place in a black frame (Xie et al., 2018), the same for all images of a question."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        side, full = int(torch.randint(24, 33, ())), x.shape[-1]
        small = F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
        top, left = (int(torch.randint(full - side + 1, ())) for _ in range(2))
        return self.model(F.pad(small, (left, full - side - left, top, full - side - top)))


class Dice(nn.Module):
    """Three answers in ten are wrong, wherever one looks; there is a path to the image, as elsewhere."""

    def forward(self, x):
        wrong = (torch.rand(len(x)) < 0.3).float()
        return torch.stack((2 - 4 * wrong, 4 * wrong - 2), dim=1) + 1e-3 * x.flatten(1).sum(1, keepdim=True)


def problem_of(model, x, y):
    n = len(x)
    return EngineProblem(
        model, x, y, torch.full((n,), 0.1), Streams(0, "test", [str(k) for k in range(n)]),
        norm="linf", goal="break", num_classes=2, rows=torch.arange(n),
    )  # fmt: skip


@pytest.mark.parametrize("how", ["gradient", "differentiable"])
def test_on_a_linear_model_with_noise_the_gradient_is_unbiased_and_its_noise_is_averaged(linear, how):
    model, x, y = linear(n=128)
    true = (model.weight[1 - y] - model.weight[y]).detach()
    sigma, d = 0.5, true.shape[1]
    torch.manual_seed(0)
    for draws in (1, 25):
        problem = problem_of(Wobbling(model, sigma), x, y)
        averaged = Averaged(problem, draws)
        if how == "gradient":
            logits, value, gradient = averaged.gradient(x, goal_margin(averaged))
            assert not logits.requires_grad
            # the loss is a mean over the draws too, not that of the last one
            spread = (value + margin(model(x), y)).detach() / (sigma * x.flatten(1).norm(dim=1) * 2**0.5)
            assert spread.std() == pytest.approx(draws**-0.5, rel=0.25)
        else:
            images = x.clone().requires_grad_(True)
            logits = averaged.differentiable(images)
            (gradient,) = torch.autograd.grad(-margin(logits, y).sum(), images)
        if how == "gradient" or draws == 1:  # the mean of probabilities weighs the draws
            error = gradient.flatten(1) - true
            assert error.square().mean() == pytest.approx(2 * sigma**2 / draws, rel=0.05)
            assert error.mean().abs() < 4 * (2 * sigma**2 / draws / (128 * d)) ** 0.5
        assert problem.ledger.forwards.tolist() == [draws] * 128
        assert problem.ledger.backwards.tolist() == [draws] * 128


def test_logits_are_those_of_the_mean_probability(linear):
    _, x, y = linear(n=4)
    answers = [torch.tensor([[9.0, 0.0]] * 4), torch.tensor([[0.0, 1.0]] * 4), torch.tensor([[-80.0, 80.0]] * 4)]
    feed = iter(answers)
    logits = Averaged(problem_of(lambda x: next(feed), x, y), 3).query(x)
    wanted = torch.stack([a.double().softmax(1) for a in answers]).mean(0).log()
    torch.testing.assert_close(logits.double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "spec",
    ["pgd(steps=4)", "apgd-ce(steps=6)", "fmn(steps=5)", "square(queries=8)", "nes(queries=40, samples=8)"],
)
@pytest.mark.parametrize("kind", [Noisy, ResizedAndPadded])
def test_one_draw_is_the_attack_inside_to_the_bit(linear, run, spec, kind):
    model, x, y = linear(n=12, shape=(1, 32, 32))
    inner = make_attack(spec)
    goal, eps = ("minimise", float("inf")) if inner.kind == "minimal" else ("break", 0.01)
    alone = run(kind(model), inner, x, y, "linf", eps, goal=goal, component="same")
    inside = run(kind(model), EOT(spec, draws=1), x, y, "linf", eps, goal=goal, component="same")
    for name in ("x_adv", "broken", "distance", "first_step", "first_query", "forwards", "backwards"):
        assert torch.equal(getattr(alone, name), getattr(inside, name)), name


def test_every_draw_is_counted(linear, run):
    model, x, y = linear(n=4)
    out = run(model, EOT("apgd-ce(steps=5)", draws=3), x, y, "linf", 0.0)
    assert out.forwards.tolist() == [6 * 3] * 4
    assert out.backwards.tolist() == [5 * 3] * 4
    assert EOT("apgd-ce(steps=5)", draws=3).passes == 2 * 5 * 3
    out = run(model, EOT("square(queries=7)", draws=3), x, y, "linf", 0.0)
    assert out.forwards.tolist() == [7 * 3] * 4


@pytest.fixture(scope="module")
def digits():
    model = load_model("samples:digits-plain").eval()
    data = load_dataset("digits")[:80]
    x, _, _ = load_images(data, range(80), model.preprocessing)
    return model, x, torch.tensor(data.labels)


@pytest.mark.parametrize(
    ("kind", "eps", "inner", "gain"),
    [(Noisy, 0.03, "pgd(steps=10)", 0.1), (ResizedAndPadded, 0.08, "pgd(steps=10, loss=margin)", 0.25)],
)
def test_a_defence_that_draws_resists_less_where_draws_are_averaged(digits, run, kind, eps, inner, gain):
    model, x, y = digits
    defended = kind(model).eval()
    with prepared(defended, x) as ready:
        right = ready.confirm(x).argmax(1) == y
    x, y = x[right], y[right]
    plain = run(defended, make_attack(inner), x, y, "linf", eps)
    averaged = run(defended, EOT(inner, draws=10), x, y, "linf", eps)
    assert averaged.broken.float().mean() >= plain.broken.float().mean() + gain


def test_a_lucky_draw_is_no_claim(run):
    x, y = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(20, dtype=torch.int64)
    assert "unconfirmed" in run(Dice(), make_attack("pgd(steps=3)"), x, y, "linf", 0.1).verdicts
    assert set(run(Dice(), EOT("pgd(steps=3)", draws=50), x, y, "linf", 0.1).verdicts) == {"resisted"}


def test_what_is_true_of_the_attack_inside_is_true_of_it():
    for inner, access, kind in ((Square(), "score", "bounded"), (FMN(), "gradient", "minimal")):
        attack = EOT(describe(inner))
        assert (attack.norms, attack.access, attack.kind) == (inner.norms, access, kind)
        assert attack.total_steps == inner.total_steps
        assert attack.inner == inner
    default, facts = EOT(), card("attacks", "eot").facts
    assert default.inner == APGDCE()
    assert default.norms == facts["norms"], "the card says what the default does"


def test_its_text_names_the_attack_inside_with_its_settings():
    assert describe(EOT()) == "eot(attack=apgd-ce(steps=100))"
    text = "eot(attack=pgd(steps=5, loss=margin), draws=4)"
    attack = make_attack(text)
    assert attack == EOT("pgd(loss=margin, steps=5)", draws=4)
    assert describe(attack) == text
    assert make_attack(describe(attack)) == attack
    assert make_attack("eot(attack=eot(attack=bim, draws=2), draws=3)").inner == EOT("bim", draws=2)


def test_other_numbers_inside_are_other_numbers(monkeypatch):
    before = EOT("pgd").revision
    monkeypatch.setattr(type(make_attack("pgd")), "revision", 7)
    assert EOT("pgd").revision == before + 7 - 1


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(SpecError, match="must be"):
        EOT(draws=0)
    for name in table("attacks"):
        if card("attacks", name).facts.get("access") == "label":
            with pytest.raises(SpecError, match="sees labels only"):
                EOT(name)
