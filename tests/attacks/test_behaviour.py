"""What each algorithm promises beyond the closed forms: odd gradients, few classes, schedules, cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aresbench.attacks import geometry, losses
from aresbench.attacks.apgd import APGD, APGDCE, APGDDLR, APGDPM
from aresbench.attacks.bim import BIM
from aresbench.attacks.fgsm import FGSM
from aresbench.attacks.fmn import FMN
from aresbench.attacks.mim import MIM
from aresbench.attacks.pgd import PGD
from aresbench.attacks.square import Square
from aresbench.core.errors import SpecError
from aresbench.engine.problem import EngineProblem
from aresbench.ops.random import Streams

ATTACKS = [
    FGSM(),
    BIM(steps=5),
    MIM(steps=5, rel_step=0.25),
    PGD(steps=5),
    APGDCE(steps=12),
    APGDDLR(steps=12),
    APGDPM(steps=12),
    Square(queries=20),
    FMN(steps=12),
]
PAIRS = [(attack, norm) for attack in ATTACKS for norm in attack.norms]
NAMES = [f"{type(attack).__name__}-{norm}" for attack, norm in PAIRS]


class Fixed(nn.Module):
    """Logits that do not depend on the image, or answer with NaN gradients, or with NaN."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        logits = torch.zeros(len(x), 3)
        logits[:, 0] = 1.0
        if self.kind == "zero gradient":
            return logits + 0 * x.flatten(1).sum(1, keepdim=True)
        if self.kind == "nan gradient":
            return logits + (x - x).flatten(1).sum(1, keepdim=True).abs().sqrt()  # d√|u| at 0 is 0 · ∞
        if self.kind == "nan logits":
            return logits + torch.nan * x.flatten(1).sum(1, keepdim=True)
        return logits


def steps_of(attack, norm):
    """Under L1 a run of APGD passes through three balls, and asks once more at the end of the first two."""
    return attack.total_steps + 2 * (isinstance(attack, APGD) and norm == "l1")


def limit(attack):
    return ("minimise", float("inf")) if attack.kind == "minimal" else ("break", 0.1)


@pytest.mark.parametrize("kind", ["constant", "zero gradient", "nan gradient", "nan logits"])
@pytest.mark.parametrize(("attack", "norm"), PAIRS, ids=NAMES)
def test_useless_gradients_break_nothing_and_are_counted(run, attack, norm, kind):
    x, y = torch.rand(4, 3, 6, 6), torch.zeros(4, dtype=torch.int64)
    goal, eps = limit(attack)
    out = run(Fixed(kind), attack, x, y, norm, eps, goal=goal)
    assert not out.broken.any()
    assert torch.isfinite(out.x_adv).all()
    assert (out.rejected == 0).all()
    if attack.access == "gradient":
        counted = out.nan_gradients if "nan" in kind else out.zero_gradients
        assert (counted == out.backwards).all()
        assert (out.backwards == steps_of(attack, norm)).all()


@pytest.mark.parametrize(("attack", "norm"), PAIRS, ids=NAMES)
def test_one_bad_image_does_not_touch_its_neighbours(run, linear, attack, norm):
    model, x, y = linear(n=6)

    class Poisoned(nn.Module):
        def forward(self, x):
            bright = x.detach().flatten(1).mean(1, keepdim=True) > 0.85
            return torch.where(bright, torch.nan, 1.0) * model(x)

    goal, eps = limit(attack)
    alone = run(model, attack, x[1:], y[1:], norm, eps, goal=goal, ids=list("bcdef"))
    x[0] = 1.0
    with_bad = run(Poisoned(), attack, x, y, norm, eps, goal=goal, ids=list("abcdef"))
    assert torch.equal(with_bad.broken[1:], alone.broken)
    torch.testing.assert_close(with_bad.x_adv[1:], alone.x_adv, rtol=0, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
@pytest.mark.parametrize(("attack", "norm"), PAIRS, ids=NAMES)
def test_any_number_of_classes(run, linear, attack, norm, classes):
    model, x, y = linear(classes=classes, n=8)
    goal, _ = limit(attack)
    eps = float("inf") if goal == "minimise" else {"linf": 0.4, "l2": 8.0, "l1": 40.0}[norm]
    out = run(model, attack, x, y, norm, eps, goal=goal)
    assert out.broken.float().mean() >= 0.75
    with torch.no_grad():
        assert (model(out.x_adv)[out.broken].argmax(1) != y[out.broken]).all()


@pytest.mark.parametrize(("attack", "norm"), PAIRS, ids=NAMES)
def test_nothing_happens_at_eps_zero(run, linear, attack, norm):
    model, x, y = linear(classes=3, edges=True)
    out = run(model, attack, x, y, norm, 0.0, goal="maximise")
    assert torch.equal(out.x_adv, x)


@pytest.mark.parametrize(("attack", "norm"), PAIRS, ids=NAMES)
def test_images_at_different_steps_share_a_batch_without_noticing(run, linear, attack, norm):
    model, x, y = linear(classes=3, n=12)
    goal, eps = limit(attack)
    together = run(model, attack, x, y, norm, eps, goal=goal, batch=12)
    in_turn = run(model, attack, x, y, norm, eps, goal=goal, batch=5)  # images enter as others leave
    assert torch.equal(together.broken, in_turn.broken)
    torch.testing.assert_close(together.x_adv, in_turn.x_adv, rtol=0, atol=1e-5)
    assert torch.equal(together.forwards, in_turn.forwards)


@pytest.mark.parametrize(("attack", "norm"), PAIRS, ids=NAMES)
def test_a_warm_start_begins_at_the_given_point_brought_into_the_budget(linear, attack, norm):
    model, x, y = linear(n=4)
    asked = []

    def watched(images):
        asked.append(images.detach().clone())
        return model(images)

    away = torch.rand(x.shape)
    problem = EngineProblem(
        watched, x, y, torch.full((4,), 0.02), Streams(0, "test", list("abcd")),
        norm=norm, goal="minimise", num_classes=2, rows=torch.arange(4), start_from=away,
    )  # fmt: skip
    attack.step(problem, attack.start(problem))
    torch.testing.assert_close(asked[0], geometry.project(away, x, problem.eps, norm))


def test_the_margin_and_its_ratio():
    logits = torch.tensor([[3.0, 1.0, 0.0, -2.0], [0.0, 5.0, 4.0, 1.0]])
    y = torch.tensor([0, 2])
    torch.testing.assert_close(losses.margin(logits, y), torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(losses.margin(logits - 10, y), torch.tensor([2.0, -1.0]))  # also where all are negative
    torch.testing.assert_close(losses.dlr(logits, y), torch.tensor([-2.0 / 3.0, 1.0 / 4.0]))
    torch.testing.assert_close(losses.dlr(10 * logits, y), losses.dlr(logits, y))
    with pytest.raises(SpecError, match="3 classes"):
        losses.dlr(logits[:, :2], torch.tensor([0, 1]))


# -- costs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attack", "norm"), PAIRS, ids=NAMES)
def test_an_image_that_resists_costs_what_the_card_says(run, linear, attack, norm):
    model, x, y = linear(n=4)
    out = run(model, attack, x, y, norm, 0.0)
    steps = steps_of(attack, norm)
    assert out.forwards.tolist() == [steps if isinstance(attack, Square) else steps + 1] * 4
    assert out.backwards.tolist() == [0 if isinstance(attack, Square) else steps] * 4


# -- MIM ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_mim_sums_gradients_of_length_one_in_l1_and_a_zero_one_adds_nothing(decay):
    gradients = [torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(k)) * 10.0**k for k in range(3)]
    gradients[1][0], gradients[2][1] = 0, 1e-30  # none at all; one whose square is no float32 number

    class Given:
        x, y, eps, norm = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3), torch.full((3,), 0.1), "linf"
        target = start_from = None
        steps = iter(gradients)

        def gradient(self, x, loss):
            assert loss is None  # the problem's own
            return None, None, next(self.steps)

        def offer(self, x, logits):
            pass

    attack, problem = MIM(decay=decay), Given()
    state, wanted = attack.start(problem), torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    for gradient in gradients:
        state = attack.step(problem, state)
        length = gradient.double().abs().sum((1, 2, 3), keepdim=True)
        wanted = decay * wanted + torch.where(length > 0, gradient / length.clamp_min(1e-300), 0.0)
        torch.testing.assert_close(state.momentum.double(), wanted, rtol=1e-5, atol=1e-7)


# -- APGD -------------------------------------------------------------------------------------


def test_apgd_checks_at_the_published_shares_of_the_steps(linear):
    model, x, y = linear(n=2)
    attack = APGDCE(steps=100)
    problem = EngineProblem(
        model, x, y, torch.full((2,), 0.1), Streams(0, "test", ["a", "b"]),
        norm="linf", goal="maximise", num_classes=2, rows=torch.arange(2),
    )  # fmt: skip
    state = attack.start(problem)
    checks = set()
    for _ in range(100):
        with torch.no_grad():
            state = attack.step(problem, state)
        state.t = state.t + 1
        checks.add(int(state.next_check[0]))
    # the recursion p(j+1) = p(j) + max(p(j) − p(j−1) − 0.03, 0.06) of the paper
    assert sorted(checks)[:8] == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize(("steps", "legs"), [(1, (1,)), (2, (2,)), (3, (1, 1, 1)), (4, (1, 1, 2)), (5, (2, 2, 1))])
def test_a_run_of_apgd_under_l1_shrinks_the_ball_twice_where_it_has_the_steps(linear, steps, legs):
    model, x, y = linear(n=3)
    attack, asked, eps = APGDCE(steps=steps), [], 2.0

    def watched(images):
        asked.append(images.detach().clone())
        return model(images)

    problem = EngineProblem(
        watched, x, y, torch.full((3,), eps), Streams(0, "test", list("abc")),
        norm="l1", goal="break", num_classes=2, rows=torch.arange(3),
    )  # fmt: skip
    state = attack.start(problem)
    for _ in range(attack.steps_for(problem)):
        state = attack.step(problem, state)
        state.t = state.t + 1
    attack.finish(problem, state)
    sizes = torch.stack([geometry.distance(point, x, "l1") for point in asked])
    wanted = [scale * eps for scale, n in zip((3, 2, 1)[-len(legs) :], legs, strict=True) for _ in range(n + 1)]
    torch.testing.assert_close(sizes, torch.tensor(wanted)[:, None].expand(-1, 3), rtol=1e-5, atol=1e-5)
    assert (problem.ledger.rejected == 0).all()  # in the larger balls nothing is claimed


# -- restarts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("kind", [PGD, APGDCE])
def test_each_restart_begins_at_its_own_point_and_continues_what_fewer_would_do(linear, run, kind, norm):
    model, x, y = linear(n=10, low=0.3, high=0.7)

    def path(restarts):
        asked = []

        def watched(images):
            asked.append(images.detach().clone())
            return model(images)

        problem = EngineProblem(
            watched, x, y, torch.full((10,), 0.1), Streams(0, "test", list("abcdefghij")),
            norm=norm, goal="break", num_classes=2, rows=torch.arange(10),
        )  # fmt: skip
        attack = kind(steps=5, restarts=restarts)
        state = attack.start(problem)
        for _ in range(attack.steps_for(problem)):
            state = attack.step(problem, state)
            state.t = state.t + 1
        attack.finish(problem, state)
        return asked

    one, three = path(1), path(3)
    assert len(three) == 3 * len(one)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=False))
    starts = [three[k * len(one)] for k in range(3)]
    for k in range(3):
        assert all((starts[k] != starts[j]).flatten(1).any(1).all() for j in range(k))


@pytest.mark.parametrize("kind", [PGD, APGDCE])
def test_an_image_leaves_at_its_first_break_in_whichever_run(linear, run, kind):
    class Pocket(nn.Module):
        """Wrong only where the first value lies in a narrow strip that steps jump over."""

        def forward(self, x):
            first = x[:, 0, 0, 0]
            inside = ((first - 0.55).abs() < 0.004).float() * 10
            return torch.stack((torch.ones_like(first), inside + 0 * first), 1)

    x, y = torch.full((40, 1, 1, 1), 0.5), torch.zeros(40, dtype=torch.int64)
    one, many = (run(Pocket(), kind(steps=1, restarts=r), x, y, "linf", 0.1) for r in (1, 12))
    assert many.broken[one.broken].all()
    assert (many.forwards[one.broken] == one.forwards[one.broken]).all()
    if kind is PGD:  # APGD begins at the surface, where the strip is not
        later = many.broken & ~one.broken
        assert later.any()
        assert (many.forwards[later] < 24).all()
    assert (many.forwards[~many.broken] == 24).all()
    assert (many.backwards[~many.broken] == 23).all()


# -- Square -----------------------------------------------------------------------------------


def square_problem(n=64, shape=(3, 12, 7), eps=0.1):
    x = torch.full((n, *shape), 0.5)
    return EngineProblem(
        lambda images: torch.zeros(len(images), 2), x, torch.zeros(n, dtype=torch.int64), torch.full((n,), eps),
        Streams(0, "test", [str(k) for k in range(n)]),
        norm="linf", goal="maximise", num_classes=2, rows=torch.arange(n),
    )  # fmt: skip


@pytest.mark.parametrize("rescale", [False, True])
def test_squares_shrink_on_schedule(rescale):
    attack = Square(queries=5000, rescale_schedule=rescale)
    limits = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    t = torch.arange(1, 5000)
    for height, width in ((32, 32), (224, 160)):
        sides = attack.side(t, height, width).tolist()
        for step in (1, 6, 7, 11, 12, 27, 51, 52, 201, 202, 501, 502, 1001, 2001, 2002, 4001, 4002, 4999):
            done = (step - 1) * (2 if rescale else 1)
            area = 0.8 / 2 ** sum(done > limit for limit in limits) * height * width
            assert sides[step - 1] == min(max(round(area**0.5), 1), height, width)


def test_square_paints_whole_squares_of_one_value_a_channel_anywhere_in_the_image():
    problem, attack = square_problem(n=400), Square(p_init=0.1)
    state = attack.start(problem)
    assert torch.equal(state.best[:, :, 0], state.best[:, :, -1])  # the start is vertical stripes
    assert ((state.best - problem.x).abs() - 0.1).abs().max() < 1e-6
    state.best = problem.x  # a blank canvas shows the square
    state.t = torch.ones(400, dtype=torch.int64)
    change = attack._propose(problem, state) - problem.x
    painted = change.abs().amax(1) > 0
    side = int(attack.side(state.t, 12, 7)[0])
    assert side == 3
    assert (painted.sum((1, 2)) == side * side).all()
    for channel in range(3):
        values = change[:, channel]
        assert (values.flatten(1).amax(1) - values.flatten(1).amin(1) <= 0.1 + 1e-6).all()  # never both signs
    rows, columns = painted.any(2).float().mean(0), painted.any(1).float().mean(0)
    assert (rows > 0).all() and (columns > 0).all()  # the last ones too
    assert len({tuple(p.flatten().tolist()) for p in painted}) > 30  # each image has its own


def test_square_keeps_only_what_shrinks_the_margin(linear):
    model, x, y = linear(n=8)
    seen = []
    problem = EngineProblem(
        model, x, y, torch.full((8,), 0.05), Streams(0, "test", list("abcdefgh")),
        norm="linf", goal="maximise", num_classes=2, rows=torch.arange(8),
    )  # fmt: skip
    attack = Square(queries=200)
    state = attack.start(problem)
    with torch.no_grad():
        for _ in range(200):
            state = attack.step(problem, state)
            state.t = state.t + 1
            seen.append(state.best_loss)
            torch.testing.assert_close(state.best_loss, -losses.margin(model(state.best), y))
    trace = torch.stack(seen)
    assert (trace.diff(dim=0) >= 0).all()
    assert (trace[-1] > trace[0]).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: BIM(steps=0),
        lambda: BIM(rel_step=-1),
        lambda: MIM(steps=0),
        lambda: MIM(decay=0),
        lambda: PGD(steps=0),
        lambda: PGD(steps=2.5),
        lambda: PGD(steps=True),
        lambda: PGD(rel_step=0),
        lambda: PGD(random_start="yes"),
        lambda: PGD(restarts=0),
        lambda: PGD(random_start=False, restarts=2),
        lambda: APGDDLR(restarts=1.5),
        lambda: APGDCE(rho=1.5),
        lambda: APGDCE(steps=-1),
        lambda: Square(queries=0),
        lambda: Square(p_init=0.0),
        lambda: FMN(gamma=float("nan")),
        lambda: FMN(alpha="1"),
    ],
)
def test_senseless_settings_are_refused(make):
    with pytest.raises(SpecError, match=r"must be|the same run"):
        make()


class Crest(nn.Module):
    """Class 1 only in a thin shell: where the mean of the image is within 0.004 of 0.548."""

    def forward(self, x):
        off = (x.mean((1, 2, 3)) - 0.548) ** 2
        return torch.stack((torch.full_like(off, 0.0), 1.6e-3 - 100 * off), dim=1)


@pytest.mark.parametrize(
    "attack", [PGD(steps=3, random_start=False), BIM(steps=3, rel_step=0.25), MIM(steps=3, decay=1e-9, rel_step=0.25)]
)
def test_a_break_on_the_way_counts_though_the_search_goes_on_and_leaves_it(run, attack):
    # Steps of 0.025 from 0.5: 0.525, 0.55 (a break), and back to 0.525.
    x = torch.full((2, 3, 4, 4), 0.5)
    out = run(Crest(), attack, x, torch.zeros(2, dtype=torch.int64), "linf", 0.1)
    assert out.broken.all()
    assert (out.first_step == 2).all()
