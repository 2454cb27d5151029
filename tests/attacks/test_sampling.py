"""Attacks that sample around a point: how good their estimates are, what they ask, what they cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from aresbench.attacks import losses, sampling
from aresbench.attacks.nattack import NAttack
from aresbench.attacks.nes import NES
from aresbench.attacks.spsa import SPSA
from aresbench.core.errors import SpecError
from aresbench.engine.problem import EngineProblem
from aresbench.ops.random import Streams

DRAWS = {"normal": (sampling.normals, 3), "signs": (sampling.signs, 1)}
SHORT = [NES(queries=2000), SPSA(queries=2000, samples=100), NAttack(queries=2000)]


def problem_of(model, x, y, eps=0.1, norm="linf", target=None, classes=2):
    n = len(x)
    return EngineProblem(
        model, x, y, torch.full((n,), eps), Streams(0, "test", [str(k) for k in range(n)]), norm=norm, goal="break",
        num_classes=classes, rows=torch.arange(n), target=target,
    )  # fmt: skip


def forwards_by(attack, left):
    """What an image costs that never breaks, worked out from the settings alone."""
    per = attack.samples if isinstance(attack, NAttack) else attack.samples // 2 * 2
    cost, left = 1, left - 1
    while left >= 3:
        points = min(per, left - 1)
        points -= 0 if isinstance(attack, NAttack) else points % 2
        cost, left = cost + points + 1, left - points - 1
    return cost


# -- estimates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [False, True], ids=["box inactive", "box active"])
@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("pairs", [8, 72])
def test_the_estimated_gradient_is_as_right_as_theory_says(linear, kind, pairs, edges):
    model, x, y = linear(n=256, edges=edges)
    draw, reach = DRAWS[kind]
    problem = problem_of(model, x, y)
    count, first = torch.full_like(y, pairs), torch.zeros_like(y)
    with torch.no_grad():
        found = sampling.slope(problem, x, model(x), count, first, draw, 0.01, reach).flatten(1).double()
    true = (model.weight[1 - y] - model.weight[y]).detach().double()
    d = true.shape[1]
    # E[g·w] = |w|², E|g|² = |w|² (1 + (d - 1)/P) for signs and (1 + (d + 1)/P) for normals
    along = (found * true).sum(1) / true.square().sum(1)
    assert along.mean() == pytest.approx(1, abs=4 * along.std().item() / 16)
    assert along.std() < 0.7
    squared = (found.square().sum(1) / true.square().sum(1)).mean()
    assert squared == pytest.approx(1 + (d + (1 if kind == "normal" else -1)) / pairs, rel=0.08)
    cosine = torch.cosine_similarity(found, true, dim=1)
    assert cosine.square().mean() == pytest.approx(pairs / (pairs + d), rel=0.25)


@pytest.mark.parametrize("attack", [NAttack(samples=100), NAttack(samples=100, side=4)], ids=str)
def test_nattack_moves_its_mean_as_the_papers_formula_says(linear, attack):
    model, x, y = linear(n=2, shape=(3, 8, 8))
    eps = 0.03  # many samples are cut by the ball
    problem = problem_of(model, x, y, eps)
    side = min(attack.side, 8)
    with torch.no_grad():
        state = attack.start(problem)
        for t in range(2):
            before = state.mu
            state.t = torch.full_like(y, t)
            state = attack.step(problem, state)
            for n in range(2):
                own = problem.streams.select(torch.tensor([n]))
                noise = torch.stack([own.normal("sample", (3, side, side), t * 100 + k)[0] for k in range(100)])
                z = nn.functional.interpolate(before[n] + 0.1 * noise, (8, 8), mode="bilinear")
                origin = torch.atanh(0.9 * (2 * x[n] - 1))
                change = ((origin + z).tanh() - origin.tanh()) / 2
                points = (x[n] + change.clamp(-eps, eps)).clamp(0, 1)
                reward = -losses.margin(model(points), y[n].expand(100)).double()
                score = (reward - reward.mean()) / reward.std(correction=0)
                wanted = before[n] + 0.02 / (100 * 0.1) * (score[:, None, None, None] * noise).sum(0)
                torch.testing.assert_close(state.mu[n].double(), wanted, rtol=1e-3, atol=1e-5)


def test_nes_walks_as_its_formula_says(linear):
    _, x, y = linear(n=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 12), nn.Tanh(), nn.Linear(12, 2))
    problem, attack, eps = problem_of(model, x, y), NES(samples=20, sigma=0.01), 0.1

    def loss(image, k):
        return -losses.margin(model(image.clamp(0, 1)[None]), y[k : k + 1]).item()

    point, way = x.clone(), torch.zeros_like(x)
    with torch.no_grad():
        state = attack.start(problem)
        for t in range(15):
            state = attack.step(problem, state)
            state.t = state.t + 1
            for k in range(2):
                own, gradient = problem.streams.select(torch.tensor([k])), torch.zeros_like(x[k])
                for i in range(10):
                    v = own.normal("sample", x.shape[1:], t * 10 + i)[0]
                    centre = point[k].clamp(0.03, 0.97)
                    gradient += (loss(centre + 0.01 * v, k) - loss(centre - 0.01 * v, k)) * v / (2 * 0.01 * 10)
                way[k] = 0.9 * way[k] + 0.1 * gradient
                moved = point[k] + 0.15 * eps * way[k].sign()
                point[k] = moved.clamp(x[k] - eps, x[k] + eps).clamp(0, 1)
            assert ((state.x - point).abs() < 1e-5).float().mean() > 0.98  # signs of float noise are chance
            point = state.x.clone()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_spsa_walks_as_torchs_adam_on_the_papers_differences(linear, norm):
    _, x, y = linear(n=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 12), nn.Tanh(), nn.Linear(12, 2))
    problem, attack, eps = problem_of(model, x, y, norm=norm), SPSA(samples=20), 0.1
    point = x.clone()
    adam = torch.optim.Adam([point], lr=0.01, maximize=True)
    with torch.no_grad():
        state = attack.start(problem)
        for t in range(15):
            state = attack.step(problem, state)
            state.t = state.t + 1
            point.grad = torch.zeros_like(x)
            for i in range(10):
                v = problem.streams.signs("sample", x.shape[1:], t * 10 + i)
                centre = point.clamp(0.01, 0.99)
                up, down = (-losses.margin(model(centre + s * 0.01 * v), y) for s in (1, -1))
                point.grad += (up - down)[:, None, None, None] / (2 * 0.01 * v) / 10
            adam.step()
            change = point - x
            if norm == "linf":
                change.clamp_(-eps, eps)
            else:
                change *= (eps / change.flatten(1).norm(dim=1)).clamp_max(1)[:, None, None, None]
            point.copy_((x + change).clamp(0, 1))
            torch.testing.assert_close(state.x, point, rtol=0, atol=2e-4)


def test_nes_never_steps_by_less_than_a_tenth_of_its_first_length():
    class Falling(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return torch.tensor([[float(self.calls), 0.0]]).expand(len(x), 2)

    x = torch.full((2, 1, 4, 4), 0.5)
    problem, attack = problem_of(Falling(), x, torch.zeros(2, dtype=torch.int64)), NES(samples=2)
    state, seen = attack.start(problem), []
    for _ in range(120):
        state = attack.step(problem, state)
        state.t = state.t + 1
        seen.append(state.length[0].item() / 0.1)
    assert seen[18] == pytest.approx(0.075)  # 19 steps: the 20th loss
    assert seen[17] == pytest.approx(0.15)
    assert seen[-1] == pytest.approx(0.015)


# -- questions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [None, 2])
def test_a_sample_inside_the_budget_counts_as_an_offer_and_one_outside_does_not(target):
    # class 1 (towards a target: 2) leads where the first value is above 0.55, class 0 elsewhere
    def model(x):
        high = (x[:, 0, 0, 0] > 0.55).float()
        return torch.stack((1 - high, high, 0 * high) if target is None else (1 - high, 0 * high, high), dim=1)

    x, y = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64)
    problem = problem_of(model, x, y, target=None if target is None else y + target, classes=3)
    points = x[:, None].repeat(1, 3, 1, 1, 1)
    points[0, 1, 0, 0, 0] = 0.58  # inside
    points[1, 1, 0, 0, 0] = 0.75  # outside
    points[2, 2, 0, 0, 0] = 0.58  # inside, but not asked about
    wanted = torch.tensor([[True, True, True], [True, True, True], [True, True, False]])
    loss = sampling.ask(problem, points, wanted, x, model(x))
    assert problem.ledger.broken.tolist() == [True, False, False]
    assert torch.equal(problem.ledger.best[0], points[0, 1])
    assert problem.ledger.rejected.sum() == 0
    assert problem.ledger.forwards.tolist() == [3, 3, 2]
    assert torch.equal(torch.isnan(loss), ~wanted)
    assert loss[0].tolist() == [-1.0, 1.0, -1.0]


@pytest.mark.parametrize("attack", SHORT, ids=str)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_model_is_only_asked_about_pictures(linear, attack, norm):
    model, x, y = linear(n=4, edges=True)
    asked = []

    def watched(points):
        asked.append(points.clone())
        return model(points)

    problem = problem_of(watched, x, y, norm=norm)
    with torch.no_grad():
        state = attack.start(problem)
        for _ in range(3):
            state = attack.step(problem, state)
            state.t = state.t + 1
    points = torch.cat(asked)
    assert points.min() >= 0
    assert points.max() <= 1
    assert len(points) == problem.ledger.forwards.sum() == 4 * (1 + 3 * 101)


@pytest.mark.parametrize("samples", [2, 7, 10])
@pytest.mark.parametrize("kind", [NES, SPSA, NAttack])
def test_queries_are_exact_and_never_more_than_allowed(linear, run, kind, samples):
    model, x, y = linear(n=3)
    for queries in (4, 5, 10, 22, 23, 24, 25, 37):
        attack = kind(queries=queries, samples=samples)
        out = run(model, attack, x, y, "linf", 0.0)
        assert out.forwards.tolist() == [forwards_by(attack, queries)] * 3
        assert queries - 2 <= out.forwards[0] <= queries
        assert out.backwards.tolist() == [0] * 3
        assert attack.passes == queries


@pytest.mark.parametrize("attack", [a.__class__(queries=300, samples=40) for a in SHORT], ids=str)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_small_questions_find_what_large_ones_find(linear, run, monkeypatch, attack, norm):
    model, x, y = linear()
    whole = run(model, attack, x, y, norm, 0.1 if norm == "linf" else 0.6)
    monkeypatch.setattr(sampling, "CPU_VALUES", x.numel() * 6)
    parts = run(model, attack, x, y, norm, 0.1 if norm == "linf" else 0.6)
    assert 0.2 < whole.broken.float().mean() < 1
    assert torch.equal(parts.broken, whole.broken)
    assert torch.equal(parts.first_step, whole.first_step)
    assert torch.equal(parts.forwards, whole.forwards)  # a step begun is a step made


# -- strength -----------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", SHORT, ids=str)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_2000_queries_come_within_a_quarter_of_the_nearest_break(linear, run, attack, norm):
    model, x, y = linear(low=0.3, high=0.7)
    way = (model.weight[1 - y] - model.weight[y]).detach().double()
    with torch.no_grad():
        exact = losses.margin(model(x), y).double() / way.norm(p=1 if norm == "linf" else 2, dim=1)
    assert run(model, attack, x, y, norm, 1.25 * exact).broken.all()
    assert not run(model, replace(attack, queries=500), x, y, norm, 0.99 * exact).broken.any()


@pytest.mark.parametrize("attack", SHORT, ids=str)
def test_targets_are_reached_and_nothing_else_counts(linear, run, attack):
    model, x, y = linear(classes=4)
    target = (y + 1) % 4
    out = run(model, attack, x, y, "linf", 0.35, target=target)
    with torch.no_grad():
        assert (model(out.x_adv[out.broken]).argmax(1) == target[out.broken]).all()
    assert out.broken.float().mean() >= 0.9


@pytest.mark.parametrize(
    "make",
    [
        lambda: NES(queries=3),
        lambda: NES(samples=1),
        lambda: NES(sigma=0),
        lambda: NES(rel_step=-1),
        lambda: SPSA(samples=2.0),
        lambda: SPSA(delta=0),
        lambda: SPSA(lr="fast"),
        lambda: NAttack(queries=True),
        lambda: NAttack(side=0),
        lambda: NAttack(sigma=float("nan")),
    ],
)
def test_senseless_settings_are_refused(make):
    with pytest.raises(SpecError, match="must be"):
        make()
