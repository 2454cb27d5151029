"""APGD-T: which classes are tried, in which order, from where, and at what cost."""

from __future__ import annotations

import pytest
import torch

from aresbench.attacks import losses
from aresbench.attacks.apgd_t import APGDT
from aresbench.core.errors import SpecError
from aresbench.engine.problem import EngineProblem
from aresbench.ops.random import Streams


def problem_of(model, x, y, classes, **options):
    n = len(x)
    return EngineProblem(
        model, x, y, torch.full((n,), 0.1), Streams(0, "test", [str(k) for k in range(n)]),
        norm="linf", goal="maximise", num_classes=classes, rows=torch.arange(n), **options,
    )  # fmt: skip


def test_the_targeted_ratio_is_its_formula_and_does_not_feel_the_scale():
    z = torch.tensor([[3.0, 1.0, 0.0, -2.0, 2.0]])
    y, target = torch.tensor([0]), torch.tensor([3])
    torch.testing.assert_close(losses.targeted_dlr(z, y, target), torch.tensor([-5.0 / (3.0 - 0.5)]))
    torch.testing.assert_close(losses.targeted_dlr(7 * z, y, target), losses.targeted_dlr(z, y, target))
    torch.testing.assert_close(losses.targeted_dlr(z[:, [0, 3]], y, torch.tensor([1])), torch.tensor([-5.0]))


@pytest.mark.parametrize(("classes", "runs"), [(2, 1), (3, 2), (5, 4), (12, 9)])
def test_every_wrong_class_up_to_nine_in_the_order_of_the_clean_logits(linear, run, classes, runs):
    model, x, y = linear(classes=classes, n=6)
    y = (y + torch.tensor([0, 0, 0, 0, 0, 1])) % classes  # the label need not be the first
    state = APGDT().start(problem_of(model, x, y, classes))
    with torch.no_grad():
        order = model(x).argsort(dim=1, descending=True)
    wanted = [[c for c in row if c != label][:9] for row, label in zip(order.tolist(), y.tolist(), strict=True)]
    assert state.targets.tolist() == wanted
    # an image that resists pays for just these
    out = run(model, APGDT(steps=4), x[:5], y[:5], "linf", 0.0)
    assert out.forwards.tolist() == [1 + runs * 5] * 5
    assert out.backwards.tolist() == [runs * 5 - 1] * 5


def test_each_run_begins_anew_at_another_point_of_the_surface(linear):
    model, x, y = linear(classes=4, n=5, low=0.3, high=0.7)
    attack, starts = APGDT(steps=3), []
    problem = problem_of(model, x, y, 4)
    with torch.no_grad():
        state = attack.start(problem)
        for _ in range(attack.steps_for(problem)):
            if int(state.t[0]) % 4 == 0:
                starts.append(state.x)
                torch.testing.assert_close(state.length, torch.full((5,), 0.2))
                assert (state.best_loss == -torch.inf).all()
                assert (state.next_check == 1).all()
            state = attack.step(problem, state)
            state.t = state.t + 1
    assert len(starts) == 3
    for k, start in enumerate(starts):
        torch.testing.assert_close((start - x).abs().flatten(1).amax(1), torch.full((5,), 0.1))
        assert all((start - other).abs().amax() > 0.05 for other in starts[:k])


def test_a_given_target_is_the_only_one(linear, run):
    model, x, y = linear(classes=5, n=12)
    target = (y + 2) % 5
    attack = APGDT(steps=20)
    assert attack.start(problem_of(model, x, y, 5, target=target)).targets.tolist() == target.unsqueeze(1).tolist()
    out = run(model, attack, x, y, "linf", 0.35, target=target)
    with torch.no_grad():
        assert (model(out.x_adv[out.broken]).argmax(1) == target[out.broken]).all()
    assert out.broken.float().mean() >= 0.9
    assert out.forwards.max() <= 22  # 21 points and the confirmation


def test_images_at_different_runs_share_a_batch_without_noticing(linear, run):
    model, x, y = linear(classes=4, n=12)
    attack = APGDT(steps=5)
    together = run(model, attack, x, y, "linf", 0.02, batch=12)
    in_turn = run(model, attack, x, y, "linf", 0.02, batch=5)
    assert 0 < together.broken.sum() < 12
    assert torch.equal(together.broken, in_turn.broken)
    assert torch.equal(together.forwards, in_turn.forwards)
    torch.testing.assert_close(together.x_adv, in_turn.x_adv, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"targets": 0}, {"targets": 2.5}, {"rho": 2}])
def test_senseless_settings_are_refused(settings):
    with pytest.raises(SpecError, match="must be"):
        APGDT(**settings)
