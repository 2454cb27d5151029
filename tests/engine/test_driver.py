"""The driver: goals, rejected offers, memory that runs out, models that draw, images of different owners."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from aresbench.attacks import geometry
from aresbench.attacks.base import Attack, State
from aresbench.attacks.load import make_attack
from aresbench.core.errors import SpecError
from aresbench.engine.driver import Driver, Job, _eight_bits, run_attack
from aresbench.engine.prepare import prepared


class Plane(nn.Module):
    """Two logits ±20 · (mean(x) − 0.5): class 0 for bright images."""

    def forward(self, x):
        f = 20 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack((f, -f), dim=1)


BRIGHT = torch.full((6, 3, 4, 4), 0.6)
ZERO = torch.zeros(6, dtype=torch.int64)


@dataclass(frozen=True)
class Cheat(Attack):
    """Offers points far outside any budget, and outside the box."""

    norms = ("linf",)
    access = "score"
    kind = "bounded"
    revision = 1
    outside_box: bool = False

    @property
    def total_steps(self):
        return 2

    def start(self, problem):
        return State(torch.zeros_like(problem.y))

    def step(self, problem, state):
        x = torch.full_like(problem.x, -0.1 if self.outside_box else 0.0)
        problem.offer(x, problem.query(x))
        return State(state.t)


@pytest.mark.parametrize("outside_box", [False, True])
def test_offers_that_break_the_rules_are_rejected_and_counted(outside_box):
    with prepared(Plane(), BRIGHT) as model:
        eps = 10.0 if outside_box else 0.59  # the offer is 0.6 away
        out = run_attack(model, Cheat(outside_box), BRIGHT, ZERO, norm="linf", eps=eps)
    assert not out.broken.any()
    assert (out.rejected == 2).all()
    assert torch.equal(out.x_adv, BRIGHT)


@pytest.mark.parametrize(("keep", "forwards"), [("last", 9), ("best", 10)])
def test_maximise_takes_every_step_for_every_image_and_judges_nothing(keep, forwards):
    with prepared(Plane(), BRIGHT) as model:
        attack = make_attack("pgd(steps=9)")  # eight steps of eps/4 cross the whole ball
        out = run_attack(model, attack, BRIGHT, ZERO, norm="linf", eps=0.3, goal="maximise", keep=keep, batch=6)
    assert not out.broken.any()
    assert (out.backwards == 9).all()
    assert (out.forwards == forwards).all(), "the last iterate costs no forward, the best one does"
    torch.testing.assert_close(out.x_adv, torch.full_like(BRIGHT, 0.3), rtol=0, atol=1e-6)


def test_a_goal_or_norm_nobody_knows_is_refused():
    with prepared(Plane(), BRIGHT) as model:
        with pytest.raises(SpecError, match="break"):
            Driver(model, make_attack("pgd"), BRIGHT, ZERO, list("abcdef"), norm="linf", goal="brake")
        with pytest.raises(SpecError, match="linf, l2"):
            Driver(model, make_attack("pgd"), BRIGHT, ZERO, list("abcdef"), norm="l0")


class Hungry(nn.Module):
    """Runs out of memory beyond two images, as a GPU would."""

    def __init__(self):
        super().__init__()
        self.plane = Plane()
        self.refused = 0

    def forward(self, x):
        if len(x) > 2 and torch.is_grad_enabled():
            self.refused += 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self.plane(x)


def test_the_batch_is_halved_when_memory_runs_out_and_no_image_is_lost():
    attack = make_attack("pgd(steps=5)")
    ids = list("abcdef")
    with prepared(Hungry(), BRIGHT) as model:
        out = run_attack(model, attack, BRIGHT, ZERO, norm="linf", eps=0.15, ids=ids, batch=6)
        assert model.search.refused > 0
    with prepared(Plane(), BRIGHT) as model:
        calm = run_attack(model, attack, BRIGHT, ZERO, norm="linf", eps=0.15, ids=ids)
    assert out.broken.all()
    assert torch.equal(out.first_step, calm.first_step)
    torch.testing.assert_close(out.x_adv, calm.x_adv)


def test_images_that_find_no_memory_on_admission_are_not_lost(monkeypatch):
    ids = list("abcdef")
    with prepared(Plane(), BRIGHT) as model:
        driver = Driver(model, make_attack("pgd(steps=5)"), BRIGHT, ZERO, ids, norm="linf", batch=4)
        admit, calls = driver._admit, []

        def hungry(*args):
            calls.append(args)
            if len(calls) == 1:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return admit(*args)

        monkeypatch.setattr(driver, "_admit", hungry)
        finished = [f for group in driver.run(deque(Job(k, 0.15) for k in range(6))) for f in group]
    assert sorted(f.job.row for f in finished) == list(range(6))


def test_nobody_makes_more_steps_than_the_attack_has_however_seldom_one_looks():
    ids = list("abcdef")
    with prepared(Plane(), BRIGHT) as model:
        driver = Driver(model, make_attack("pgd(steps=6)"), BRIGHT, ZERO, ids, norm="linf", batch=4)
        driver.look_every = 4  # as on a GPU
        jobs = deque(Job(k, 0.5 if k % 2 else 1e-5) for k in range(6))  # every other image breaks and makes room
        finished = [f for group in driver.run(jobs) for f in group]
    resisted = [f for f in finished if not f.broken]
    assert len(resisted) == 3
    assert {f.backwards for f in resisted} == {6}


class Dice(nn.Module):
    """Adds noise of its own from the global random state."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        noise = torch.rand(())
        self.seen.append(noise.item())
        return Plane()(x + 0 * noise)


def test_a_model_that_draws_sees_new_draws_at_each_step_and_leaves_the_global_state_alone():
    with prepared(Dice(), BRIGHT) as model:
        model.search.seen.clear()
        torch.manual_seed(9)
        before = torch.get_rng_state()
        run_attack(model, make_attack("pgd(steps=6)"), BRIGHT, ZERO, norm="linf", eps=0.001)
        seen = list(model.search.seen)
        assert torch.equal(torch.get_rng_state(), before)
        assert len(set(seen)) == len(seen), "every step saw the same draw"
        torch.manual_seed(123)
        model.search.seen.clear()
        run_attack(model, make_attack("pgd(steps=6)"), BRIGHT, ZERO, norm="linf", eps=0.001)
        assert model.search.seen == seen, "the draws depend on the user's state"


@dataclass(frozen=True)
class ManyOwners(Attack):
    """Asks about three points of each image at once."""

    norms = ("linf",)
    access = "score"
    kind = "minimal"
    revision = 1

    @property
    def total_steps(self):
        return 1

    def start(self, problem):
        return State(torch.zeros_like(problem.y))

    def step(self, problem, state):
        n = len(problem.x)
        owner = torch.arange(n).repeat_interleave(3)
        shift = torch.tensor([0.3, 0.15, 0.05]).repeat(n)
        x = problem.x[owner] - shift[:, None, None, None]
        problem.offer(x, problem.query(x, owner), owner)
        return State(state.t)


def test_several_candidates_of_one_image_are_counted_and_the_nearest_break_is_kept():
    with prepared(Plane(), BRIGHT) as model:
        out = run_attack(
            model, ManyOwners(), BRIGHT, ZERO, norm="linf", eps=float("inf"), goal="minimise", ids=list("abcdef")
        )
    assert out.broken.all()
    torch.testing.assert_close(out.distance, torch.full((6,), 0.15))
    assert (out.forwards == 4).all(), "three candidates and one confirmation"


class TwoFaced(nn.Module):
    """Is fooled as a copy, and not itself."""

    def __init__(self, fooled=False):
        super().__init__()
        self.fooled = fooled

    def __deepcopy__(self, memo):
        return TwoFaced(True)

    def forward(self, x):
        logits = Plane()(x)
        return logits if self.fooled else torch.stack((logits[:, 0].abs() + 1, -logits[:, 0].abs()), dim=1)


def test_a_break_that_the_model_itself_does_not_confirm_counts_as_resisted():
    with prepared(TwoFaced(), BRIGHT) as model:
        out = run_attack(model, make_attack("pgd(steps=5)"), BRIGHT, ZERO, norm="linf", eps=0.3)
    assert set(out.verdicts) == {"unconfirmed"}
    assert not out.broken.any()
    assert (out.first_step == -1).all()


class Lucky(nn.Module):
    """Surely wrong only at the far side of the ball; before, a lucky draw may fool it once."""

    def forward(self, x):
        f = (x.mean((1, 2, 3)) - 0.4) * 40 + 1.5 * torch.randn(len(x))
        return torch.stack((f, -f), dim=1)


def test_a_lucky_draw_does_not_end_the_search():
    x, y = torch.full((100, 3, 4, 4), 0.5), torch.zeros(100, dtype=torch.int64)
    with prepared(Lucky(), x) as model:
        out = run_attack(model, make_attack("pgd(steps=20)"), x, y, norm="linf", eps=0.2)
    assert out.broken.float().mean() > 0.95, "at the far side 99.6 % of the draws are wrong"


def test_finished_images_come_while_others_still_run():
    with prepared(Plane(), BRIGHT) as model:
        driver = Driver(model, make_attack("pgd(steps=50)"), BRIGHT, ZERO, list("abcdef"), norm="linf", batch=6)
        driver.flush_seconds = 0.0
        groups = list(driver.run(deque([Job(0, 0.2), Job(1, 0.2), *(Job(k, 0.01) for k in range(2, 6))])))
    order = [f.job.row for group in groups for f in group]
    assert sorted(order[:2]) == [0, 1]
    assert len(groups[-1]) == 4, "the others finish together, later"
    assert all(f.broken == (f.job.row < 2) for group in groups for f in group)


class Coin(nn.Module):
    """Right in about two of three answers, whatever the image."""

    def forward(self, x):
        f = torch.where(torch.rand(len(x)) < 0.68, 1.0, -1.0) + 0 * x.sum((1, 2, 3))
        return torch.stack((f, -f), dim=1)


def test_a_model_that_draws_is_judged_over_many_draws():
    x, y = torch.full((60, 3, 4, 4), 0.5), torch.zeros(60, dtype=torch.int64)
    with prepared(Coin(), x) as model:
        assert model.draws == 20
        right = model.confirm(x).argmax(1) == 0
        out = run_attack(model, make_attack("square(queries=5)"), x, y, norm="linf", eps=0.1)
    assert right.float().mean() > 0.85, "a single draw would say 0.68"
    assert out.broken.float().mean() < 0.3, "single draws would break nearly all within five queries"
    assert (out.forwards > 5).any(), "every draw of the judge is counted"
    with prepared(Plane(), BRIGHT) as model:
        assert model.draws == 1


@dataclass(frozen=True)
class Picky(ManyOwners):
    """Finds a start for every other image only, and walks towards the images in steps of 0.01."""

    @property
    def total_steps(self):
        return 30

    def start(self, problem):
        problem.give_up(problem.y != 0)
        return State(torch.zeros_like(problem.y))

    def step(self, problem, state):
        x = problem.x - (0.4 - 0.01 * state.t.float())[:, None, None, None]
        problem.offer(x, problem.query(x))
        return State(state.t)


def test_images_whose_search_cannot_begin_leave_alone():
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    x = torch.where(y[:, None, None, None] == 0, 0.6, 0.4).expand(6, 3, 4, 4).contiguous()
    with prepared(Plane(), x) as model:
        out = run_attack(model, Picky(), x, y, norm="linf", eps=float("inf"), goal="minimise")
    assert out.verdicts == ("broken", "no-start") * 3
    assert out.forwards.tolist() == [31, 0] * 3


def test_the_search_for_the_nearest_break_ends_where_a_nearer_one_tells_nothing():
    with prepared(Plane(), BRIGHT) as model:
        driver = Driver(model, Picky(), BRIGHT, ZERO, list("abcdef"), norm="linf", goal="minimise", batch=4)
        jobs = deque(Job(k, float("inf"), enough=[0.0, 0.25][k % 2]) for k in range(6))
        found = {f.job.row: f for group in driver.run(jobs) for f in group}
    for row in range(6):
        near = 0.25 if row % 2 else 0.11
        assert found[row].broken
        assert found[row].distance == pytest.approx(near, abs=1e-5)
        assert found[row].forwards == (16 if row % 2 else 30) + 1


def test_a_break_is_asked_about_in_eight_bits_too():
    x = torch.full((2, 3, 4, 4), 130 / 255)
    x[1] = 128 / 255
    with prepared(Plane(), x) as model:
        driver = Driver(model, make_attack("fgsm"), x, ZERO[:2], ["a", "b"], norm="linf", rounding=True)
        # 130 → 126.6 is a break and rounds to 127, still one; 128 → 127.4 rounds to 127, which is outside, so that
        # only 128 itself is left
        found = {f.job.row: f for group in driver.run(deque([Job(0, 3.4 / 255), Job(1, 0.6 / 255)])) for f in group}
    assert found[0].broken
    assert found[1].broken
    assert found[0].rounded == pytest.approx(3 / 255, abs=1e-6)
    assert found[1].rounded == float("inf")
    assert found[0].forwards == found[1].forwards == 4, "start, step, the judge, and once more in eight bits"


@pytest.mark.parametrize(("norm", "eps"), [("linf", 12.75 / 255), ("linf", 4 / 255), ("linf", 1.0), ("l2", 0.5)])
def test_eight_bits_are_looked_for_inside_the_budget(norm, eps):
    streams = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, 256, (20, 3, 4, 4), generator=streams) / 255
    step = torch.randn(x0.shape, generator=streams)
    x = geometry.project(x0 + (step.sign() if norm == "linf" else step) * eps, x0, torch.full((20,), eps), norm)
    rounded = _eight_bits(x, x0, torch.full((20,), eps), norm)
    torch.testing.assert_close(rounded * 255, (rounded * 255).round(), rtol=0, atol=1e-4)
    assert (geometry.distance(rounded, x0, norm) <= geometry.allowance(torch.tensor(eps))).all()
    assert ((rounded - x).abs() <= 1 / 255 + 1e-6).all()
    if eps == 4 / 255:  # whole grey levels lose nothing
        torch.testing.assert_close(rounded, x, rtol=0, atol=1e-6)


def test_eight_bits_are_the_nearest_ones_not_the_lower_ones():
    x = torch.full((1, 3, 4, 4), 130 / 255)
    with prepared(Plane(), x) as model:
        driver = Driver(
            model,
            make_attack("deepfool(overshoot=0.3)"),
            x,
            ZERO[:1],
            ["a"],
            norm="linf",
            goal="minimise",
            rounding=True,
        )
        ((found,),) = list(driver.run(deque([Job(0, float("inf"))])))
    assert found.distance == pytest.approx(3.25 / 255, rel=1e-3)  # 126.75
    assert found.rounded == pytest.approx(3 / 255, abs=1e-6)
