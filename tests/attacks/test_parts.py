"""The parts of transfer attacks: each against its formula, alone and composed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import convolve
from scipy.stats import norm as normal

from aresbench.attacks import geometry, mim
from aresbench.attacks.losses import margin
from aresbench.attacks.mim import MIM
from aresbench.attacks.parts import DI, SI, TI, Admix, canonical, compose
from aresbench.core.errors import SpecError
from aresbench.engine.problem import EngineProblem
from aresbench.ops.photographs import photographs, pieces
from aresbench.ops.random import Streams

HERE = torch.zeros(4, dtype=torch.int64)


def problem_of(model, x, y, eps=0.1, norm="linf", goal="maximise", target=None):
    """The engine's problem, and the list of all points the model is asked about."""
    asked = []

    def watched(x):
        asked.append(x.detach().clone())
        return model(x)

    n = len(x)
    problem = EngineProblem(
        watched, x, y, torch.full((n,), eps), Streams(0, "test", [str(k) for k in range(n)]),
        norm=norm, goal=goal, num_classes=2, rows=torch.arange(n), target=target,
    )  # fmt: skip
    return problem, asked


def numbers(n, draws, seed=0):
    return torch.rand(n, draws, generator=torch.Generator().manual_seed(seed))


# -- texts ------------------------------------------------------------------------------------


def test_parts_are_kept_in_one_spelling_and_in_the_order_in_which_they_act():
    assert MIM(parts=("ti", "vmi( beta = 1.50)", "di(prob=0.7)", "si")).parts == ("si", "di(prob=0.7)", "vmi", "ti")
    assert canonical(("vmi(beta=2)",)) == canonical(("vmi(beta=2.0)",)) == ("vmi(beta=2.0)",)
    assert hash(MIM(parts=("ti", "di"))) == hash(MIM(parts=("di", "ti")))


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (("dii",), "did you mean 'di'"),
        (("di(pro=1)",), "did you mean 'prob'"),
        (("ti(colour=1)",), "its settings are size, nsig"),
        (("di(0.5)",), r"write di\(prob=0.5\)"),
        (("di(prob=2)",), "above 0 and at most 1"),
        (("di(grow=1)",), "above 1"),
        (("ti(size=4)",), "odd"),
        (("si(copies=0)",), "at least 1"),
        (("si", "admix"), "both parts of kind 'copies'"),
        (("di", "di(prob=1)"), "keep one"),
        ("di", "list of texts"),
        ((3,), "list of texts"),
    ],
)
def test_mistakes_are_named_at_construction(parts, says):
    with pytest.raises(SpecError, match=says):
        MIM(parts=parts)


# -- transformations --------------------------------------------------------------------------


def test_scale_copies_are_the_image_over_powers_of_two():
    x = torch.rand(2, 3, 5, 4)
    shown = SI(copies=3)(x, numbers(2, 0)).reshape(3, 2, 3, 5, 4)
    for i in range(3):
        assert torch.equal(shown[i], x / 2**i)


def test_admix_adds_pictures_that_belong_to_the_image_and_not_to_its_batch():
    part, x = Admix(mixes=2, portion=0.25, copies=3), torch.rand(4, 3, 16, 12)
    drawn = numbers(4, part.draws)
    shown = part(x, drawn).reshape(3, 2, 4, 3, 16, 12)
    for i in range(3):
        for k in range(2):
            wanted = (x + 0.25 * pieces(drawn[:, 3 * k : 3 * k + 3], (3, 16, 12))) / 2**i
            torch.testing.assert_close(shown[i, k], wanted)
    alone = part(x[2:3], drawn[2:3]).reshape(3, 2, 3, 16, 12)
    torch.testing.assert_close(alone, shown[:, :, 2])
    assert (shown[0, 0] - shown[0, 1]).abs().mean() > 0.01


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 224, 160), (3, 8, 6)])
def test_pieces_of_photographs_have_the_size_asked_for_and_vary(shape):
    found = pieces(numbers(12, 3), shape)
    assert found.shape == (12, *shape)
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.flatten(1).std(1).min() > 0.01, "a piece shows something"
    assert len(found.flatten(1).unique(dim=0)) >= 8


def test_a_piece_at_full_size_is_cut_from_the_photograph():
    sheet = photographs()[1]  # at 427 pixels there is one size, so 0.6 names the second photograph
    found = pieces(torch.tensor([[0.6, 0.0, 0.5]]), (3, 427, 100))[0]
    torch.testing.assert_close(found, sheet[:, :, 270:370])


def test_diverse_inputs_are_grown_padded_and_brought_back():
    x = torch.rand(6, 3, 40, 30)
    drawn = numbers(6, 4)
    drawn[:, 0] = torch.tensor([0.1, 0.2, 0.49, 0.5, 0.3, 0.9])
    shown = DI(prob=0.5)(x, drawn)
    for i in range(6):
        if drawn[i, 0] >= 0.5:
            assert torch.equal(shown[i], x[i])
            continue
        grown = [side + int(drawn[i, 1] * (out - side)) for side, out in ((40, 44), (30, 33))]
        before = [int(drawn[i, 2 + k] * (out - grown[k])) for k, out in enumerate((44, 33))]
        after = [out - grown[k] - before[k] for k, out in enumerate((44, 33))]
        wanted = F.interpolate(x[i : i + 1], size=grown, mode="bilinear", align_corners=False)
        wanted = F.pad(wanted, (before[1], after[1], before[0], after[0]))
        wanted = F.interpolate(wanted, size=(40, 30), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(shown[i], wanted, rtol=0, atol=1e-5)


def test_diverse_inputs_draw_for_each_image_and_grow_as_far_as_published():
    ones = torch.ones(400, 1, 299, 1).expand(-1, -1, -1, 20)
    shown = DI(prob=0.7, grow=330 / 299)(ones, numbers(400, 4))
    rows = (shown[:, 0, :, 10] > 0.5).sum(1)  # of 299, those that are not padding
    assert 0.63 < (rows < 299).float().mean() < 0.77
    assert 270 <= rows.min() <= 272  # 299 of 330 pixels, shrunk by 299/330
    assert len(rows.unique()) > 20


# -- through the attack -----------------------------------------------------------------------

COMPOSITIONS = [
    ("si",), ("admix",), ("di(prob=1)",), ("si", "di(prob=0.7)"), ("admix(mixes=2, copies=2)", "di"),
]  # fmt: skip


@pytest.mark.parametrize("parts", COMPOSITIONS, ids=str)
def test_the_gradient_is_that_of_the_mean_loss_over_all_that_is_shown(linear, parts):
    """On a linear model the difference of two losses is exactly what the gradient says."""
    model, x, y = linear(n=4, shape=(3, 20, 16))
    attack, made = MIM(parts=parts, loss="margin"), compose(parts)

    def mean_loss(at):
        problem, asked = problem_of(model, at, y)
        slope = attack._slope(problem, made, at, "here", HERE)
        shown = torch.cat(asked)
        with torch.no_grad():
            loss = -margin(model(shown).double(), y.repeat(len(shown) // 4))
        return loss.reshape(-1, 4).mean(0), slope

    way = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) * 0.1
    (before, slope), (after, _) = mean_loss(x), mean_loss(x + way)
    torch.testing.assert_close((slope * way).sum((1, 2, 3)).double(), after - before, rtol=1e-4, atol=1e-6)


def test_scale_invariance_averages_the_gradients_of_its_copies(linear):
    model, x, y = linear(n=4)
    problem, _ = problem_of(model, x, y)
    attack = MIM(parts=("si",), loss="margin")
    slope = attack._slope(problem, compose(attack.parts), x, "here", HERE)
    weight = (model.weight[1 - y] - model.weight[y]).detach().view_as(x)
    torch.testing.assert_close(slope, weight * (1 + 1 / 2 + 1 / 4 + 1 / 8 + 1 / 16) / 5)


@pytest.mark.parametrize("part", [TI(), TI(size=5), TI(size=7, nsig=1.5)], ids=str)
def test_translation_invariance_convolves_with_the_published_kernel_before_the_norm(linear, part):
    model, x, y = linear(n=4, shape=(3, 12, 10))
    attack = MIM(parts=(f"ti(size={part.size}, nsig={part.nsig})",), loss="margin")
    problem, _ = problem_of(model, x, y)
    state = attack.step(problem, attack.start(problem))
    line = normal.pdf(np.linspace(-part.nsig, part.nsig, part.size))
    kernel = np.outer(line, line) / line.sum() ** 2
    weight = (model.weight[1 - y] - model.weight[y]).detach().view_as(x).double().numpy()
    wanted = np.stack([[convolve(plane, kernel, mode="constant") for plane in image] for image in weight])
    wanted /= np.abs(wanted).sum((1, 2, 3), keepdims=True)
    torch.testing.assert_close(state.momentum.double(), torch.from_numpy(wanted), rtol=1e-4, atol=1e-8)


class Quadratic(torch.nn.Module):
    """A model whose margin is no linear function: (x·w)², so that neighbours' gradients differ."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, x):
        f = (x.flatten(1) @ self.weight).square()
        return torch.stack((f, torch.zeros_like(f)), dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_variance_tuning_follows_the_paper_step_by_step(norm):
    draw = torch.Generator().manual_seed(0)
    model, x, y = Quadratic(torch.randn(48, generator=draw)), torch.rand(4, 3, 4, 4, generator=draw), HERE
    attack = MIM(steps=4, decay=0.9, loss="margin", parts=("vmi(samples=3, beta=2)",))
    problem, _ = problem_of(model, x, y, norm=norm)
    state = attack.start(problem)
    point, summed, variance = x.clone(), torch.zeros_like(x), torch.zeros_like(x)

    def slope(at):  # of minus the margin
        w = model.weight.detach()
        return (-2 * (at.flatten(1) @ w)[:, None] * w).view_as(at)

    for t in range(4):
        state = attack.step(problem, state)
        state.t = state.t + 1
        here = slope(point)
        tuned = here + variance
        summed = 0.9 * summed + tuned / tuned.abs().sum((1, 2, 3), keepdim=True)
        near = [
            geometry.neighbour(point, torch.full((4,), 0.2), norm, problem.streams, f"vmi/{k}", t) for k in range(3)
        ]
        variance = sum(slope(at) for at in near) / 3 - here
        moved = geometry.ascend(point, summed, torch.full((4,), 0.01), norm)
        point = geometry.project(moved, x, problem.eps, norm)
        torch.testing.assert_close(state.x, point)
        torch.testing.assert_close(state.momentum, summed)
        torch.testing.assert_close(state.variance, variance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_neighbours_fill_a_ball_around_the_point(norm):
    x = torch.full((300, 3, 4, 4), 0.95)
    streams = Streams(0, "test", [str(k) for k in range(300)])
    found = geometry.neighbour(x, torch.full((300,), 0.2), norm, streams, "vmi/0", 5)
    far = geometry.distance(found, x, norm)
    assert far.max() <= 0.2 * (1 + 1e-5)
    assert far.min() > 0.15  # of 48 dimensions nearly all volume lies near the surface
    assert found.max() > 1, "the box does not cut"
    assert (found - x).mean().abs() < 0.005
    other = geometry.neighbour(x, torch.full((300,), 0.2), norm, streams, "vmi/1", 5)
    assert (found - other).abs().mean() > 0.01


def test_a_look_ahead_is_as_long_as_a_step():
    even = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(1, 1, 2, 2)
    for norm in ("linf", "l2"):
        moved = geometry.glide(torch.zeros(1, 1, 2, 2), geometry.normalised(even), torch.tensor([0.3]), norm)
        torch.testing.assert_close(moved, geometry.ascend(torch.zeros(1, 1, 2, 2), even, torch.tensor([0.3]), norm))


# -- what it costs, and what it keeps -----------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "shown"), [(("si",), 5), (("admix",), 15), (("vmi(samples=4)",), 5), (("si", "vmi(samples=4)"), 25)]
)
def test_every_copy_of_every_neighbour_is_counted(run, linear, parts, shown):
    model, x, y = linear(n=3)
    crafted = run(model, MIM(steps=2, parts=parts), x, y, "linf", 0.0, goal="maximise")
    assert crafted.forwards.tolist() == crafted.backwards.tolist() == [2 * shown] * 3
    assert MIM(steps=2, parts=parts).passes == 2 * 2 * shown, "what a forecast reckons with"
    judged = run(model, MIM(steps=2, parts=parts), x, y, "linf", 0.0)
    offers = 1 if parts == ("vmi(samples=4)",) else 3  # without transformations the iterate itself was asked about
    assert judged.forwards.tolist() == [2 * shown + offers] * 3


def test_copies_go_to_the_model_a_batch_at_a_time(linear, monkeypatch):
    model, x, y = linear(n=4)
    attack = MIM(steps=2, parts=("si", "di"))

    def climb():
        problem, asked = problem_of(model, x, y)
        state = attack.start(problem)
        for _ in range(2):
            state = attack.step(problem, state)
        return state.x, max(map(len, asked))

    whole, largest = climb()
    assert largest == 20
    monkeypatch.setattr(mim, "values_at_once", lambda device: 6 * x[0].numel())
    split, largest = climb()
    assert largest == 6
    torch.testing.assert_close(split, whole)


@pytest.mark.parametrize("loss", ["ce", "margin", "logit"])
@pytest.mark.parametrize("aimed", [False, True])
def test_every_loss_climbs_for_the_image_that_owns_the_copy(linear, loss, aimed):
    """Image by image the slope is the same as for the image alone: no copy takes another's label or target."""
    model, x, y = linear(classes=4, n=4)
    target = (y + 1 + torch.arange(4) % 3) % 4 if aimed else None
    attack, made = MIM(loss=loss, parts=("si",)), compose(("si",))
    together = attack._slope(problem_of(model, x, y, target=target)[0], made, x, "here", HERE)
    for i in range(4):
        one = slice(i, i + 1)
        problem, _ = problem_of(model, x[one], y[one], target=None if target is None else target[one])
        torch.testing.assert_close(together[one], attack._slope(problem, made, x[one], "here", HERE[one]))


def test_the_logit_loss_is_the_targets_logit_or_minus_the_labels(linear):
    model, x, y = linear(classes=4, n=4)
    target = (y + 1) % 4
    for goal, sign, wanted in ((None, -1, y), (target, 1, target)):
        problem, _ = problem_of(model, x, y, target=goal)
        attack = MIM(loss="logit", parts=("si(copies=1)",))
        slope = attack._slope(problem, compose(attack.parts), x, "here", HERE)
        torch.testing.assert_close(slope, sign * model.weight.detach()[wanted].view_as(x))


def test_where_gradients_are_zero_nothing_moves_and_nothing_becomes_nan():
    class Flat(torch.nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 2) + 0 * x.sum()

    x = torch.rand(4, 3, 8, 8)
    attack = MIM(steps=3, lookahead=True, parts=("si", "di", "vmi(samples=2)", "ti"))
    problem, _ = problem_of(Flat(), x, HERE)
    state = attack.start(problem)
    for _ in range(3):
        state = attack.step(problem, state)
    assert torch.equal(state.x, x)
    assert (state.momentum == 0).all()
    assert (state.variance == 0).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "attack",
    [MIM(lookahead=True), MIM(parts=("si",)), MIM(parts=("vmi(samples=3)",)), MIM(lookahead=True, parts=("si", "vmi"))],
    ids=["ni", "si", "vmi", "ni-si-vmi"],
)
def test_parts_that_leave_a_linear_models_slope_alone_still_find_its_worst_point(linear, run, attack, norm):
    model, x, y = linear(n=8, low=0.4, high=0.6)
    found = run(model, attack, x, y, norm, 0.3, goal="maximise").x_adv
    slope = (model.weight[1 - y] - model.weight[y]).detach()
    way = slope.sign() if norm == "linf" else slope / slope.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, x + 0.3 * way.view_as(x), rtol=0, atol=2e-5)
