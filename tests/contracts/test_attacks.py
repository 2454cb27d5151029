"""What every registered attack must keep, driven by the engine on real digits and on planted models."""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import aresbench as ab
from aresbench.attacks.base import Ensemble
from aresbench.attacks.load import describe, make, make_attack, members
from aresbench.core.errors import SpecError
from aresbench.core.registry import card, table
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine.driver import Driver, Job, run_attack
from aresbench.engine.prepare import prepared
from aresbench.engine.problem import NOISE, EngineProblem
from aresbench.models.load import load_model

SIZES = {"linf": 0.1, "l2": 2.0, "l1": 20.0, "l0": 30.0}
N = 40
GIVEN = {"cda": f"cda(generator={Path(__file__).with_name('generator.py')}:Negative)"}


def made(name):
    """The attack or ensemble of that name, with the settings that have no defaults."""
    return make(GIVEN.get(name, name))


def short(name):
    """The attack with few steps: contracts hold after any number of them."""
    attack = made(name)
    few = {"steps": 12, "queries": 12, "targets": 3, "draws": 2}
    if attack.access == "label":
        few["queries"] = 40  # a dozen are spent on the way to the boundary
    for f in fields(attack):
        if f.name in few:
            attack = replace(attack, **{f.name: min(getattr(attack, f.name), few[f.name])})
        if f.name == "attack":  # one inside another
            attack = replace(attack, attack=describe(short(attack.attack)))
        if f.name == "parts":  # fewer copies, and a kernel for pictures of 32 pixels, not of 299
            small = {"admix": "admix(mixes=2, copies=2)", "vmi": "vmi(samples=3)", "ti": "ti(size=5)"}
            attack = replace(attack, parts=tuple(small.get(part, part) for part in attack.parts))
    return attack


# Those that need a package of their own are driven in tests/oracles/test_foreign.py.
FOREIGN = [name for name in table("attacks") if "package" in card("attacks", name).facts]
SINGLE = [name for name in table("attacks") if name not in FOREIGN and not isinstance(made(name), Ensemble)]
CASES = [(name, norm) for name in SINGLE for norm in made(name).norms]
every_attack = pytest.mark.parametrize(("name", "norm"), CASES, ids=[f"{a}-{n}" for a, n in CASES])


@pytest.fixture(scope="module")
def plain():
    return load_model("samples:digits-plain").eval()


@pytest.fixture(scope="module")
def digits(plain):
    data = load_dataset("digits")[:N]
    x, _, _ = load_images(data, range(N), plain.preprocessing)
    return x, torch.tensor(data.labels), list(data.ids)


def drive(model, attack, x, y, ids, norm, eps=None, **options):
    size = float("inf") if attack.kind == "minimal" else SIZES[norm]
    goal = "minimise" if attack.kind == "minimal" else "break"
    with prepared(model, x) as ready:
        return run_attack(
            ready, attack, x, y, norm=norm, eps=size if eps is None else eps, ids=ids, goal=goal, **options
        )


def distances(a, b, norm):
    """Written out again, so that the judge is not its own witness."""
    d = (a.double() - b.double()).flatten(1).abs()
    return {"linf": d.amax(1), "l2": d.pow(2).sum(1).sqrt(), "l1": d.sum(1), "l0": (d > 0).double().sum(1)}[norm]


@every_attack
def test_breaks_are_real_in_the_ball_and_in_the_box(name, norm, plain, digits):
    x, y, ids = digits
    attack = short(name)
    out = drive(plain, attack, x, y, ids, norm)
    assert out.rejected.sum() == 0
    assert out.x_adv.min() >= 0
    assert out.x_adv.max() <= 1
    far = distances(out.x_adv, x, norm)
    if attack.kind == "bounded":
        assert (far <= SIZES[norm] * (1 + 1e-6) + 1e-7).all()
    torch.testing.assert_close(out.distance[out.broken].double(), far[out.broken], rtol=1e-5, atol=1e-6)
    with torch.no_grad():  # an independent referee, one image at a time
        alone = torch.cat([plain(x[None]) for x in out.x_adv]).argmax(1)
    assert (alone[out.broken] != y[out.broken]).all()
    assert torch.equal(alone[out.broken], out.prediction[out.broken])
    assert torch.equal(out.x_adv[~out.broken], x[~out.broken])
    if attack.access == "gradient":  # a dozen queries are too few for the others
        assert out.broken.float().mean() > 0.5, "the attack does nothing"


@every_attack
def test_the_model_and_the_random_state_are_left_alone(name, norm, plain, digits):
    x, y, ids = digits
    model = copy.deepcopy(plain).train()
    model.module.head.weight.grad = torch.ones_like(model.module.head.weight)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [(p.requires_grad, p.grad) for p in model.parameters()]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    drive(model, short(name), x[:4], y[:4], ids[:4], norm)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())
    for p, (needs, grad) in zip(model.parameters(), flags, strict=True):
        assert p.requires_grad == needs
        assert p.grad is grad
    assert torch.is_grad_enabled()


@every_attack
def test_the_result_does_not_depend_on_batch_or_order(name, norm, plain, digits):
    """Rule 9: at most 0.5 % of the verdicts may differ, each by a margin under 1e-4; here that means none of 40."""
    x, y, ids = digits
    attack = short(name)
    whole = drive(plain, attack, x, y, ids, norm, batch=N)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    runs = {
        "batch of 7": (drive(plain, attack, x, y, ids, norm, batch=7), torch.arange(N)),
        "other order": (drive(plain, attack, x[order], y[order], [ids[k] for k in order], norm), order),
    }
    for what, (other, places) in runs.items():
        differ = (other.broken != whole.broken[places]).nonzero().flatten().tolist()
        assert not differ, f"{what}: verdicts differ for {[ids[places[k]] for k in differ]}"
        # Float noise may send a trajectory another way after many steps, not the bulk of them.
        same = other.broken & (other.first_step == whole.first_step[places])
        assert same.sum() >= 0.95 * whole.broken.sum(), what


@every_attack
def test_a_batch_of_one_gives_the_same_image(name, norm, plain, digits):
    x, y, ids = digits
    attack = short(name)
    both = drive(plain, attack, x[:2], y[:2], ids[:2], norm)
    alone = drive(plain, attack, x[1:2], y[1:2], ids[1:2], norm)
    assert alone.broken[0] == both.broken[1]
    torch.testing.assert_close(alone.x_adv[0], both.x_adv[1], rtol=0, atol=1e-3)


@every_attack
def test_another_seed_draws_other_numbers_and_the_same_seed_the_same(name, norm, plain, digits):
    x, y, ids = (part[:8] for part in digits)
    attack = short(name)
    first, again = (drive(plain, attack, x, y, ids, norm, seed=3) for _ in range(2))
    assert torch.equal(first.x_adv, again.x_adv)
    assert torch.equal(first.forwards, again.forwards)


@every_attack
def test_nothing_happens_at_eps_zero(name, norm, plain, digits):
    x, y, ids = (part[:8] for part in digits)
    attack = short(name)
    if attack.kind == "minimal":
        out = ab.attack(plain, x, y, attack, f"{norm}:0", ids=ids)
    else:
        out = drive(plain, attack, x, y, ids, norm, eps=0.0)
    right = plain(x).argmax(1) == y
    assert not out.broken[right].any()
    assert torch.equal(out.x_adv[right], x[right])


@every_attack
def test_targets_are_respected(name, norm, plain, digits):
    x, y, ids = digits
    target = (y + 1) % 10
    attack = short(name)
    out = drive(plain, attack, x, y, ids, norm, eps=4 * SIZES[norm], target=target)
    assert (out.prediction[out.broken] == target[out.broken]).all()
    if attack.access == "gradient" and attack.total_steps > 1:  # one step, or a dozen queries, are too few
        assert out.broken.float().mean() > 0.5


@every_attack
def test_attacks_are_silent(name, norm, plain, digits, capfd):
    x, y, ids = (part[:4] for part in digits)
    drive(plain, short(name), x, y, ids, norm)
    assert capfd.readouterr() == ("", "")


@every_attack
def test_clean_errors_are_neither_attacked_nor_repaired(name, norm, plain, digits):
    x, y, ids = digits
    wrong = torch.arange(N) % 3 == 0
    labels = torch.where(wrong, (y + 1) % 10, y)
    out = ab.attack(plain, x, labels, short(name), f"{norm}:{SIZES[norm]}", ids=ids)
    clean = plain(x).argmax(1) == labels
    assert (~clean)[wrong].all()
    assert torch.equal(out.correct, clean)
    assert not out.broken[~clean].any()
    assert (out.forwards[~clean] == 0).all()
    assert (out.backwards[~clean] == 0).all()
    assert torch.equal(out.x_adv[~clean], x[~clean])
    assert all(out.breaking_budget[k] == 0 for k in (~clean).nonzero().flatten().tolist())


class Constant(nn.Module):
    """Always class 0, without any path to the images."""

    def forward(self, x):
        return torch.tensor([1.0, 0.0, 0.0]).expand(len(x), 3) + 0 * x.sum()


class NaNGradient(nn.Module):
    """Finite answers whose gradient is NaN: the square root at zero."""

    def forward(self, x):
        z = (x - x.detach()).pow(2).sum((1, 2, 3)).sqrt()
        return torch.stack((1 + z, z * 0, z * 0), dim=1)


class NaNAnswers(nn.Module):
    def forward(self, x):
        return torch.full((len(x), 3), torch.nan) + 0 * x.sum()


@every_attack
@pytest.mark.parametrize("kind", [Constant, NaNGradient, NaNAnswers])
def test_blind_models_are_never_broken_and_nan_never_spreads(name, norm, kind):
    attack = short(name)
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    out = drive(kind(), attack, x, torch.zeros(3, dtype=torch.int64), list("abc"), norm)
    assert not out.broken.any()
    assert torch.isfinite(out.x_adv).all()
    if attack.access == "gradient":
        counted = out.zero_gradients if kind is Constant else out.nan_gradients
        assert (counted > 0).all()


class OnlyTheClass(nn.Module):
    """A model's answers with everything taken out of them but the class; no class where none leads beyond noise."""

    def __init__(self, model, scale):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x):
        logits = self.model(x)
        if self.scale is None:
            return logits
        first, second = logits.topk(2, dim=1).values.unbind(1)
        leads = first - second > NOISE * logits.abs().amax(1)
        return self.scale * leads[:, None] * nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


@pytest.mark.parametrize(("name", "norm"), [c for c in CASES if made(c[0]).access == "label"])
def test_label_attacks_see_nothing_but_the_class(name, norm, plain, digits):
    x, y, ids = (part[:20] for part in digits)
    attack = short(name)
    full, once, scaled = (drive(OnlyTheClass(plain, s), attack, x, y, ids, norm) for s in (None, 1.0, 7.0))
    assert full.broken.float().mean() > 0.5
    for bare in (once, scaled):
        assert torch.equal(full.x_adv, bare.x_adv)
        assert torch.equal(full.distance, bare.distance)
        assert torch.equal(full.forwards, bare.forwards)
        assert torch.equal(full.first_query, bare.first_query)


@pytest.mark.parametrize(("name", "norm"), [c for c in CASES if made(c[0]).access in ("score", "label")])
def test_black_boxes_ask_for_no_gradient_and_for_no_more_than_their_queries(name, norm, plain, digits, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a gradient was asked for")

    monkeypatch.setattr(EngineProblem, "gradient", refuse)
    x, y, ids = (part[:8] for part in digits)
    attack = short(name)
    out = drive(plain, attack, x, y, ids, norm)
    assert (out.backwards == 0).all()
    assert (out.forwards - out.broken.long() <= attack.queries).all()  # the judge asks once more about a break


@every_attack
def test_images_at_different_steps_share_a_batch(name, norm, plain, digits):
    """Waiting images take the places of finished ones: nobody notices."""
    x, y, ids = (part[:12] for part in digits)
    attack = short(name)
    with prepared(plain, x) as ready:
        size = float("inf") if attack.kind == "minimal" else SIZES[norm]
        goal = "minimise" if attack.kind == "minimal" else "break"
        together = run_attack(ready, attack, x, y, norm=norm, eps=size, ids=ids, goal=goal)
        driver = Driver(ready, attack, x, y, ids, norm=norm, goal=goal, batch=12)
        driver.flush_seconds = 0.0
        jobs = deque([Job(k, size) for k in range(6)])
        late = deque([Job(k, size) for k in range(6, 12)])
        found = {}
        for group in driver.run(jobs):
            for finished in group:
                found[finished.job.row] = finished
                if late:
                    jobs.append(late.popleft())
    assert len(found) == 12
    assert [found[k].broken for k in range(12)] == together.broken.tolist()


@pytest.mark.parametrize("name", table("attacks"))
def test_the_card_agrees_with_the_class(name):
    attack = made(name)
    seen = card("attacks", name)
    assert seen.summary.endswith(".")
    assert seen.settings.keys() == {f.name for f in fields(attack)}
    for fact in ("norms", "access", "kind", "revision", "paper", "choose_when"):
        assert seen.facts[fact] == getattr(type(attack), fact), fact
    assert attack.kind in ("bounded", "minimal")
    assert attack.access in ("gradient", "score", "label", "none")


@pytest.mark.parametrize("name", [name for name in table("attacks") if name not in [*SINGLE, *FOREIGN]])
def test_an_ensemble_is_a_list_of_attacks_under_each_of_its_norms(name):
    ensemble = make(name)
    assert make(describe(ensemble)) == ensemble
    for norm in ensemble.norms:
        parts = members(name, norm)
        assert len(parts) > 1
        for text, attack in parts.items():
            assert make_attack(text) == attack
            assert norm in attack.norms
        assert "gradient" not in {attack.access for attack in parts.values()} or ensemble.access == "gradient"
    with pytest.raises(SpecError, match="list of attacks"):
        make_attack(name)
