"""Our attacks beside other libraries' on the same models, images and budgets.

Deterministic pairs (same start) must agree image by image. Pairs that draw their own random numbers are
compared by the exact one-sided paired test of ``metrics.paired``: ours must never be proven weaker by
more than a point (alpha 0.01), and where nothing is drawn it must be proven not to be.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torchattacks
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.square import SquareAttack
from torch import Tensor

from aresbench.attacks import geometry
from aresbench.attacks.base import Attack
from aresbench.attacks.load import make_attack
from aresbench.attacks.losses import LOSSES, cross_entropy
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine.driver import Outcome, run_attack
from aresbench.engine.prepare import prepared
from aresbench.engine.problem import EngineProblem
from aresbench.metrics.paired import non_inferiority
from aresbench.models.classifier import Classifier
from aresbench.models.load import load_model
from aresbench.ops.random import Streams

# adv-lib imports a plotting server that its attacks do not need
sys.modules.setdefault("visdom", ModuleType("visdom"))
from adv_lib.attacks.fast_minimum_norm import fmn as advlib_fmn  # noqa: E402

ALPHA, POINT = 0.01, 0.01
DIGITS = ("samples:digits-plain", "samples:digits-robust")
LITE0 = "samples:efficientnet-lite0"
ORDER = {"linf": float("inf"), "l2": 2}
PEER_NORM = {"linf": "Linf", "l2": "L2"}

# (linf, l2) at which about half of the images break
MIDDLE = {
    "samples:digits-plain": {"linf": 0.02, "l2": 0.7},
    "samples:digits-robust": {"linf": 0.15, "l2": 1.6},
    LITE0: {"linf": 0.25 / 255, "l2": 0.15},
}


class Case(NamedTuple):
    """A frozen model and images it gets right."""

    name: str
    model: Classifier
    x: Tensor
    y: Tensor

    def take(self, n: int) -> Case:
        return self._replace(x=self.x[:n], y=self.y[:n])


@cache
def case(name: str) -> Case:
    model = load_model(name).eval().requires_grad_(False)
    data = load_dataset("samples" if name == LITE0 else "digits")
    assert model.preprocessing is not None
    x, _, _ = load_images(data, list(range(len(data))), model.preprocessing)
    y = torch.tensor(data.labels)
    with torch.no_grad():
        right = model(x).argmax(1) == y
    return Case(name, model, x[right], y[right])


def ours(at: Case, spec: str, norm: str, eps: float, **options: object) -> Outcome:
    with prepared(at.model, at.x) as ready:
        return run_attack(ready, make_attack(spec), at.x, at.y, norm=norm, eps=eps, **options)


def broken(at: Case, x: Tensor) -> Tensor:
    with torch.no_grad():
        return at.model(x).argmax(1) != at.y


# -- APGD against pyautoattack ----------------------------------------------------------------


def watch(at: Case) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """The model with float32 logits, and the list of all points it is asked about from now on."""
    asked: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        asked.append(x.detach().clone())
        return at.model(x).float()

    return watched, asked


def apgd_path(at: Case, attack: Attack, norm: str, eps: float, start: Tensor) -> Tensor:
    """Every point our APGD asks the model about, [steps + 1, N, C, H, W]."""
    watched, asked = watch(at)
    n = len(at.x)
    problem = EngineProblem(
        watched, at.x, at.y, torch.full((n,), eps), Streams(0, "peer", [str(k) for k in range(n)]),
        norm=norm, goal="break", num_classes=10, rows=torch.arange(n), start_from=start,
    )  # fmt: skip
    with torch.no_grad():
        state = attack.start(problem)
        for _ in range(attack.total_steps):
            state = attack.step(problem, state)
            state.t = state.t + 1
        attack.finish(problem, state)
    return torch.stack(asked)


def peer_apgd(
    at: Case, norm: str, eps: float, steps: int, start: Tensor | None, seed: int = 0, loss: str = "ce"
) -> tuple[Tensor, Tensor, Tensor]:
    """(every point pyautoattack's APGD asks about, its best losses, which images it broke).

    It does not know the probability margin: its steps climb the formula instead of their DLR.
    """
    watched, asked = watch(at)
    torch.manual_seed(seed)
    known = "ce" if loss == "ce" else "dlr"
    attack = APGDAttack(watched, n_iter=steps, norm=PEER_NORM[norm], eps=eps, device="cpu", seed=seed, loss=known)
    if loss == "pm":
        attack.dlr_loss = probability_gap
    attack.init_hyperparam(at.x)
    _, resisted, best, _ = attack.attack_single_run(at.x, at.y, x_init=start)
    return torch.stack(asked), best, ~resisted


def probability_gap(z: Tensor, y: Tensor) -> Tensor:
    p, own = z.double().softmax(1), torch.nn.functional.one_hot(y, z.shape[1]).bool()
    return (p.masked_fill(own, 0.0).amax(1) - p[own]).float()


def both_paths(at: Case, norm: str, eps: float, steps: int, loss: str = "ce") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Our path, the peer's, its best losses and its verdicts, from one and the same start."""
    n = len(at.x)
    eps = float(torch.tensor(eps))  # the same float32 number for both
    streams = Streams(0, "peer", [str(k) for k in range(n)])
    start = geometry.surface_start(at.x, torch.full((n,), eps), norm, streams)
    path = apgd_path(at, make_attack(f"apgd-{loss}(steps={steps})"), norm, eps, start)
    return path, *peer_apgd(at, norm, eps, steps, start, loss=loss)


def best_so_far(at: Case, path: Tensor, loss: str = "ce") -> Tensor:
    """[steps + 1, N], the highest loss up to each point of a path."""
    with torch.no_grad():
        return torch.stack([LOSSES[loss](at.model(x).float(), at.y) for x in path]).cummax(0).values


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", DIGITS)
@pytest.mark.parametrize("loss", ["ce", "dlr", "pm"])
def test_apgd_walks_the_same_path_as_pyautoattack(name, norm, loss):
    # In float64, where rounding does not grow into another path within 100 steps.
    small = case(name).take(40)
    at = small._replace(model=copy.deepcopy(small.model).double(), x=small.x.double())
    eps = MIDDLE[name][norm]
    path, peer_path, peer_best, peer_broken = both_paths(at, norm, eps, 100, loss)
    # The same points at every step: the same step lengths, halvings and returns to the best point.
    assert path.shape == peer_path.shape
    gap = (path - peer_path).abs().flatten(2).amax(2).amax(0)
    assert (gap <= eps / 1000).float().mean() >= 0.98
    trace, peer_trace = best_so_far(at, path, loss), best_so_far(at, peer_path, loss)
    torch.testing.assert_close(peer_trace[-1], peer_best)
    assert torch.isclose(trace, peer_trace, rtol=1e-4, atol=1e-6).all(0).float().mean() >= 0.99
    reached = torch.stack([broken(at, x) for x in path]).any(0)
    assert torch.equal(reached, peer_broken)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_climbs_as_high_as_pyautoattack_on_photographs(norm):
    at = case(LITE0).take(4)
    path, peer_path, _, peer_broken = both_paths(at, norm, MIDDLE[LITE0][norm], 8)
    trace, peer_trace = best_so_far(at, path), best_so_far(at, peer_path)
    torch.testing.assert_close(trace, peer_trace, rtol=0.02, atol=1e-3)
    reached = torch.stack([broken(at, x) for x in path]).any(0)
    assert torch.equal(reached, peer_broken)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", DIGITS)
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_with_its_own_draws_breaks_as_many_as_pyautoattack(name, norm, loss):
    at, eps = case(name).take(320), MIDDLE[name][norm]
    mine = ours(at, f"apgd-{loss}(steps=30)", norm, eps).broken
    *_, theirs = peer_apgd(at, norm, eps, 30, None, loss=loss)
    verdict = non_inferiority(mine, theirs, POINT)
    assert verdict.n >= 300
    assert verdict.p_inferior > ALPHA, verdict


def peer_apgd_t(at: Case, model: Callable[[Tensor], Tensor], norm: str, eps: float, steps: int) -> APGDAttack_targeted:
    attack = APGDAttack_targeted(model, n_iter=steps, norm=PEER_NORM[norm], eps=eps, device="cpu", seed=0)
    attack.init_hyperparam(at.x)
    return attack


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_t_walks_the_same_paths_as_pyautoattack(norm):
    small, n, steps = case(DIGITS[1]).take(16), 16, 12
    at = small._replace(model=copy.deepcopy(small.model).double(), x=small.x.double())
    eps = float(torch.tensor(MIDDLE[DIGITS[1]][norm]))
    streams = Streams(0, "peer", [str(k) for k in range(n)])
    starts = [geometry.surface_start(at.x, torch.full((n,), eps), norm, streams, run) for run in range(9)]
    path = apgd_path(at, make_attack(f"apgd-t(steps={steps})"), norm, eps, starts[0])
    assert len(path) == 1 + 9 * (steps + 1)
    with torch.no_grad():
        order = at.model(at.x).argsort(dim=1, descending=True)
    watched, asked = watch(at)
    for run in range(9):
        peer = peer_apgd_t(at, watched, norm, eps, steps)
        peer.y_target = order[:, run + 1]
        asked.clear()
        peer.attack_single_run(at.x, at.y, x_init=starts[run])
        mine = path[1 + run * (steps + 1) :][: steps + 1]
        gap = (mine - torch.stack(asked)).abs().flatten(2).amax(2).amax(0)
        assert (gap <= eps / 1000).float().mean() >= 0.9, run


@pytest.mark.parametrize(("name", "norm"), [(DIGITS[0], "l2"), (DIGITS[1], "linf")])
def test_apgd_t_breaks_as_many_as_pyautoattack(name, norm):
    at, eps = case(name).take(160), MIDDLE[name][norm]
    mine = ours(at, "apgd-t(steps=10)", norm, eps).broken
    theirs = broken(at, peer_apgd_t(at, at.model, norm, eps, 10).perturb(at.x, at.y))
    verdict = non_inferiority(mine, theirs, POINT)
    assert verdict.n >= 150
    assert verdict.p_inferior > ALPHA, verdict


# -- PGD against torchattacks -----------------------------------------------------------------


def peer_pgd(at: Case, norm: str, eps: float, steps: int, random_start: bool) -> Tensor:
    kind = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    return kind(at.model, eps=eps, alpha=eps / 4, steps=steps, random_start=random_start)(at.x, at.y)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", DIGITS)
def test_pgd_from_the_image_is_that_of_torchattacks(name, norm):
    at, eps = case(name), MIDDLE[name][norm]
    theirs = peer_pgd(at, norm, eps, 20, random_start=False)
    last = ours(at, "pgd(random_start=false)", norm, eps, goal="maximise").x_adv
    gap = (last - theirs).abs().flatten(1)
    # Where a gradient entry is float noise its sign is chance; a few such pixels do not make another attack.
    assert ((gap > eps / 100).float().mean(1) <= 0.01).float().mean() >= 0.98
    # Ours offers every iterate, torchattacks only the last: it is proven not to be weaker.
    mine = ours(at, "pgd(random_start=false)", norm, eps).broken
    verdict = non_inferiority(mine, broken(at, theirs), POINT)
    assert verdict.n >= 480
    assert verdict.p_not_inferior < ALPHA, verdict


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_climbs_as_high_as_torchattacks_on_photographs(norm):
    at, eps = case(LITE0).take(6), MIDDLE[LITE0][norm]
    theirs = peer_pgd(at, norm, eps, 5, random_start=False)
    last = ours(at, "pgd(steps=5, random_start=false)", norm, eps, goal="maximise").x_adv
    with torch.no_grad():
        loss, peer_loss = (cross_entropy(at.model(x), at.y) for x in (last, theirs))
    torch.testing.assert_close(loss, peer_loss, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", DIGITS)
def test_pgd_with_its_own_draws_breaks_as_many_as_torchattacks(name, norm):
    at, eps = case(name), MIDDLE[name][norm]
    torch.manual_seed(0)
    theirs = broken(at, peer_pgd(at, norm, eps, 20, random_start=True))
    verdict = non_inferiority(ours(at, "pgd", norm, eps).broken, theirs, POINT)
    assert verdict.p_inferior > ALPHA, verdict


# -- BIM and MIM against torchattacks ---------------------------------------------------------


@pytest.mark.parametrize("spec", ["bim", "mim", "mim(decay=0.5)"])
@pytest.mark.parametrize("name", DIGITS)
def test_bim_and_mim_are_those_of_torchattacks(name, spec):
    at, eps = case(name), MIDDLE[name]["linf"]
    if spec == "bim":
        peer = torchattacks.BIM(at.model, eps=eps, alpha=eps / 5, steps=10)
    else:
        peer = torchattacks.MIFGSM(at.model, eps=eps, alpha=eps / 10, steps=10, decay=0.5 if "0.5" in spec else 1.0)
    theirs = peer(at.x, at.y)
    last = ours(at, spec, "linf", eps, goal="maximise").x_adv
    gap = (last - theirs).abs().flatten(1)
    assert ((gap > eps / 100).float().mean(1) <= 0.01).float().mean() >= 0.98
    verdict = non_inferiority(ours(at, spec, "linf", eps).broken, broken(at, theirs), POINT)
    assert verdict.p_not_inferior < ALPHA, verdict


# -- transfer attacks against torchattacks -----------------------------------------------------


class Drawn:
    """Hands out our neighbours where the peer would draw its own."""

    def __init__(self, at: Case, reach: float) -> None:
        self.at, self.reach, self.asked = at, reach, 0
        self.streams = Streams(0, "MIM", [f"|{k}" for k in range(len(at.x))])  # those of `ours`

    def uniform_(self, low: float, high: float) -> Tensor:
        assert high == -low == self.reach
        step, sample = divmod(self.asked, 4)
        self.asked += 1
        zero = torch.zeros_like(self.at.x)
        return geometry.neighbour(zero, torch.full((len(zero),), high), "linf", self.streams, f"vmi/{sample}", step)


@pytest.mark.parametrize(
    ("spec", "peer", "peer_settings"),
    [
        ("mim(lookahead=true)", torchattacks.NIFGSM, {}),
        ("si-ni-fgsm", torchattacks.SINIFGSM, {"m": 5}),
        ("tim", torchattacks.TIFGSM, {"diversity_prob": 0.0}),  # its TIM resizes too, unless told not to
        ("mim(parts=[vmi(samples=4)])", torchattacks.VMIFGSM, {"N": 4, "beta": 1.5}),
        ("mim(parts=[vmi(samples=4)], lookahead=true)", torchattacks.VNIFGSM, {"N": 4, "beta": 1.5}),
    ],
    ids=["ni", "si-ni", "ti", "vmi", "vni"],
)
@pytest.mark.parametrize("name", DIGITS)
def test_transfer_attacks_take_the_steps_of_torchattacks(name, spec, peer, peer_settings, monkeypatch):
    at, eps = case(name).take(100), MIDDLE[name]["linf"]
    with monkeypatch.context() as patch:
        if "N" in peer_settings:
            drawn = Drawn(at, eps * 1.5)
            patch.setattr(torch, "randn_like", lambda x: drawn)
        attack = peer(at.model, eps=eps, alpha=eps / 10, steps=10, decay=1.0, **peer_settings)
        theirs = attack(at.x, at.y)
    last = ours(at, spec, "linf", eps, goal="maximise").x_adv
    gap = (last - theirs).abs().flatten(1)
    # As above: where an entry is float noise its sign is chance.
    assert ((gap > eps / 100).float().mean(1) <= 0.01).float().mean() >= 0.98


# -- Square against pyautoattack --------------------------------------------------------------


@pytest.mark.parametrize(("name", "eps"), [(DIGITS[0], 0.05), (DIGITS[1], 0.2)])
def test_square_breaks_as_many_as_pyautoattack_for_as_many_queries(name, eps):
    at, queries = case(name).take(320), 150
    mine = ours(at, f"square(queries={queries})", "linf", eps).broken
    torch.manual_seed(0)
    peer = SquareAttack(
        at.model, n_queries=queries - 1, norm="Linf", eps=eps, p_init=0.8, resc_schedule=False, device="cpu", seed=0
    )  # it does not count the first query
    peer.init_hyperparam(at.x)
    theirs = broken(at, peer.attack_single_run(at.x, at.y)[1])
    verdict = non_inferiority(mine, theirs, POINT)
    assert verdict.n >= 300
    assert verdict.p_inferior > ALPHA, verdict


# -- FMN against adv-lib ----------------------------------------------------------------------


def both_distances(at: Case, norm: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances of our FMN and of adv-lib's, [N] each, infinite where nothing was found."""
    mine = ours(at, f"fmn(steps={steps})", norm, float("inf"), goal="minimise").distance.numpy()
    found = advlib_fmn(at.model, at.x, at.y, norm=ORDER[norm], steps=steps)
    return mine, np.where(broken(at, found), geometry.distance(found, at.x, norm), np.inf)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", DIGITS)
def test_fmn_finds_the_distances_of_advlib(name, norm):
    mine, theirs = both_distances(case(name).take(320), norm, 50)
    assert np.isfinite(mine).mean() >= np.isfinite(theirs).mean() - 0.005
    assert np.median(mine) <= np.median(theirs) * 1.01
    both = np.isfinite(mine) & np.isfinite(theirs)
    ratio = mine[both] / theirs[both]
    assert np.median(ratio) <= 1.001
    assert (ratio <= 1.01).mean() >= 0.95


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fmn_finds_the_distances_of_advlib_on_photographs(norm):
    mine, theirs = both_distances(case(LITE0).take(8), norm, 12)
    assert np.isfinite(mine).all()
    assert np.median(mine / theirs) <= 1.02
