"""Our attacks under L1, and Square under L2 and L1, beside pyautoattack on the committed digits models."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from pyautoattack import autopgd_base
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.square import SquareAttack
from torch import Tensor

from aresbench.attacks.base import Attack
from aresbench.attacks.load import make_attack
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine.driver import Outcome, run_attack
from aresbench.engine.prepare import prepared
from aresbench.engine.problem import EngineProblem
from aresbench.metrics.paired import non_inferiority
from aresbench.models.classifier import Classifier
from aresbench.models.load import load_model
from aresbench.ops.random import Streams

ALPHA, POINT = 0.01, 0.01
PLAIN, ROBUST = "samples:digits-plain", "samples:digits-robust"
MIDDLE = {PLAIN: 5.0, ROBUST: 10.0}  # about half of the images break


class Case(NamedTuple):
    """A frozen model and images it gets right."""

    model: Classifier
    x: Tensor
    y: Tensor

    def take(self, n: int) -> Case:
        return self._replace(x=self.x[:n], y=self.y[:n])

    def double(self) -> Case:
        """In float64 rounding does not grow into another path."""
        return self._replace(model=copy.deepcopy(self.model).double(), x=self.x.double())


@cache
def case(name: str) -> Case:
    model = load_model(name).eval().requires_grad_(False)
    data = load_dataset("digits")
    assert model.preprocessing is not None
    x, _, _ = load_images(data, list(range(len(data))), model.preprocessing)
    y = torch.tensor(data.labels)
    with torch.no_grad():
        right = model(x).argmax(1) == y
    return Case(model, x[right], y[right])


def ours(at: Case, spec: str, norm: str, eps: float, **options: object) -> Outcome:
    with prepared(at.model, at.x) as ready:
        return run_attack(ready, make_attack(spec), at.x, at.y, norm=norm, eps=eps, **options)


def broken(at: Case, x: Tensor) -> Tensor:
    with torch.no_grad():
        return at.model(x).argmax(1) != at.y


def watch(at: Case) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """The model with float32 logits, and the list of all points it is asked about from now on."""
    asked: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        asked.append(x.detach().clone())
        return at.model(x).float()

    return watched, asked


# -- APGD under L1 ----------------------------------------------------------------------------


def streams_of(at: Case) -> Streams:
    return Streams(0, "peer", [str(k) for k in range(len(at.x))])


def path_of(at: Case, attack: Attack, eps: float) -> Tensor:
    """Every point our APGD asks the model about, [steps, N, C, H, W]."""
    watched, asked = watch(at)
    n = len(at.x)
    problem = EngineProblem(
        watched, at.x, at.y, torch.full((n,), eps), streams_of(at),
        norm="l1", goal="break", num_classes=10, rows=torch.arange(n),
    )  # fmt: skip
    with torch.no_grad():
        state = attack.start(problem)
        for _ in range(attack.steps_for(problem)):
            state = attack.step(problem, state)
            state.t = state.t + 1
        attack.finish(problem, state)
    return torch.stack(asked)


def exact_projection(x0: Tensor, change: Tensor, eps: float) -> Tensor:
    """What brings ``change`` into L1 ball and box, [N, C, H, W], by bisection in numpy."""
    a, u = x0.flatten(1).double().numpy(), change.flatten(1).double().numpy()
    size, room = np.abs(u), np.where(u > 0, 1 - a, a)
    low, high = np.zeros((len(a), 1)), size.max(1, keepdims=True)
    for _ in range(80):
        middle = (low + high) / 2
        over = np.minimum(np.maximum(size - middle, 0), room).sum(1, keepdims=True) > eps
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    high = np.where(np.minimum(size, room).sum(1, keepdims=True) > eps, high, 0)
    return torch.tensor(np.sign(u) * np.minimum(np.maximum(size - high, 0), room) - u).view_as(x0)


@pytest.fixture
def peer_without_rounding(monkeypatch):
    """Its projection works in float32: values it takes back to the image differ by 1e-8 and count as changed."""
    monkeypatch.setattr(autopgd_base, "L1_projection", exact_projection)
    monkeypatch.setattr(autopgd_base, "L0_norm", lambda v: (v.abs() > 1e-9).flatten(1).sum(1))


def peer_path(at: Case, attack: APGDAttack, asked: list[Tensor], run: int, legs: list[int], monkeypatch) -> Tensor:
    """Every point of one run of pyautoattack's APGD in balls of 3, 2 and 1 eps, from the same normal noise as ours."""
    noise = streams_of(at).normal("start", at.x.shape[1:], run).to(at.x.dtype)
    attack.init_hyperparam(at.x)
    asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda _: noise)
        attack.decr_eps_pgd(at.x, at.y, [scale * attack.eps_orig for scale in (3, 2, 1)], legs)
    return torch.stack(asked)


@pytest.mark.parametrize("name", [PLAIN, ROBUST])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_under_l1_walks_the_same_path_as_pyautoattack(name, loss, peer_without_rounding, monkeypatch):
    at, eps, steps, legs = case(name).take(12).double(), MIDDLE[name], 60, [18, 18, 24]
    path = path_of(at, make_attack(f"apgd-{loss}(steps={steps})"), eps)
    watched, asked = watch(at)
    peer = APGDAttack(watched, n_iter=steps, norm="L1", eps=eps, device="cpu", loss=loss, use_largereps=True)
    theirs = peer_path(at, peer, asked, 0, legs, monkeypatch)
    assert path.shape == theirs.shape
    gap = (path - theirs).abs().flatten(2).amax(2).amax(0)
    assert (gap <= eps / 1000).float().mean() >= 0.9


def test_apgd_t_under_l1_walks_the_same_paths_as_pyautoattack(peer_without_rounding, monkeypatch):
    at, eps, steps, legs = case(ROBUST).take(8).double(), MIDDLE[ROBUST], 10, [3, 3, 4]
    path = path_of(at, make_attack(f"apgd-t(steps={steps}, targets=3)"), eps)
    assert len(path) == 1 + 3 * (steps + 3)
    with torch.no_grad():
        order = at.model(at.x).argsort(dim=1, descending=True)
    watched, asked = watch(at)
    for run in range(3):
        peer = APGDAttack_targeted(watched, n_iter=steps, norm="L1", eps=eps, device="cpu", use_largereps=True)
        peer.y_target = order[:, run + 1]
        theirs = peer_path(at, peer, asked, run, legs, monkeypatch)
        gap = (path[1 + run * (steps + 3) :][: steps + 3] - theirs).abs().flatten(2).amax(2).amax(0)
        assert (gap <= eps / 1000).float().mean() >= 0.85, run


@pytest.mark.parametrize("name", [PLAIN, ROBUST])
def test_apgd_under_l1_with_its_own_draws_breaks_as_many_as_pyautoattack(name):
    at, eps = case(name).take(120), MIDDLE[name]
    mine = ours(at, "apgd-ce(steps=20, restarts=2)", "l1", eps)
    peer = APGDAttack(
        at.model, n_iter=20, n_restarts=2, norm="L1", eps=eps, device="cpu", loss="ce", use_largereps=True
    )
    verdict = non_inferiority(mine.broken, broken(at, peer.perturb(at.x, at.y)), POINT)
    assert 0.2 < mine.broken.float().mean() < 0.8
    assert verdict.p_inferior > ALPHA, verdict
    assert mine.forwards.max() <= 2 * 23 + 1  # every point of both runs, and one confirmation


# -- Square under L2 and L1 -------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "eps"), [("l2", 5.0), ("l1", 45.0)])
def test_square_breaks_as_many_as_pyautoattack_for_as_many_queries(norm, eps):
    at, queries, seeds = case(ROBUST).take(100), 60, (0, 1)
    mine = [ours(at, f"square(queries={queries})", norm, eps, seed=seed) for seed in seeds]
    assert all((out.forwards[~out.broken] == queries).all() for out in mine)
    theirs = []
    for seed in seeds:
        torch.manual_seed(seed)
        peer = SquareAttack(
            at.model, n_queries=queries - 1, norm=norm.upper(), eps=eps, p_init=0.8, resc_schedule=False, device="cpu"
        )  # it does not count the first query
        peer.init_hyperparam(at.x)
        theirs.append(broken(at, peer.attack_single_run(at.x, at.y)[1]))
    verdict = non_inferiority(torch.cat([out.broken for out in mine]), torch.cat(theirs), POINT)
    assert 0.1 < np.mean([out.broken.float().mean() for out in mine]) < 0.9
    assert verdict.p_inferior > ALPHA, verdict
