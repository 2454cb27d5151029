"""Square under L2 and L1: the patterns of its windows, what a move changes, and how near it comes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aresbench.attacks import geometry
from aresbench.attacks.losses import margin
from aresbench.attacks.square import Square, _pattern
from aresbench.engine.problem import EngineProblem
from aresbench.ops.random import Streams

ORDER = {"l2": 2, "l1": 1}


def nested_squares(height, width, norm):
    """The bump of the paper's appendix, ring by ring, as a picture of size 1."""
    bump, middle = np.zeros((height, width)), (height // 2, width // 2)
    for k in range(max(middle) + 1):
        for i in range(height):
            for j in range(width):
                if abs(i - middle[0]) <= k and abs(j - middle[1]) <= k:
                    bump[i, j] += 1 / (k + 1) ** (2 if norm == "l2" else 4)
    return bump / np.linalg.norm(bump.ravel(), ORDER[norm])


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("side", [2, 3, 4, 7, 12])
def test_a_pattern_is_two_bumps_of_opposite_sign(norm, side):
    wanted = np.concatenate((nested_squares(side // 2, side, norm), -nested_squares(side - side // 2, side, norm)))
    wanted /= np.linalg.norm(wanted.ravel(), ORDER[norm])
    np.testing.assert_allclose(_pattern(side, norm), wanted, atol=1e-12)


def problem_of(norm, n=200, shape=(3, 12, 9), eps=1.0, model=None, x=None, y=None):
    x = torch.full((n, *shape), 0.5) if x is None else x
    return EngineProblem(
        model or (lambda images: torch.zeros(len(images), 2)),
        x, torch.zeros(len(x), dtype=torch.int64) if y is None else y, torch.full((len(x),), eps),
        Streams(0, "test", [str(k) for k in range(len(x))]),
        norm=norm, goal="maximise", num_classes=2, rows=torch.arange(len(x)),
    )  # fmt: skip


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("shape", [(3, 12, 9), (1, 4, 4), (3, 1, 1), (2, 2, 7), (3, 33, 20)])
def test_every_point_fills_the_budget_and_no_more_whatever_the_shape(norm, shape):
    problem, attack = problem_of(norm, n=6, shape=shape, eps=0.2), Square(queries=30)
    state = attack.start(problem)
    assert torch.equal(attack._move(problem, state), state.best)
    for step in (0, 1, 2, 12, 60, 300, 4999):
        state.t = torch.full((6,), step)
        state.best = attack._move(problem, state)  # whatever it is worth
        size = geometry.distance(state.best, problem.x, norm)
        assert (size <= geometry.allowance(problem.eps)).all()
        full = torch.isclose(size, problem.eps, rtol=1e-4)
        assert full.all() or shape == (3, 1, 1)  # a window of one pixel may cancel out
        assert torch.isfinite(state.best).all()


def test_the_start_under_l2_is_a_grid_of_tiles_with_their_own_signs():
    problem = problem_of("l2", n=50, shape=(3, 23, 23), eps=2.0)
    change = Square().start(problem).best - problem.x
    assert (change[:, :, [0, 22]] == 0).all() and (change[..., [0, 22]] == 0).all()  # 5 tiles of 4 leave a margin
    upright, pattern = set(), _pattern(4, "l2").float()
    for image in range(50):
        for tile in change[image, :, 1:21, 1:21].unfold(1, 4, 4).unfold(2, 4, 4).reshape(-1, 4, 4):
            tile = tile / tile.norm()
            alike = [float((tile * p).sum()) for p in (pattern, -pattern, pattern.T, -pattern.T)]
            assert max(alike) > 0.999
            upright.add(alike.index(max(alike)))
    assert upright == {0, 1, 2, 3}
    assert len({tuple(c.sign().flatten().tolist()) for c in change}) == 50


@pytest.mark.parametrize("norm", ORDER)
def test_a_move_empties_one_window_and_fills_another_of_its_own_for_each_image(norm):
    problem, attack = problem_of(norm, n=300, eps=2.0), Square(p_init=0.1)
    state = attack.start(problem)
    draw = torch.Generator().manual_seed(0)
    noise = 1 + torch.rand(state.best.shape, generator=draw)
    state.best = problem.x + 2 * noise / geometry.size(noise, norm)[:, None, None, None]
    state.t = torch.ones(300, dtype=torch.int64)
    change, before = attack._move(problem, state) - problem.x, state.best - problem.x
    emptied = (change == 0).all(1)
    ratio = change / before
    same = torch.isclose(ratio, ratio.flatten(1).median(1).values[:, None, None, None], rtol=1e-3).all(1)
    filled = ~same & ~emptied
    assert (emptied.sum((1, 2)) <= 9).all() and (emptied.sum((1, 2)) > 0).float().mean() > 0.5
    assert (filled.sum((1, 2)) <= 9).all() if norm == "l2" else True
    # The same mass as before, in every channel that it came from.
    if norm == "l2":
        moved = (change.square().sum((2, 3)) / before.square().sum((2, 3))).sqrt()
        torch.testing.assert_close(moved, torch.ones_like(moved), rtol=1e-3, atol=0)
    for window in (emptied, filled):
        rows, columns = window.any(2).float().mean(0), window.any(1).float().mean(0)
        assert (rows > 0).all() and (columns > 0).all()  # the last ones too
        assert len({tuple(p.flatten().tolist()) for p in window}) > 50


@pytest.mark.parametrize("norm", ORDER)
def test_it_keeps_only_what_shrinks_the_margin_and_counts_every_query(linear, run, norm):
    model, x, y = linear(n=8)
    problem = problem_of(norm, model=model, x=x, y=y, eps=0.5)
    attack = Square(queries=100)
    state, trace = attack.start(problem), []
    with torch.no_grad():
        for _ in range(100):
            state = attack.step(problem, state)
            state.t = state.t + 1
            trace.append(state.best_loss)
            torch.testing.assert_close(state.best_loss, -margin(model(state.best), y))
    assert (torch.stack(trace).diff(dim=0) >= 0).all()
    assert (trace[-1] > trace[0]).all()
    out = run(model, attack, x, y, norm, 0.0)
    assert out.forwards.tolist() == [100] * 8


@pytest.mark.parametrize("norm", ORDER)
def test_it_comes_within_some_two_times_the_nearest_break_of_white_noise(linear, run, norm):
    """Windows of 3 by 3 cannot follow weights that are noise; how near they come in 600 queries is what they can do."""
    model, x, y = linear(n=12, low=0.3, high=0.7)
    w = (model.weight[1] - model.weight[0]).detach()
    gap = margin(model(x), y).detach()
    exact = gap / (w.norm() if norm == "l2" else w.abs().max())  # no value needs to move by more than the box allows
    assert not run(model, Square(queries=100), x, y, norm, exact * 0.99).broken.any()
    assert run(model, Square(queries=600), x, y, norm, exact * 2.5).broken.float().mean() >= 0.75
