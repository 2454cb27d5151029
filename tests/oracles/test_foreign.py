"""Attacks of other libraries under our judge: as strong as alone, every call counted, their defects in the open."""

from __future__ import annotations

import random
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
import torchattacks
from torch import nn

import aresbench as ab
from aresbench.attacks.foreign import AdvLib, Foolbox, TorchAttacks
from aresbench.attacks.load import describe, make_attack
from aresbench.core.errors import SpecError, UnknownName
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine.driver import run_attack
from aresbench.engine.prepare import prepared
from aresbench.models.load import load_model

# What these import for plots and for downloads is no part of their attacks.
for name in ("visdom", "git", "requests"):
    sys.modules.setdefault(name, ModuleType(name))
if not hasattr(sys.modules["git"], "Repo"):
    sys.modules["git"].Repo = object

INF = float("inf")
N = 16
EPS = 0.02


@pytest.fixture(scope="module")
def digits():
    model = load_model("samples:digits-plain").eval().requires_grad_(False)
    data = load_dataset("digits")[: N + 4]
    x, _, _ = load_images(data, range(N + 4), model.preprocessing)
    y = torch.tensor(data.labels)
    with torch.no_grad():
        right = model(x).argmax(1) == y
    return model, x[right][:N], y[right][:N]


def drive(digits, attack, norm, eps=INF, **options):
    model, x, y = digits
    made = make_attack(attack)
    options.setdefault("goal", "minimise" if made.kind == "minimal" else "break")
    with prepared(model, x) as ready:
        return run_attack(ready, made, x, y, norm=norm, eps=eps, **options)


# -- torchattacks -----------------------------------------------------------------------------


def test_pgd_of_torchattacks_does_what_it_does_alone_and_each_call_is_counted(digits):
    model, x, y = digits
    alone = torchattacks.PGD(model, eps=EPS, alpha=0.005, steps=10, random_start=False)(x, y)
    with torch.no_grad():
        broken = model(alone).argmax(1) != y
    spec = "torchattacks(attack=PGD(steps=10, alpha=0.005, random_start=false))"
    out = drive(digits, spec, "linf", EPS)
    assert 0 < broken.sum() < N
    assert (out.broken >= broken).all()
    assert torch.equal(out.backwards, torch.full((N,), 10))
    assert torch.equal(out.forwards, 10 + 1 + out.broken.long())  # the image it returns; the judge's own
    assert (out.rejected == 0).all()
    last = drive(digits, spec, "linf", EPS, goal="maximise").x_adv
    gap = (last - alone)[~out.broken].abs().flatten(1)
    assert ((gap > EPS / 100).float().mean(1) <= 0.01).all()


def test_each_question_without_a_gradient_is_counted(digits):
    model, x, y = digits
    asked = []

    class Counting(nn.Module):
        anchor = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            asked.append(len(images))
            return model(images)

    torchattacks.Square(Counting(), eps=1e-4, n_queries=15)(x[:1], y[:1])
    out = drive((model, x[:3], y[:3]), "torchattacks(attack=Square(n_queries=15))", "linf", 1e-4)
    assert out.forwards.tolist() == [sum(asked) + 1] * 3
    assert out.backwards.tolist() == [0] * 3


def test_the_norm_and_the_target_reach_the_library(digits):
    y = digits[2]
    for inner, norm, eps in (("APGD(steps=10)", "l2", 1.0), ("PGDL2(steps=10)", "l2", 1.0), ("PIFGSM", "linf", 0.05)):
        assert drive(digits, TorchAttacks(inner), norm, eps).broken.sum() >= N // 3, inner
    target = (y + 1) % 10
    out = drive(digits, "torchattacks(attack=PGD)", "linf", 0.1, target=target)
    assert (out.prediction[out.broken] == target[out.broken]).all()
    assert out.broken.float().mean() >= 0.5
    with pytest.raises(SpecError, match="does not attack under linf"):
        drive(digits, TorchAttacks("PGDL2"), "linf", 0.1)


class Loose(torchattacks.attack.Attack):
    """A planted attack: takes one step up the gradient, out of the ball and the box, and asks about it."""

    def __init__(self, model, eps=8 / 255, out=1.5):
        super().__init__("Loose", model)
        self.eps, self.out = eps, out

    def forward(self, images, labels):
        images = images.clone().requires_grad_(True)
        nn.functional.cross_entropy(self.get_logits(images), labels).backward()
        found = images.detach() + self.out * self.eps * images.grad.sign()
        self.get_logits(found)
        return found


def test_what_lies_outside_the_budget_is_rejected_and_counted(digits, monkeypatch):
    monkeypatch.setattr(torchattacks, "Loose", Loose, raising=False)
    out = drive(digits, "torchattacks(attack=Loose(out=1.5))", "linf", 0.2)
    assert not out.broken.any()
    assert (out.rejected == 1).sum() >= N // 2
    assert (out.rejected <= 1).all()
    # A minimal attack walks where it likes: only what it returns is held against it.
    near = drive(digits, AdvLib("ddn(steps=15)"), "l2", 0.4, goal="break")
    assert (near.rejected[~near.broken] == 1).sum() >= N // 2
    assert (near.rejected <= 1).all()
    honest = drive(digits, "torchattacks(attack=Square(n_queries=20))", "linf", 0.2)
    assert (honest.rejected == 0).all()


def test_deepfool_of_torchattacks_ends_on_the_boundary_where_rounding_decides(digits):
    """What it returns leads by float noise at most: no break here, half of them broken by its own count."""
    model, x, y = digits
    few = model, x[:6], y[:6]
    found = torchattacks.DeepFool(model, steps=10)(x[:6], y[:6])
    with torch.no_grad():
        top = model(found).topk(2, dim=1).values
    assert ((top[:, 0] - top[:, 1]).abs() < 1e-4).float().mean() >= 0.5
    assert drive(few, TorchAttacks("DeepFool(steps=10)"), "l2").broken.float().mean() < 0.5


# -- draws, side effects ----------------------------------------------------------------------


def test_draws_belong_to_the_image_and_nothing_global_is_left_changed(digits):
    model, x, y = digits
    attack = TorchAttacks("PGD(steps=2)")
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    ids = [str(k) for k in range(N)]
    whole = drive(digits, attack, "linf", EPS, goal="maximise", ids=ids)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]
    torch.manual_seed(4)
    few = drive((model, x[5:8], y[5:8]), attack, "linf", EPS, goal="maximise", ids=ids[5:8], batch=1)
    torch.testing.assert_close(few.x_adv, whole.x_adv[5:8], rtol=0, atol=1e-6)
    other = drive((model, x[5:8], y[5:8]), attack, "linf", EPS, goal="maximise", ids=ids[5:8], seed=1)
    assert (other.x_adv - few.x_adv).abs().amax() > EPS / 10
    twice = x[[5, 5]], y[[5, 5]]
    pair = drive((model, *twice), attack, "linf", EPS, goal="maximise", ids=["a", "b"]).x_adv
    assert (pair[0] - pair[1]).abs().amax() > EPS / 10


def test_the_users_model_is_left_alone_and_nothing_is_printed(digits, capfd):
    model = load_model("samples:digits-plain").train()
    _, x, y = digits
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    for spec in ("torchattacks(attack=DeepFool(steps=2))", "adv-lib(attack=ddn(steps=2))"):
        ab.attack(model, x[:2], y[:2], spec, "l2:1")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert capfd.readouterr() == ("", "")


# -- adv-lib, foolbox -------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["fmn(steps=20)", "ddn(steps=20)", "fab(n_iter=5)", "alma(num_steps=20)"])
def test_minimal_attacks_of_advlib_are_judged_at_their_distance(digits, inner):
    out = drive(digits, AdvLib(inner), "l2")
    assert out.broken.all()
    assert out.distance.median() < 1.5
    assert (out.rejected == 0).all()


def test_bounded_attacks_of_advlib_get_the_budget(digits):
    for inner in ("apgd(n_iter=10)", "pgd_linf(steps=10, relative_step_size=0.2)"):
        out = drive(digits, AdvLib(inner), "linf", 0.05)
        assert out.broken.sum() >= N // 2, inner
        assert (out.rejected == 0).all()
        assert (out.distance[out.broken] <= 0.05 * (1 + 1e-5)).all()


def test_foolbox_s_fmn_under_l2_is_seen_to_be_farther_than_advlib_s(digits):
    """Its projection divides norms by themselves: it never projects."""
    theirs = drive(digits, Foolbox("L2FMNAttack(steps=30)"), "l2")
    right = drive(digits, AdvLib("fmn(steps=30)"), "l2")
    assert theirs.distance.median() > 1.1 * right.distance.median()


def test_attacks_of_foolbox(digits):
    assert drive(digits, Foolbox("LinfPGD(steps=10)"), "linf", 0.1).broken.float().mean() >= 0.5
    target = (digits[2] + 1) % 10
    out = drive(digits, Foolbox("DDNAttack(steps=20)"), "l2", target=target)
    assert (out.prediction == target).all()
    with pytest.raises(SpecError, match="does not search under linf"):
        drive(digits, Foolbox("DDNAttack(steps=20)"), "linf")


class Constant(nn.Module):
    def forward(self, x):
        return torch.tensor([[1.0, 0.0]]).expand(len(x), 2) + 0 * x.flatten(1)[:, :1]


def test_an_image_without_a_start_is_given_up_alone():
    x, y = torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    out = drive((Constant(), x, y), Foolbox("BoundaryAttack(steps=2)"), "l2")
    assert out.verdicts == ("no-start", "no-start")


# -- words ------------------------------------------------------------------------------------


def test_the_text_is_one_and_reads_back():
    attack = make_attack("torchattacks(attack=PGD( steps = 5,alpha=2/255 ))")
    assert describe(attack) == "torchattacks(attack=PGD(steps=5, alpha=2/255))"
    assert make_attack(describe(attack)) == attack
    assert (TorchAttacks("CW").kind, TorchAttacks("CW").norms) == ("minimal", ("l2",))
    assert (Foolbox("LinfPGD").kind, Foolbox("L2CarliniWagnerAttack").kind) == ("bounded", "minimal")
    assert (AdvLib("apgd").kind, AdvLib("sigma_zero").norms) == ("bounded", ("l0",))


def test_what_cannot_be_is_refused_in_words(digits, monkeypatch):
    with pytest.raises(SpecError, match="eps of PGD is given by the threat"):
        drive(digits, TorchAttacks("PGD(eps=0.1)"), "linf", EPS)
    with pytest.raises(SpecError, match="did you mean 'alpha'"):
        drive(digits, TorchAttacks("PGD(alhpa=0.1)"), "linf", EPS)
    with pytest.raises(UnknownName, match="did you mean 'PGD'"):
        drive(digits, TorchAttacks("PDG"), "linf", EPS)
    with pytest.raises(SpecError, match="has no name"):
        TorchAttacks("PGD(10)")
    with pytest.raises(SpecError, match="PGD of torchattacks failed: TypeError"):
        drive(digits, TorchAttacks("PGD(steps=many)"), "linf", EPS)
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(SpecError, match="pip install torchattacks"):
        drive(digits, TorchAttacks("PGD"), "linf", EPS)
