"""Attacks that see only the predicted class: beside exact answers, and beside their papers' formulas."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from aresbench.attacks import labels
from aresbench.attacks.boundary import Boundary
from aresbench.attacks.evolutionary import Evolutionary
from aresbench.attacks.hopskipjump import BLOCK, HopSkipJump
from aresbench.attacks.rays import RayS
from aresbench.core.errors import SpecError
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine.driver import Driver, Job
from aresbench.engine.prepare import prepared
from aresbench.engine.problem import EngineProblem
from aresbench.models.load import load_model
from aresbench.ops.random import Streams

INF = float("inf")
SMALL = (3, 5, 4)


def nearest(model, x, y, norm):
    """Exact distance [N] to the nearest break of a two-class linear model in the box, by bisection in float64."""
    w = (model.weight[1 - y] - model.weight[y]).detach().double()
    x = x.flatten(1).double()
    logits = x @ model.weight.detach().double().T + model.bias.detach().double()
    gap = (logits.gather(1, y[:, None]) - logits.gather(1, 1 - y[:, None])).squeeze(1)
    way = w.sign() if norm == "linf" else w
    low, high = torch.zeros(len(x), dtype=torch.float64), torch.full((len(x),), 1e4, dtype=torch.float64)
    for _ in range(80):
        middle = (low + high) / 2
        delta = (x + middle[:, None] * way).clamp(0, 1) - x
        enough = (w * delta).sum(1) >= gap
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    delta = (x + high[:, None] * way).clamp(0, 1) - x
    return torch.linalg.vector_norm(delta, ord=INF if norm == "linf" else 2, dim=1).numpy()


def by_hand(model, x, y, norm, **options):
    """A problem of the engine whose questions are recorded: (problem, list of the points asked about)."""
    asked = []

    def watched(images):
        asked.append(images.clone())
        with torch.no_grad():
            return model(images)

    n = len(x)
    problem = EngineProblem(
        watched, x, y, torch.full((n,), INF), Streams(0, "test", [str(k) for k in range(n)]),
        norm=norm, goal="minimise", num_classes=2, rows=torch.arange(n), **options,
    )  # fmt: skip
    return problem, asked


def advance(attack, problem, state, steps=1):
    for _ in range(steps):
        state = attack.step(problem, state)
        state.t = state.t + 1
        problem.t = state.t
    return state


# -- exact answers ----------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [False, True], ids=["box inactive", "box active"])
@pytest.mark.parametrize(
    ("attack", "norm", "within"),
    [
        (Boundary(queries=1500), "l2", 1.15),
        (Evolutionary(queries=1500, grid=1.0), "l2", 1.15),
        (HopSkipJump(queries=1000), "l2", 1.15),
        (HopSkipJump(queries=2000), "linf", 1.2),
        (RayS(queries=400), "linf", 1.02),
    ],
    ids=lambda v: v if isinstance(v, str) else str(v) if isinstance(v, float) else type(v).__name__,
)
def test_they_come_near_the_nearest_break(linear, run, attack, norm, within, edges):
    low, high = (0.0, 1.0) if edges else (0.3, 0.7)
    model, x, y = linear(n=8, shape=SMALL, low=low, high=high, edges=edges)
    out = run(model, attack, x, y, norm, INF, goal="minimise")
    ratio = out.distance.numpy() / nearest(model, x, y, norm)
    assert ratio.min() >= 1 - 1e-5
    assert ratio.max() <= within
    assert (out.forwards == attack.queries + 1).all()  # and the judge's own
    assert (out.backwards == 0).all()


@pytest.mark.parametrize(("attack", "norm"), [(Boundary(queries=300), "l2"), (RayS(queries=100), "linf")])
def test_nothing_is_offered_beyond_a_budget(linear, run, attack, norm):
    model, x, y = linear(n=16, shape=SMALL)
    eps = float(np.median(nearest(model, x, y, norm))) * 1.5
    out = run(model, attack, x, y, norm, eps, goal="minimise")
    assert (out.rejected == 0).all()
    assert out.broken.any()
    assert (out.distance[out.broken] <= eps * (1 + 1e-5)).all()


# -- finding a start --------------------------------------------------------------------------


class ThirdClassNever(nn.Module):
    """Bright images are of class 1, dark ones of class 0, none of class 2."""

    def forward(self, x):
        z = x.mean((1, 2, 3)) - 0.4
        return torch.stack((-z, z, torch.full_like(z, -9.0)), dim=1)


def label(value):
    return value if isinstance(value, str) else type(value).__name__


WALKS = [(Boundary(queries=60, tries=7), "l2"), (Evolutionary(queries=60, tries=7), "l2")]
WALKS += [(HopSkipJump(queries=60, tries=7), norm) for norm in HopSkipJump.norms]
every_walk = pytest.mark.parametrize(("attack", "norm"), WALKS, ids=label)


@every_walk
def test_an_image_without_a_start_is_given_up_and_nobody_else(run, attack, norm):
    x = torch.full((4, 3, 8, 8), 0.1)
    y, target = torch.zeros(4, dtype=torch.int64), torch.tensor([1, 2, 1, 2])
    out = run(ThirdClassNever(), attack, x, y, norm, INF, goal="minimise", target=target)
    assert out.verdicts == ("broken", "no-start", "broken", "no-start")
    assert out.forwards.tolist() == [61, 7, 61, 7]


@every_walk
def test_tries_end_with_the_queries(run, attack, norm):
    x = torch.full((1, 3, 8, 8), 0.1)
    y, target = torch.tensor([0]), torch.tensor([2])
    short = replace(attack, queries=3)
    out = run(ThirdClassNever(), short, x, y, norm, INF, goal="minimise", target=target)
    assert (out.verdicts, out.forwards.tolist()) == (("no-start",), [3])


@every_walk
def test_a_given_start_comes_first_and_a_useless_one_is_replaced(attack, norm):
    x, y = torch.full((2, 3, 8, 8), 0.1), torch.zeros(2, dtype=torch.int64)
    bright = torch.full_like(x[0], 0.9)
    starts = [bright, x[1]]  # the second reaches nothing
    with prepared(ThirdClassNever(), x) as ready:
        driver = Driver(ready, attack, x, y, ["a", "b"], norm=norm, goal="minimise")
        found = [f for group in driver.run(deque(Job(k, INF, start_from=starts[k]) for k in range(2))) for f in group]
    first, second = sorted(found, key=lambda f: f.job.row)
    assert first.first_query == 1
    assert first.distance == pytest.approx(0.3 * (192**0.5 if norm == "l2" else 1), rel=0.01)  # straight up: nearest
    assert second.broken
    assert second.first_query > 1


def test_the_way_to_the_start_is_halved_ten_times():
    x, y = torch.full((1, 3, 8, 8), 0.1), torch.zeros(1, dtype=torch.int64)
    problem, asked = by_hand(ThirdClassNever(), x, y, "l2", start_from=torch.full_like(x, 0.9))
    attack = Boundary()
    state = advance(attack, problem, attack.start(problem), steps=11)
    assert bool(state.walks)
    assert not bool(torch.equal(asked[-1], asked[-2]))
    beyond = (state.x.mean() - 0.4).item()
    assert 0 < beyond <= 0.8 / 2**10 + 1e-6


def test_rays_takes_its_first_direction_from_a_given_start():
    x, y = torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, dtype=torch.int64)
    start = torch.where(torch.arange(192).view(1, 3, 8, 8) % 3 == 0, 0.2, 0.7)
    problem, asked = by_hand(ThirdClassNever(), x, y, "linf", start_from=start)
    advance(RayS(), problem, RayS().start(problem))
    assert torch.equal(asked[0], torch.where(start < x, 0.0, 1.0))


def test_random_images_come_in_cells_of_growing_size(linear):
    model, x, y = linear(n=6, shape=(3, 8, 8))
    problem, _ = by_hand(model, x, y, "l2")
    images = labels.random_image(problem, torch.arange(6))
    again = labels.random_image(problem.select(torch.tensor([2])), torch.tensor([2]))
    assert torch.equal(again[0], images[2])
    for k, cell in enumerate([1, 2, 4, 8, 1, 2]):
        blocks = images[k].unfold(1, cell, cell).unfold(2, cell, cell).flatten(3)
        assert (blocks == blocks[..., :1]).all()
        assert len(images[k].unique()) == blocks[..., 0].numel()


# -- Boundary ---------------------------------------------------------------------------------


def test_boundary_moves_sideways_and_inwards(linear):
    """The candidate's distance and angle as in the paper: a step orthogonal to the way, back to the sphere, inwards."""
    model, x, y = linear(n=4, low=0.45, high=0.55)
    problem, asked = by_hand(model, x, torch.full_like(y, 2), "l2")  # never predicted: every answer is yes
    attack = Boundary(spherical_step=0.05, source_step=0.02)
    state = attack.start(problem)
    away = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * 0.05
    state.x, state.found = x + away, torch.ones(4, dtype=torch.bool)
    state.t = torch.tensor([1, 2, 3, 10])  # the last one asks about the part sideways alone
    after = advance(attack, problem, state)
    assert torch.equal(after.x[:3], asked[0][:3])
    assert torch.equal(after.x[3], state.x[3])
    new, old = (asked[0] - x).flatten(1), away.flatten(1)
    shrunk = (new.norm(dim=1) / old.norm(dim=1)).tolist()
    assert shrunk == pytest.approx([0.98, 0.98, 0.98, 1.0], rel=1e-5)
    cosine = torch.cosine_similarity(new, old).tolist()
    assert cosine == pytest.approx([1 / (1 + 0.05**2) ** 0.5] * 4, rel=1e-5)


def test_boundary_adapts_each_image_by_its_own_successes(linear):
    model, x, y = linear(n=3, shape=SMALL)
    problem, _ = by_hand(model, x, y, "l2")
    attack = Boundary()
    state = attack.start(problem)
    # Two points far beyond the boundary and one that cannot move and succeed: the image itself.
    inside = model(1 - x).argmax(1) != y
    state.x = torch.where(inside[:, None, None, None], 1 - x, x)
    state.found = torch.ones(3, dtype=torch.bool)
    state.t = torch.ones(3, dtype=torch.int64)
    state.moves, state.move_hits = torch.tensor([29, 29, 29]), torch.tensor([29, 7, 2])
    state.checks, state.check_hits = torch.tensor([10, 9, 10]), torch.tensor([6, 0, 1])
    after = advance(attack, problem, state)
    hits = (state.move_hits + inside.long()) / 30
    inwards = torch.where(hits > 0.25, 1.5, torch.where(hits < 0.1, 1 / 1.5, 1.0))
    both = torch.tensor([1.5, 1.0, 1 / 1.5])
    torch.testing.assert_close(after.spherical, 0.01 * both)
    torch.testing.assert_close(after.source, 0.01 * both * inwards)
    assert after.moves.tolist() == [0, 0, 0]
    assert after.checks.tolist() == [0, 9, 0]


# -- Evolutionary -----------------------------------------------------------------------------


def test_evolutionary_learns_as_published(linear):
    """Path, variance and mu after one success and one failure, from the paper's update formulas."""
    model, x, y = linear(n=6, shape=(3, 10, 10))
    problem, asked = by_hand(model, x, y, "l2")
    attack = Evolutionary(grid=0.5, c=0.1, decay=0.9)
    state = attack.start(problem)
    state.x = (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    state.found = torch.ones(6, dtype=torch.bool)
    state.moves, state.hits = torch.full((6,), 29), torch.arange(6)
    before, old = state.variance.clone(), state.x
    after = advance(attack, problem, state)
    reached = model(asked[0]).argmax(1) != y
    assert 0 < reached.sum() < 6
    assert after.path.shape == (6, 3, 5, 5)
    assert ((after.path != 0).flatten(1).sum(1) == torch.where(reached, 75 // 20, 0)).all()
    assert torch.equal(after.variance[~reached], before[~reached])
    torch.testing.assert_close(after.variance[reached], (0.9 + 0.1 * after.path**2)[reached])
    torch.testing.assert_close(after.mu, 0.01 * torch.exp((torch.arange(6) + reached.long()) / 30 - 0.2))
    assert ((asked[0] - x).flatten(1).norm(dim=1) <= (old - x).flatten(1).norm(dim=1) * 0.9901).all()
    assert torch.equal(after.x[~reached], old[~reached])
    assert torch.equal(after.x[reached], asked[0][reached])


def test_evolutionary_changes_the_places_that_served(linear):
    model, x, y = linear(n=40, shape=(3, 10, 10))
    problem, _ = by_hand(model, x, y, "l2")
    attack = Evolutionary(grid=1.0)
    state = attack.start(problem)
    state.variance[:, 1] = 50.0
    change = attack._change(problem, state)
    share = (change[:, 1] != 0).sum() / (change != 0).sum()
    assert 0.9 < share < 1
    assert change[:, 1][change[:, 1] != 0].std().item() == pytest.approx(50**0.5, rel=0.1)


# -- HopSkipJump ------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_hopskipjump_estimates_and_leaps_as_published(linear, norm):
    """The samples of the second step recorded; mean of (answer - mean answer) · direction written out again."""
    model, x, y = linear(n=3, shape=(3, 8, 6), low=0.3, high=0.7)
    problem, asked = by_hand(model, x, y, norm)
    attack = HopSkipJump(initial_evals=50)
    state = advance(attack, problem, attack.start(problem))
    point, spent = state.x.clone(), state.spent.clone()
    asked.clear()
    advance(attack, problem, state)
    count = int(50 * 2**0.5)
    sizes = [len(part) // 3 for part in asked[: -(-count // BLOCK)]]
    assert sum(sizes) == count
    samples = [torch.cat([part.view(3, -1, *x.shape[1:])[k] for part in asked[: len(sizes)]]) for k in range(3)]
    order = 2 if norm == "l2" else INF
    far = torch.linalg.vector_norm((point - x).flatten(1), ord=order, dim=1)
    d = x[0].numel()
    theta = d**-1.5 if norm == "l2" else d**-2.0
    delta = (theta * far).clamp_min(2e-6) * (d**0.5 if norm == "l2" else d)
    for k in range(3):
        moved = (samples[k] - point[k]).flatten(1).double()
        torch.testing.assert_close(moved.norm(dim=1).float(), delta[k].expand(count), rtol=0.05, atol=0)
        phi = torch.where(model(samples[k]).argmax(1) != y[k], 1.0, -1.0).double()
        assert abs(phi.mean()) < 1
        v = ((phi - phi.mean())[:, None] * moved).mean(0)
        leap = v / v.norm() if norm == "l2" else v.sign()
        first = (point[k].flatten() + far[k] / 2**0.5 * leap.float()).clamp(0, 1)
        torch.testing.assert_close(asked[len(sizes)][k].flatten(), first, rtol=0, atol=2e-5)
        w = (model.weight[1 - y[k]] - model.weight[y[k]]).detach().double()
        assert torch.cosine_similarity(v, w, dim=0) > 0.3  # 70 samples among 144 values
    assert (problem.ledger.forwards > spent).all()


def test_hopskipjump_cuts_its_last_samples_to_what_is_left(linear, run):
    model, x, y = linear(n=5, shape=SMALL)
    for queries in (1, 2, 17, 60, 333):
        out = run(model, HopSkipJump(queries=queries), x, y, "l2", INF, goal="minimise")
        assert (out.forwards - out.broken.long() == queries).all()


# -- RayS -------------------------------------------------------------------------------------


def written_out_rays(broken, x, levels):
    """Algorithm 1 of the paper for one image; each radius measured by 25 halvings."""
    signs, radius, d = torch.ones(x.numel()), 1.0, x.numel()

    def at(direction, r):
        return broken((x + r * direction.view(x.shape)).clamp(0, 1))

    flips = [signs]
    for level in range(levels):
        size = -(-d // 2**level)
        flips += [(level, begin, min(begin + size, d)) for begin in range(0, d, size)]
    for flip in flips:
        trial = signs.clone()
        if isinstance(flip, tuple):
            trial[flip[1] : flip[2]] *= -1
        if not at(trial, radius):
            continue
        low, high = 0.0, radius
        for _ in range(25):
            middle = (low + high) / 2
            low, high = (low, middle) if at(trial, middle) else (middle, high)
        signs, radius = trial, high
    return signs.view(x.shape), radius


def test_rays_flips_as_published():
    model = load_model("samples:digits-plain").eval().requires_grad_(False)
    data = load_dataset("digits")[:3]
    x, _, _ = load_images(data, range(3), model.preprocessing)
    y = torch.tensor(data.labels)
    problem, _ = by_hand(model, x, y, "linf")
    attack, levels = RayS(tolerance=1e-4), 5
    state = attack.start(problem)
    done = {}
    while len(done) < 3:
        state = advance(attack, problem, state)
        for k in range(3):
            if state.level[k] == levels and k not in done:
                done[k] = (state.signs[k], state.radius[k].item(), state.t[k].item())
    for k in range(3):
        with torch.no_grad():
            signs, radius = written_out_rays(lambda z, k=k: int(model(z[None]).argmax()) != y[k], x[k], levels)
        assert done[k][1] == pytest.approx(radius, rel=2e-3)
        assert (done[k][0] == signs).float().mean() > 0.97  # a flip that gains less than the tolerance may differ
        assert done[k][2] < 12 * 32  # queries: a dozen for each flip at most


# -- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Boundary(queries=0),
        lambda: Boundary(spherical_step=0),
        lambda: Boundary(adaptation=1.0),
        lambda: Evolutionary(mu=0),
        lambda: Evolutionary(grid=1.5),
        lambda: Evolutionary(decay=1.0),
        lambda: HopSkipJump(initial_evals=0),
        lambda: HopSkipJump(gamma=0),
        lambda: RayS(tolerance=0.6),
        lambda: HopSkipJump(tries=0),
    ],
)
def test_senseless_settings_are_refused(make):
    with pytest.raises(SpecError, match="must be"):
        make()
