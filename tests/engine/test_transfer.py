"""Transfer: surrogates are searched, the target is asked once, and nothing else of either is touched."""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import pandas as pd
import pytest
import torch
from torch import nn

import aresbench as ab
from aresbench.attacks import geometry
from aresbench.attacks.base import Attack, State
from aresbench.attacks.load import make_attack
from aresbench.core.errors import ModelError, SpecError
from aresbench.data.base import load_images
from aresbench.engine import transfer as transfer_module
from aresbench.engine.driver import Job, run_attack
from aresbench.engine.prepare import prepared
from aresbench.engine.transfer import Transfer


class Counting(nn.Module):
    """Counts what it is asked."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.seen = net, [0]

    def __deepcopy__(self, memo):
        other = Counting(copy.deepcopy(self.net, memo))
        other.seen = self.seen
        return other

    def forward(self, x):
        self.seen[0] += len(x)
        return self.net(x)


class Plane(nn.Module):
    """Two logits ±(w·(x - 1/2)) · scale."""

    def __init__(self, weight: torch.Tensor, scale: float = 40.0) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.scale = scale

    def forward(self, x):
        f = ((x - 0.5) * self.weight).sum((1, 2, 3)) * self.scale
        return torch.stack((f, -f), dim=1)


def plane(seed):
    weight = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return weight / weight.abs().sum()


@pytest.fixture(scope="module")
def hyperplane():
    """Images that lie a known L∞ distance from the target's plane, far inside the box."""
    weight = plane(0)
    far = torch.tensor([0.005, 0.02, 0.05, 0.11, 0.3])
    return Plane(weight), 0.5 + far[:, None, None, None] * weight.sign(), torch.zeros(5, dtype=torch.int64)


def test_with_a_perfect_surrogate_the_breaking_budgets_are_those_of_the_white_box(hyperplane):
    model, x, y = hyperplane
    rungs = "linf:[0.01, 0.03, 0.1, 0.2]"
    out = ab.attack(model, x, y, "mim", rungs, surrogate=Plane(plane(0), scale=3.0))
    assert out.breaking_budget == (Fraction("0.01"), Fraction("0.03"), Fraction("0.1"), Fraction("0.2"), None)
    assert out.breaking_budget == ab.attack(model, x, y, "mim", rungs).breaking_budget
    assert torch.equal(out.x_adv[4], x[4])
    assert out.forwards.tolist() == [1, 2, 3, 4, 4], "one question to the target at each rung tried"
    assert out.first_query[:4].tolist() == [1] * 4
    assert out.first_step[:4].tolist() == [10] * 4
    torch.testing.assert_close(out.distance[:4], torch.tensor([0.01, 0.03, 0.1, 0.2]))


def test_a_surrogate_that_sees_something_else_finds_nothing(hyperplane):
    model, x, y = hyperplane
    side = plane(1)
    side -= (side * plane(0).sign()).sum() / plane(0).numel() * plane(0).sign()  # its step changes the target little
    out = ab.attack(model, x[2:], y[2:], "mim", "linf:0.02", surrogate=Plane(side))
    assert not out.broken.any()
    assert out.forwards.tolist() == [1, 1, 1]


def test_several_surrogates_are_averaged_in_logits(hyperplane):
    model, x, y = hyperplane
    one, two = Plane(plane(1), 30.0), Plane(plane(2), 5.0)
    both = Plane((30 * plane(1) + 5 * plane(2)) / 2, 1.0)
    found = ab.attack(model, x, y, "mim", "linf:0.2", surrogate=[one, two]).x_adv
    torch.testing.assert_close(found, ab.attack(model, x, y, "mim", "linf:0.2", surrogate=both).x_adv)
    probabilities = ab.attack(model, x, y, "mim", "linf:0.2", surrogate=one).x_adv
    assert (found - probabilities).abs().max() > 0.1


def test_the_target_is_asked_once_and_the_surrogate_as_often_as_the_steps(plain, robust, digits):
    x, y, ids = (part[:10] for part in digits)
    target, surrogate = Counting(plain), Counting(robust)
    ab.attack(target, x, y, "mim(steps=1)", "linf:0.1", ids=ids, surrogate=surrogate)
    fixed, one = target.seen[0], surrogate.seen[0]
    out = ab.attack(target, x, y, "mim(steps=4)", "linf:0.1", ids=ids, surrogate=surrogate)
    right = int(out.correct.sum())
    assert target.seen[0] == 2 * fixed, "more steps ask the target no more"
    assert surrogate.seen[0] - one == one + 3 * right
    assert out.forwards.tolist() == out.correct.long().tolist()
    assert (out.backwards == 0).all()


def test_what_is_judged_is_the_last_iterate_of_all_steps(plain, robust, digits):
    x, y, ids = digits
    out = ab.attack(plain, x, y, "mim", "linf:0.12", ids=ids, surrogate=robust)
    with prepared(robust, x) as ready:
        made = run_attack(
            ready, make_attack("mim"), x, y, norm="linf", eps=0.12, ids=ids, goal="maximise", label="0.12"
        ).x_adv
    with torch.no_grad():
        wrong = (plain(made).argmax(1) != y) & out.correct
    assert torch.equal(out.broken, wrong)
    assert 0.1 < out.broken.float().mean() < 0.9
    torch.testing.assert_close(out.x_adv[wrong], made[wrong], rtol=0, atol=1e-6)
    assert torch.equal(out.x_adv[~wrong], x[~wrong])
    assert (geometry.distance(out.x_adv, x, "linf") <= 0.12 * (1 + 1e-6) + 1e-7).all()
    assert out.rejected.sum() == 0


def test_clean_errors_are_those_of_the_target_and_never_attacked(plain, robust, digits):
    x, y, ids = (part[:20] for part in digits)
    labels = torch.where(torch.arange(20) % 3 == 0, (y + 1) % 10, y)
    out = ab.attack(plain, x, labels, "mim", "linf:0.3", ids=ids, surrogate=robust)
    clean = plain(x).argmax(1) == labels
    assert torch.equal(out.correct, clean)
    assert not out.broken[~clean].any()
    assert (out.forwards[~clean] == 0).all()
    assert all(out.breaking_budget[k] == 0 for k in (~clean).nonzero().flatten().tolist())


def test_targets_are_aimed_at_on_the_surrogate_and_asked_of_the_target(plain, robust, digits):
    x, y, ids = (part[:40] for part in digits)
    target = (y + 1) % 10
    out = ab.attack(plain, x, y, "mim(loss=logit)", "linf:0.5", ids=ids, surrogate=robust, target=target)
    assert out.broken.any()
    with torch.no_grad():
        assert torch.equal(plain(out.x_adv[out.broken]).argmax(1), target[out.broken])
    free = ab.attack(plain, x, y, "mim(loss=logit)", "linf:0.5", ids=ids, surrogate=robust)
    assert free.broken.sum() > out.broken.sum()


def test_the_worst_case_of_several_attacks_and_any_bounded_search_count(plain, robust, digits):
    x, y, ids = (part[:40] for part in digits)
    both = ab.attack(plain, x, y, ["fgsm", "square(queries=60)"], "linf:0.2", ids=ids, surrogate=robust)
    parts = [ab.attack(plain, x, y, a, "linf:0.2", ids=ids, surrogate=robust) for a in ("fgsm", "square(queries=60)")]
    assert torch.equal(both.broken, parts[0].broken | parts[1].broken)


def test_what_stands_for_a_search_without_gradients_is_its_best_offer(plain, robust, digits):
    x, y, ids = (part[:40] for part in digits)
    out = ab.attack(plain, x, y, "square(queries=60)", "linf:0.2", ids=ids, surrogate=robust)
    with prepared(robust, x) as ready:
        best, last = (
            run_attack(
                ready, make_attack("square(queries=60)"), x, y, norm="linf", eps=0.2, ids=ids, label="0.2",
                goal="maximise", keep=keep, component="square(queries=60)",
            ).x_adv
            for keep in ("best", "last")
        )  # fmt: skip
    assert out.broken.any()
    torch.testing.assert_close(out.x_adv[out.broken], best[out.broken])
    assert (best - last)[out.broken].abs().flatten(1).amax(1).gt(0.01).any()


def test_the_result_does_not_depend_on_batch_or_order(plain, robust, digits):
    x, y, ids = (part[:20] for part in digits)
    spec = "mim(steps=5, parts=[admix(mixes=2, copies=2), di, vmi(samples=2), ti(size=3)])"
    whole = ab.attack(plain, x, y, spec, "linf:0.15", ids=ids, surrogate=[robust, plain])
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    other = ab.attack(
        plain, x[order], y[order], spec, "linf:0.15", ids=[ids[k] for k in order], surrogate=[robust, plain], batch=7
    )
    assert torch.equal(other.broken, whole.broken[order])
    # Float noise may turn the sign of a gradient entry that is nearly zero; nothing else differs.
    gap = (other.x_adv - whole.x_adv[order]).abs() > 1e-4
    assert gap.float().mean() < 0.01


def test_models_come_back_as_they_were(plain, robust, digits):
    x, y, ids = (part[:4] for part in digits)
    models = [copy.deepcopy(plain).train(), copy.deepcopy(robust)]
    models[1].module.features[0].train()
    modes = [[m.training for m in model.modules()] for model in models]
    before = [{k: v.clone() for k, v in model.state_dict().items()} for model in models]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    ab.attack(plain, x, y, "mim", "linf:0.1", ids=ids, surrogate=models)
    assert torch.equal(torch.get_rng_state(), state)
    assert [[m.training for m in model.modules()] for model in models] == modes
    for model, old in zip(models, before, strict=True):
        assert all(torch.equal(v, old[k]) for k, v in model.state_dict().items())
        assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("attack", "surrogate", "error", "says"),
    [
        ("fmn", "robust", SpecError, "uses the whole budget"),
        ("mim", [], SpecError, "list of surrogates is empty"),
        ("mim", "fewer", ModelError, "tells 2 classes apart, the model 10"),
    ],
)
def test_mistakes_are_named_with_the_remedy(attack, surrogate, error, says, plain, robust, digits):
    x, y, ids = (part[:4] for part in digits)
    fewer = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    model = {"robust": robust, "fewer": fewer}.get(surrogate) if isinstance(surrogate, str) else surrogate
    with pytest.raises(error, match=says):
        ab.attack(plain, x, y, attack, "linf:0.1", ids=ids, surrogate=model)


@pytest.mark.parametrize("name", ["dim", "mim(parts=[ti(size=5)])", "mim(parts=[ti(size=5), di, si])"])
def test_parts_make_images_that_fool_another_model_more_often(name, plain, robust, digits):
    x, y, ids = digits
    alone, built = (ab.attack(robust, x, y, a, "linf:0.25", ids=ids, surrogate=plain) for a in ("mim", name))
    assert built.broken.float().mean() > alone.broken.float().mean() + 0.03


@dataclass(frozen=True)
class Cheat(Attack):
    """Goes three times as far as it may."""

    norms: ClassVar = ("linf",)
    access: ClassVar = "none"
    kind: ClassVar = "bounded"
    total_steps = 1

    def start(self, problem):
        return State(torch.zeros_like(problem.y))

    def step(self, problem, state):
        problem.offer(problem.x - 3 * problem.eps[0] * plane(0).sign())
        return state


def test_what_leaves_the_budget_is_rejected_and_reported(hyperplane):
    model, x, y = hyperplane
    out = ab.attack(model, x[1:3], y[1:3], Cheat(), "linf:0.01", surrogate=model)
    assert not out.broken.any()
    assert out.rejected.tolist() == [1, 0]  # the second is not broken even there


def test_breaks_that_survive_eight_bits_are_told_from_others(hyperplane):
    model, x, y = hyperplane
    with prepared(model, x) as ready:
        # 0.02 from the plane: a step of 0.0201 crosses it, and rounding may bring it back.
        driver = Transfer(ready, ready, make_attack("mim"), x, y, list("abcde"), norm="linf", rounding=True)
        found = {f.job.row: f for group in driver.run(deque(Job(k, 0.0201) for k in range(5))) for f in group}
    for row in (0, 1):
        whole = (found[row].x_adv * 255).round() / 255
        fooled = bool((model(whole[None]).argmax(1) != 0).item())
        assert found[row].verdict == "broken"
        assert found[row].forwards == 2
        assert (found[row].rounded < 1) == fooled
        if fooled:
            assert found[row].rounded == pytest.approx((whole - x[row]).abs().max().item(), rel=1e-5)
    assert [found[row].forwards for row in (2, 3, 4)] == [1, 1, 1]


TRANSFERS = ("transfer(linf, 16/255, mim, from=samples:digits-robust)", "clean")


def test_a_surrogate_is_attacked_once_for_all_targets(tmp_path, monkeypatch):
    """The rows of each target are those of a run of its own, and what was made for one is tried on the next."""
    searched = []
    original = transfer_module.Transfer._searched

    def watching(self, jobs):
        for group in original(self, jobs):
            searched.extend(one.job.row for one in group)
            yield group

    monkeypatch.setattr(transfer_module.Transfer, "_searched", watching)
    targets = ["samples:digits-plain", "samples:digits-robust"]
    tasks = [ab.Task("digits", text) for text in TRANSFERS]
    together = ab.evaluate(targets, tasks, n=40, store=tmp_path / "together", doctor=False)
    right = together["clean"].images().groupby("id")["correct"].any()
    assert len(searched) == right.sum()  # each image that some target gets right, once
    searched.clear()
    parts = [ab.evaluate(target, tasks, n=40, store=tmp_path / "apart", doctor=False) for target in targets]
    assert len(searched) > right.sum()
    columns = ["model", "task", "id", "breaking_budget", "breaking_distance", "adv_prediction"]
    apart = pd.concat([part.images() for part in parts], ignore_index=True)
    pd.testing.assert_frame_equal(together.images()[columns], apart[columns])


def test_on_the_diagonal_transfer_is_the_attack_itself(tmp_path):
    """Source = target: the last iterate of the same attack run white-box at the same budget with the same seed."""
    model = ab.load_model("samples:digits-robust").eval()
    data = ab.load_dataset("digits")[:30]
    x, _, _ = load_images(data, range(30), model.preprocessing)
    y = torch.tensor(data.labels)
    out = ab.attack(model, x, y, "mim", "linf:16/255", surrogate=model, seed=0, ids=list(data.ids))
    tasks = [ab.Task("digits", TRANSFERS[0])]
    images = ab.evaluate(model, tasks, n=30, store=tmp_path, doctor=False).images()
    right = torch.tensor(images["correct"].to_numpy())
    broken = torch.tensor((images["breaking_budget"].notna() & images["correct"]).to_numpy())
    assert broken.tolist() == (out.broken & right).tolist()
    with torch.no_grad():
        fooled = model(out.x_adv).argmax(1) != y
    assert (fooled == broken)[right].all() and broken.any()


@pytest.mark.parametrize("spec", ["pgd(steps=5)", "mim(steps=5, parts=[di])"])
def test_the_diagonal_is_the_last_iterate_of_the_white_box_attack_at_8_255(spec, plain, tmp_path):
    """Source = target, against the attack driven on the model itself without any surrogate: same draws, same seed."""
    data = ab.load_dataset("digits")[:60]
    x, _, _ = load_images(data, range(60), plain.preprocessing)
    y = torch.tensor(data.labels)
    tasks = [ab.Task("digits", f"transfer(linf, 8/255, {spec}, from={plain.name})")]
    results = ab.evaluate(plain.name, tasks, n=60, store=tmp_path, seed=3, doctor=False)
    images, (attack,) = results.images(), results.attempts()["attack"].unique()
    with prepared(plain, x) as ready:
        own = {"norm": "linf", "eps": 8 / 255, "ids": list(data.ids), "label": "8/255", "component": attack, "seed": 3}
        last = run_attack(ready, make_attack(spec), x, y, goal="maximise", keep="last", **own).x_adv
        judged = run_attack(ready, make_attack(spec), x, y, **own)
    with torch.no_grad():
        prediction, right = plain(last).argmax(1), plain(x).argmax(1) == y
    broken = right & (prediction != y)
    assert broken.sum() >= 3 and (right & ~broken).sum() >= 3
    assert (images["breaking_budget"] == "8/255").tolist() == broken.tolist()
    assert images["adv_prediction"][broken.numpy()].tolist() == prediction[broken].tolist()
    far = torch.tensor(images["breaking_distance"][broken.numpy()].to_numpy(), dtype=torch.float32)
    torch.testing.assert_close(far, geometry.distance(last, x, "linf")[broken])
    assert not (broken & ~judged.broken).any(), "judged white-box, any iterate counts: it breaks these and more"


def test_from_each_is_the_matrix(tmp_path):
    models = ["samples:digits-plain", "samples:digits-robust", "samples:efficientnet-lite0"]
    tasks = [
        ab.Task("digits", "transfer(linf, 16/255, fgsm, from=each)", name="FGSM"),
        ab.Task("samples", "clean", n=2),
    ]
    results = ab.evaluate(models, tasks, n=20, store=tmp_path, doctor=False)
    pairs = {(r.model, r.name) for r in results if r.dataset == "digits"}
    names = ["FGSM from samples:digits-plain", "FGSM from samples:digits-robust"]
    assert pairs == {(target, name) for target in models[:2] for name in names}
    single = ab.Task("digits", "transfer(linf, 16/255, fgsm, from=samples:digits-robust)")
    alone = ab.evaluate(models[0], [single], n=20, store=tmp_path, doctor=False)
    assert alone.readings[0].cell.key == next(r.cell.key for r in results if (r.model, r.name) == (models[0], names[1]))
    assert ("samples:efficientnet-lite0", "clean") in {(r.model, r.name) for r in results}
