"""One update of each method against the same update written out in plain torch, and what recipes may not combine."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aresbench.attacks import geometry
from aresbench.core.classes import Classes
from aresbench.core.errors import SpecError
from aresbench.data.load import load_dataset
from aresbench.ops.random import Streams
from aresbench.training import losses
from aresbench.training.learner import Learner, make_learner
from aresbench.training.lesson import ClassroomLesson
from aresbench.training.methods.load import fitting_method, make_method
from aresbench.training.perturbation import AWP, make_perturbation, movable
from aresbench.training.recipe import Recipe, load_recipe
from aresbench.training.split_norm import auxiliary, main_parameters, main_tensors
from aresbench.training.world import World

N, EPS, RATE, STEP = 8, 0.1, 0.1, 0.04
IDS = [f"image {k}" for k in range(N)]
TOY = """
from torch import nn

def make(num_classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, num_classes),
    )

def without_norm(num_classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
"""


@pytest.fixture(scope="module")
def classes() -> Classes:
    return load_dataset("digits(split=train)").classes


@pytest.fixture
def make_recipe(tmp_path: Path) -> Callable[..., Recipe]:
    (tmp_path / "toy.py").write_text(TOY, "utf-8")

    def make(method: str, **changes: Any) -> Recipe:
        wanted = {
            "method": method,
            "model.architecture": f"{tmp_path}/toy.py:make",
            "model.size": 8,
            "model.resize": 0,
            "threat.budgets": [f"linf:{EPS}"],
            "threat.budget_warmup": 0,
            "threat.attack": f"pgd(steps=2, rel_step={STEP / EPS})",
            "optimizer.name": "momentum",
            "optimizer.momentum": 0.0,
            "optimizer.weight_decay": 0.0,
            "optimizer.lr": RATE,
            "schedule.name": "constant",
            "schedule.warmup": 0,
            "engine.channels_last": False,
            "engine.batch": N,
        }
        return load_recipe("digits-adversarial", wanted | {key.replace("__", "."): v for key, v in changes.items()})

    return make


@pytest.fixture
def make_class(make_recipe: Callable[..., Recipe], classes: Classes) -> Callable[..., Learner]:
    """A learner whose batch norms have seen something."""

    def make(method: str, **changes: Any) -> Learner:
        learner = make_learner(make_recipe(method, **changes), classes, 100 * N, World(0, 1, torch.device("cpu")))
        torch.manual_seed(5)
        with torch.no_grad():
            learner.classifier(torch.rand(4 * N, 3, 8, 8) * 0.5)
        return learner

    return make


def _batch(number: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(number)
    y = torch.randint(0, 10, (N,), generator=draw)
    return torch.rand(N, 3, 8, 8, generator=draw), y


def _lesson(learner: Learner, number: int = 0, **more: Any) -> ClassroomLesson:
    x, y = _batch(number)
    return ClassroomLesson(learner, x, F.one_hot(y, 10).float(), IDS, 0, **more)


def _learn(learner: Learner, number: int = 0) -> ClassroomLesson:
    lesson = _lesson(learner, number)
    learner.method.learn(lesson)
    learner.advance()
    return lesson


class ByHand:
    """The same network in plain torch, with one gradient step after the other."""

    def __init__(self, learner: Learner) -> None:
        self.model = copy.deepcopy(learner.classifier)
        self.streams = Streams(learner.recipe.seed, "training/0", IDS)

    def slope(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Gradient at x as an attack sees it."""
        self.model.eval()
        x = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(loss(self.model(x)), x)
        self.model.train()
        return found

    def pgd(self, x: Tensor, start: Tensor, loss: Callable[[Tensor], Tensor], step: float = STEP, n: int = 2) -> Tensor:
        at = torch.clamp(torch.clamp(start, x - EPS, x + EPS), 0, 1)
        for _ in range(n):
            at = torch.clamp(at + step * self.slope(at, loss).sign(), x - EPS, x + EPS).clamp(0, 1)
        return at

    def answer(self, x: Tensor) -> Tensor:
        self.model.eval()
        with torch.no_grad():
            found: Tensor = self.model(x)
        self.model.train()
        return found

    def step(self, loss: Tensor) -> None:
        self.model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(RATE * parameter.grad)

    def agrees(self, learner: Learner) -> None:
        found = learner.classifier.state_dict()
        for name, value in self.model.state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def _noise(streams: Streams, purpose: str, size: float) -> Tensor:
    return (2 * streams.uniform(purpose, (3, 8, 8)) - 1) * size


def test_standard(make_class: Callable[..., Learner]) -> None:
    learner = make_class("standard")
    hand = ByHand(learner)
    lesson = _learn(learner)
    x, y = _batch()
    hand.step(F.cross_entropy(hand.model(x), y))
    hand.agrees(learner)
    assert int(lesson.gradients) == N


def test_adversarial(make_class: Callable[..., Learner]) -> None:
    learner = make_class("adversarial")
    hand = ByHand(learner)
    lesson = _learn(learner)
    x, y = _batch()
    start = (x + _noise(hand.streams, "start", EPS)).clamp(0, 1)
    hand.step(F.cross_entropy(hand.model(hand.pgd(x, start, lambda z: F.cross_entropy(z, y))), y))
    hand.agrees(learner)
    assert int(lesson.gradients) == 3 * N


def test_fast_adversarial_training_is_an_attack_of_one_long_step(make_class: Callable[..., Learner]) -> None:
    learner = make_class("adversarial", threat__attack="pgd(steps=1, rel_step=1.25)")
    hand = ByHand(learner)
    _learn(learner)
    x, y = _batch()
    start = (x + _noise(hand.streams, "start", EPS)).clamp(0, 1)
    worst = hand.pgd(x, start, lambda z: F.cross_entropy(z, y), step=1.25 * EPS, n=1)
    hand.step(F.cross_entropy(hand.model(worst), y))
    hand.agrees(learner)


def test_trades(make_class: Callable[..., Learner]) -> None:
    learner = make_class("trades(beta=3)")
    hand = ByHand(learner)
    lesson = _learn(learner)
    x, y = _batch()
    p = hand.answer(x).softmax(1)
    start = x + 0.001 * hand.streams.normal("trades", (3, 8, 8))
    worst = hand.pgd(x, start, lambda z: F.kl_div(F.log_softmax(z, 1), p, reduction="sum"))
    clean, attacked = hand.model(torch.cat((x, worst))).chunk(2)  # one pass
    apart = F.kl_div(F.log_softmax(attacked, 1), clean.softmax(1), reduction="batchmean")
    hand.step(F.cross_entropy(clean, y) + 3 * apart)
    hand.agrees(learner)
    assert int(lesson.gradients) == 4 * N


def test_mart(make_class: Callable[..., Learner]) -> None:
    learner = make_class("mart(beta=5)")
    hand = ByHand(learner)
    _learn(learner)
    x, y = _batch()
    start = x + 0.001 * hand.streams.normal("mart", (3, 8, 8))
    worst = hand.pgd(x, start, lambda z: F.cross_entropy(z, y))
    clean, attacked = hand.model(torch.cat((x, worst))).chunk(2)
    p, q = clean.softmax(1), attacked.softmax(1)
    wrong = torch.stack([torch.cat((row[:k], row[k + 1 :])).max() for row, k in zip(q, y.tolist(), strict=True)])
    kl = (p * (p.log() - q.log())).sum(1)
    value = F.cross_entropy(attacked, y, reduction="none") - (1.0001 - wrong).log()
    hand.step((value + 5 * kl * (1 - p[range(N), y])).mean())
    hand.agrees(learner)


def test_n_fgsm(make_class: Callable[..., Learner]) -> None:
    learner = make_class("n-fgsm(k=2)", threat__attack="fgsm")
    hand = ByHand(learner)
    _learn(learner)
    x, y = _batch()
    noisy = (x + _noise(hand.streams, "n-fgsm", 2 * EPS)).clamp(0, 1)
    worst = (noisy + EPS * hand.slope(noisy, lambda z: F.cross_entropy(z, y)).sign()).clamp(0, 1)
    assert (worst - x).abs().max() > 2.5 * EPS  # outside the ball
    hand.step(F.cross_entropy(hand.model(worst), y))
    hand.agrees(learner)


def test_grad_align(make_class: Callable[..., Learner]) -> None:
    learner = make_class("grad-align(weight=0.7)", threat__attack="fgsm")
    hand = ByHand(learner)
    _learn(learner)
    x, y = _batch()
    worst = hand.pgd(x, x, lambda z: F.cross_entropy(z, y), step=EPS, n=1)
    near = (x + _noise(hand.streams, "grad-align", EPS)).clamp(0, 1)
    images = torch.cat((x, near, worst)).requires_grad_()
    value = F.cross_entropy(hand.model(images), y.repeat(3), reduction="none")
    (slope,) = torch.autograd.grad(value[: 2 * N].sum(), images, create_graph=True)
    here, there = slope[:N].flatten(1), slope[N : 2 * N].flatten(1)
    hand.step(value[2 * N :].mean() + 0.7 * (1 - F.cosine_similarity(here, there)).mean())
    hand.agrees(learner)


def test_free_moves_weights_and_images_by_one_backward_pass(make_class: Callable[..., Learner]) -> None:
    """Two batches: the second begins with the perturbation that the first left behind."""
    learner = make_class("free(replays=3)", threat__attack="fgsm")
    hand = ByHand(learner)
    change = torch.zeros(N, 3, 8, 8)
    for number in range(2):
        lesson = _learn(learner, number)
        x, y = _batch(number)
        for _ in range(3):
            images = torch.clamp(x + change, x - EPS, x + EPS).clamp(0, 1).requires_grad_()
            loss = F.cross_entropy(hand.model(images), y)
            (slope,) = torch.autograd.grad(loss, images, retain_graph=True)
            hand.step(loss)
            moved = images.detach() + EPS * slope.sign()
            change = torch.clamp(moved, x - EPS, x + EPS).clamp(0, 1) - x
        assert int(lesson.gradients) == 3 * N
        assert len(lesson.losses) == 3
    hand.agrees(learner)
    assert learner.step == 2  # batches, of six moves of the weights


def test_free_goes_on_from_a_checkpoint_as_if_nothing_had_been(make_class: Callable[..., Learner]) -> None:
    method, more = "free(replays=2)", {"threat__attack": "fgsm", "average__decay": 0.9}
    straight = make_class(method, **more)
    for number in range(3):
        _learn(straight, number)
    first = make_class(method, **more)
    _learn(first, 0)
    state = copy.deepcopy(first.state())
    assert state["carried"] is not None
    second = make_class(method, **more)
    second.load(state)
    for number in (1, 2):
        _learn(second, number)
    wanted = straight.classifier.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in second.classifier.state_dict().items())


def test_advprop_keeps_two_sets_of_batch_norms(make_class: Callable[..., Learner]) -> None:
    learner = make_class("advprop")
    main, aux = ByHand(learner), ByHand(learner)
    for hand, own in ((main, main_tensors(learner.classifier)), (aux, _auxiliary_tensors(learner))):
        hand.model = make_class("adversarial").classifier  # the plain network
        hand.model.load_state_dict(own)
    x, y = _batch()
    x_start = (x + _noise(aux.streams, "start", EPS)).clamp(0, 1)
    worst = aux.pgd(x, x_start, lambda z: F.cross_entropy(z, y))
    lesson = _lesson(learner)
    torch.testing.assert_close(lesson.answer(x), aux.answer(x))  # the attack sees the auxiliary ones
    learner.method.learn(lesson)

    loss = F.cross_entropy(main.model(x), y) + F.cross_entropy(aux.model(worst), y)
    loss.backward()
    found = main_tensors(learner.classifier)
    other = dict(aux.model.named_parameters())
    for name, parameter in main.model.named_parameters():
        slope = parameter.grad
        assert slope is not None
        if ".1." not in name:  # all but batch norm is shared: both halves move it
            again = other[name].grad
            assert again is not None
            slope = slope + again
        torch.testing.assert_close(found[name], parameter.detach() - RATE * slope, rtol=1e-4, atol=1e-6)
    other_found = _auxiliary_tensors(learner)
    for name in (name for name in found if ".running" in name or "tracked" in name):
        torch.testing.assert_close(found[name], main.model.state_dict()[name])
        torch.testing.assert_close(other_found[name], aux.model.state_dict()[name])


def _auxiliary_tensors(learner: Learner) -> dict[str, Tensor]:
    with auxiliary(learner.classifier):
        return {name: value.clone() for name, value in main_tensors(learner.classifier).items()}


def test_advprop_is_measured_and_saved_without_the_auxiliary_ones(make_class: Callable[..., Learner]) -> None:
    learner = make_class("advprop")
    for number in range(3):
        _learn(learner, number)
    before = learner.classifier.state_dict()
    assert any("aux_bn" in name for name in before)
    plain = make_class("adversarial").classifier
    plain.load_state_dict(main_tensors(learner.classifier))  # strict: no tensor too many, none missing
    counts = [sum(p.numel() for p in main_parameters(module)) for module in (learner.classifier, plain)]
    assert counts[0] == counts[1] == sum(p.numel() for p in plain.parameters())
    x, _ = _batch()
    with torch.no_grad():
        torch.testing.assert_close(learner.classifier.eval()(x), plain.eval()(x))
        with auxiliary(learner.classifier):
            assert (learner.classifier(x) - plain(x)).abs().max() > 1e-3
    assert all(torch.equal(value, before[name]) for name, value in learner.classifier.state_dict().items())


# -- weight perturbation ----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["adversarial", "trades(beta=3)"])
def test_awp_updates_by_the_slope_at_moved_weights(method: str, make_class: Callable[..., Learner]) -> None:
    learner = make_class(method, perturb="awp(gamma=0.05)")
    hand = ByHand(learner)
    objective: list[Callable[[], Tensor]] = []
    lesson = _lesson(learner)
    real = lesson.update
    lesson.update = lambda wanted: (objective.append(wanted), real(wanted))[1]  # type: ignore[assignment, func-returns-value]
    x, y = _batch()
    learner.method.learn(lesson)

    if method == "adversarial":
        start = (x + _noise(hand.streams, "start", EPS)).clamp(0, 1)
        worst = hand.pgd(x, start, lambda z: F.cross_entropy(z, y))
    else:
        p = hand.answer(x)
        start = x + 0.001 * hand.streams.normal("trades", (3, 8, 8))
        worst = hand.pgd(x, start, lambda z: losses.kl_divergence(p, z).sum())

    def value() -> Tensor:
        if method == "adversarial":
            return F.cross_entropy(hand.model(worst), y)
        clean, attacked = hand.model(torch.cat((x, worst))).chunk(2)
        return losses.trades(clean, attacked, F.one_hot(y, 10).float(), 3.0).mean()

    first = value()
    named = {name: p for name, p in hand.model.named_parameters() if name in ("module.0.weight", "module.4.weight")}
    slopes = torch.autograd.grad(first, list(named.values()))
    statistics = {name: buffer.clone() for name, buffer in hand.model.named_buffers()}  # written once, here
    kept = {name: p.detach().clone() for name, p in named.items()}
    with torch.no_grad():
        for (_, weight), slope in zip(named.items(), slopes, strict=True):
            weight.add_(0.05 * weight.norm() / slope.norm() * slope)
    second = value()
    assert second > first
    hand.model.zero_grad()
    second.backward()
    with torch.no_grad():
        for name, weight in named.items():
            weight.copy_(kept[name])
        for parameter in hand.model.parameters():
            assert parameter.grad is not None
            parameter.sub_(RATE * parameter.grad)
        for name, buffer in hand.model.named_buffers():
            buffer.copy_(statistics[name])
    hand.agrees(learner)
    assert lesson.losses[0].item() == pytest.approx(second.item(), rel=1e-4)


def test_awp_moves_each_layer_by_gamma_and_back_to_the_bit(make_class: Callable[..., Learner]) -> None:
    learner = make_class("adversarial")
    weights = movable(learner.classifier)
    assert [weight.ndim for weight in weights] == [4, 2]
    before = [weight.detach().clone() for weight in weights]
    slopes = [torch.randn_like(weights[0]), torch.zeros_like(weights[1])]

    def failing() -> None:
        moved = (weights[0] - before[0]).norm() / before[0].norm()
        assert moved.item() == pytest.approx(0.02, rel=1e-4)
        assert F.cosine_similarity((weights[0] - before[0]).flatten(), slopes[0].flatten(), 0) > 0.999
        assert torch.equal(weights[1], before[1])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), AWP(gamma=0.02).applied(weights, slopes):
        failing()
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
    for spoilt in (torch.nan, torch.inf):
        with AWP().applied(weights, [torch.full_like(weight, spoilt) for weight in weights]):
            assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))


def test_awp_begins_at_its_epoch(make_class: Callable[..., Learner]) -> None:
    plain, late = make_class("adversarial"), make_class("adversarial", perturb="awp(gamma=0.05, from_epoch=0.01)")
    for number in range(2):  # a hundred updates an epoch: the second is the first that is perturbed
        same = [torch.equal(a, b) for a, b in zip(movable(plain.classifier), movable(late.classifier), strict=True)]
        assert all(same)
        assert int(_learn(plain, number).gradients) == 3 * N
        assert int(_learn(late, number).gradients) == (3 + number) * N
    same = [torch.equal(a, b) for a, b in zip(movable(plain.classifier), movable(late.classifier), strict=True)]
    assert not any(same)


def test_awp_asks_all_processes_for_the_mean_slope(make_class: Callable[..., Learner]) -> None:
    learner = make_class("adversarial", perturb="awp")
    weights = movable(learner.classifier)
    lesson = _lesson(learner)

    def objective() -> Tensor:
        return sum((weight.sum() for weight in weights), torch.zeros(()))

    other = 3.0  # the slope of a second process, everywhere
    learner.world = SimpleNamespace(size=2, sum=lambda values: values + other)  # type: ignore[assignment]
    found = lesson._slopes(objective, weights)
    assert [slope.shape for slope in found] == [weight.shape for weight in weights]
    assert all((slope == 2.0).all() for slope in found)
    assert all(weight.grad is None for weight in weights)


# -- several budgets --------------------------------------------------------------------------


def test_the_worst_of_several_norms_is_chosen_image_by_image(make_class: Callable[..., Learner]) -> None:
    budgets = ["linf:0.02", "l2:0.22"]
    one, two = (make_class("adversarial", threat__budgets=[text]) for text in budgets)
    both = make_class("adversarial", threat__budgets=budgets, threat__choose="worst")
    lesson = _lesson(both)
    found = lesson.attack()
    parts = [_lesson(learner).attack() for learner in (one, two)]
    value = torch.stack([F.cross_entropy(lesson.answer(part), lesson.y, reduction="none") for part in parts])
    worst = value.argmax(0)
    assert len(worst.unique()) == 2  # neither norm is the worst of all images
    wanted = torch.stack(parts)[worst, torch.arange(N)]
    assert torch.equal(found, wanted)
    assert int(lesson.gradients) == 4 * N


def test_budgets_take_turns_or_are_drawn(make_class: Callable[..., Learner]) -> None:
    budgets = ["linf:0.02", "l2:0.6"]
    turns = make_class("adversarial", threat__budgets=budgets, threat__choose="alternate")
    drawn = make_class("adversarial", threat__budgets=budgets, threat__choose="random")
    norms: dict[str, list[str]] = {"turns": [], "drawn": [], "again": []}
    for step in range(32):
        turns.step = drawn.step = step
        norms["turns"].append(_lesson(turns).norm)
        norms["drawn"].append(_lesson(drawn).norm)
        norms["again"].append(_lesson(drawn, 1).norm)  # another part or process of the same update
    assert norms["turns"] == ["linf", "l2"] * 16
    assert 6 <= norms["drawn"].count("linf") <= 26
    assert norms["again"] == norms["drawn"]


# -- what does not go together ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("n-fgsm", {}, "made of the attack fgsm"),
        ("free", {}, "set threat.attack = fgsm"),
        ("free", {"threat__attack": "fgsm", "engine__accumulate": 2}, "whole batches"),
        (
            "free",
            {"threat__attack": "fgsm", "threat__choose": "worst", "threat__budgets": ["linf:0.1", "l2:1"]},
            "one at a time",
        ),
        ("trades(beta=-1)", {}, "beta must be a number above 0"),
        ("free(replays=0)", {"threat__attack": "fgsm"}, "replays must be a whole number"),
        ("mart(weight=2)", {}, "no setting 'weight'"),
    ],
)
def test_what_does_not_fit_is_refused(
    method: str, changes: dict[str, Any], words: str, make_recipe: Callable[..., Recipe]
) -> None:
    with pytest.raises(SpecError, match=words):
        fitting_method(make_recipe(method, **changes))


def test_advprop_needs_batch_norm(make_class: Callable[..., Learner], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="this architecture has none"):
        make_class("advprop", model__architecture=f"{tmp_path}/toy.py:without_norm")
    with pytest.raises(SpecError, match="synchronised"):
        make_method("advprop").prepare(nn.Sequential(nn.SyncBatchNorm(3)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("apw(gamma=0.1)", "no weight perturbation"),
        ("awp(gama=0.1)", "did you mean 'gamma'|gamma"),
        ("awp(0.1)", r"write awp\(gamma=0.1\)"),
        ("awp(gamma=0)", "gamma must be a number above 0"),
        ("awp(from_epoch=-1)", "from_epoch must be 0 or more"),
    ],
)
def test_wrong_weight_perturbations_are_refused(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        make_perturbation(text)
    assert make_perturbation("") is None


def test_growing_budgets_shrink_the_ball(make_class: Callable[..., Learner]) -> None:
    learner = make_class("adversarial", threat__budget_warmup=1)
    for step, share in ((0, 0.01), (49, 0.5), (99, 1.0), (150, 1.0)):
        learner.step = step
        lesson = _lesson(learner)
        assert lesson.eps[0].item() == pytest.approx(EPS * share)
        reached = geometry.distance(lesson.attack(), lesson.x, "linf")
        assert (reached <= geometry.allowance(lesson.eps)).all()
        assert (reached > 0.5 * lesson.eps).all()
