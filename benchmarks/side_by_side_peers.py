"""What ``side_by_side.py`` compares: one line an attack, and how each library is asked for it at equal steps."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import side_by_side_reference as reference
import torch
from side_by_side_cases import INF, advertorch
from torch import Tensor, nn

Call = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
TITLE = {"linf": "Linf", "l2": "L2", "l1": "L1"}
ORDER = {"linf": INF, "l2": 2, "l1": 1, "l0": 0}


@dataclass(frozen=True)
class Peer:
    """Another library's way to the same attack.

    Args:
        name: library.
        call: (model, x, y, eps) → changed images; eps is infinite for minimal-norm attacks.
        note: what is known to be wrong with it.
    """

    name: str
    call: Call
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """One of our attacks beside others.

    Args:
        spec: ours; ``{q}`` stands for the forwards an image that the first peer took.
        norm: linf, l2, l1 or l0.
        peers: who else.
        cases: names of ``side_by_side_cases.CASES``.
        minimal: distances are compared rather than robust accuracy.
        scale: of the case's budget.
        images: at most.
    """

    spec: str
    norm: str
    peers: tuple[Peer, ...]
    cases: tuple[str, ...]
    minimal: bool = False
    scale: float = 1.0
    images: int = 80


# -- how the libraries are called ----------------------------------------------------------------


def torchattacks(kind: str, /, rel: float | None = None, **settings: Any) -> Call:
    def call(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        import torchattacks

        with_eps = {} if eps == INF else {"eps": eps}
        if rel is not None:
            with_eps["alpha"] = eps * rel
        if "n_classes" in settings:
            settings["n_classes"] = model(x[:1]).shape[1]
        return getattr(torchattacks, kind)(model, **with_eps, **settings)(x, y)

    return call


def foolbox(kind: str, /, **settings: Any) -> Call:
    def call(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        import foolbox

        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        made = getattr(foolbox.attacks, kind)(**settings)
        return made(wrapped, x, y, epsilons=None if eps == INF else eps)[1]

    return call


def advlib(kind: str, /, **settings: Any) -> Call:
    def call(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        sys.modules.setdefault("visdom", ModuleType("visdom"))  # a plotting server that its attacks do not need
        import adv_lib.attacks as library

        name = "ε" if kind == "pgd_linf" else "eps"
        return getattr(library, kind)(model, x, y, **({} if eps == INF else {name: eps}), **settings)

    return call


def art(kind: str, /, rel: float | None = None, **settings: Any) -> Call:
    def call(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        import art.attacks.evasion as library
        from art.estimators.classification import PyTorchClassifier

        count = model(x[:1]).shape[1]
        wrapped = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), count, clip_values=(0, 1), device_type="cpu"
        )
        with_eps = {} if eps == INF else {"eps": eps}
        if rel is not None:
            with_eps["eps_step"] = eps * rel
        with contextlib.suppress(AttributeError):
            return torch.tensor(
                getattr(library, kind)(wrapped, **with_eps, **{"verbose": False, **settings}).generate(
                    x.numpy().copy(), y.numpy()
                )
            )
        raise RuntimeError("stopped with an AttributeError")

    return call


def torched(kind: str, /, rel: float | None = None, **settings: Any) -> Call:
    """advertorch's ``kind``."""

    def call(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        with_eps = {} if eps == INF else {"eps": eps}
        if rel is not None:
            with_eps["eps_iter"] = eps * rel
        if "num_classes" in settings:
            settings["num_classes"] = model(x[:1]).shape[1]
        return getattr(advertorch(), kind)(model, **with_eps, **settings).perturb(x, y)

    return call


def authors_apgd(norm: str, loss: str, steps: int) -> Call:
    def call(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

        common = {"n_iter": steps, "norm": TITLE[norm], "eps": eps, "device": "cpu", "seed": 0}
        made = APGDAttack_targeted(model, **common) if loss == "t" else APGDAttack(model, loss=loss, **common)
        return made.perturb(x, y)

    return call


def authors_fab_t(norm: str, steps: int) -> Call:
    def call(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        from pyautoattack.fab_pt import FABAttack_PT

        best, far = x.clone(), torch.full((len(x),), INF)
        for place in range(2, 11):  # no budget: it keeps the nearest only among those inside one
            made = FABAttack_PT(model, TITLE[norm], n_iter=steps, eps=1e3, device="cpu", targeted=True, seed=0)
            made.target_class = place
            found = made.attack_single_run(x, y, is_targeted=True)
            change = (found - x).flatten(1)
            size = change.norm(p=ORDER[norm], dim=1)
            with torch.no_grad():
                nearer = (model(found).argmax(1) != y) & (size < far)
            best[nearer], far[nearer] = found[nearer], size[nearer]
        return best

    return call


def authors_square(norm: str, queries: int) -> Call:
    def call(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        from pyautoattack.square import SquareAttack

        made = SquareAttack(
            model,
            n_queries=queries - 1,
            norm=TITLE[norm],
            eps=eps,
            p_init=0.8,
            resc_schedule=False,
            device="cpu",
            seed=0,
        )
        return made.perturb(x, y)

    return call


def authors_autoattack(norm: str) -> Call:
    def call(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        from pyautoattack import AutoAttack

        made = AutoAttack(model, norm=TITLE[norm], eps=eps, version="standard", device="cpu", seed=0)
        return made.run_standard_evaluation(x, y, batch_size=len(x))[0]

    return call


def silent(call: Call) -> Call:
    def quiet(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            return call(model, x, y, eps)

    return quiet


# -- what is compared ----------------------------------------------------------------------------

TWO = ("digits-plain", "digits-robust")
SMALL = (*TWO, "mnist-plain", "mnist-robust")
LARGE = ("photographs", "cifar")  # a pass costs a thousand times as much: fewer steps
LAST = "keeps the last iterate: what broke on the way and closed again is lost"
SHARED = "one window and one sign for the whole batch"
EARLY = "ends after a step without success, long before its iterations are used up"
FROZEN = "values at exactly 0 or 1 never move; one constant, no search for it"


def pgds(steps: int, cases: tuple[str, ...]) -> list[Comparison]:
    return [
        Comparison(f"pgd(steps={steps})", "linf", (
            Peer("torchattacks", torchattacks("PGD", rel=0.25, steps=steps), LAST),
            Peer("foolbox", foolbox("LinfPGD", rel_stepsize=0.25, steps=steps), LAST),
        ), cases),
        Comparison(f"pgd(steps={steps})", "l2", (
            Peer("torchattacks", torchattacks("PGDL2", rel=0.25, steps=steps), LAST),
            Peer("foolbox", foolbox("L2PGD", rel_stepsize=0.25, steps=steps), LAST),
        ), cases),
    ]  # fmt: skip


def apgds(
    steps: int, cases: tuple[str, ...], norms: tuple[str, ...] = ("linf", "l2"), libraries: int = 4
) -> list[Comparison]:
    lines = []
    for norm in norms:
        lines += [
            Comparison(f"apgd-ce(steps={steps})", norm, (
                Peer("pyautoattack", authors_apgd(norm, "ce", steps)),
                Peer("adv-lib", advlib("apgd", norm=ORDER[norm], n_iter=steps, loss_function="ce")),
                Peer("torchattacks", torchattacks("APGD", norm=TITLE[norm], steps=steps)),
                Peer("ART", art("AutoProjectedGradientDescent", rel=2.0, norm=ORDER[norm], max_iter=steps,
                    nb_random_init=1, batch_size=256, loss_type="cross_entropy"),
                    "asks twice a step; " + LAST),
            )[:libraries], cases),
        ]  # fmt: skip
    return lines


def minimal_l2(steps: int, cases: tuple[str, ...]) -> list[Comparison]:
    return [
        Comparison(f"fmn(steps={steps})", "l2", (
            Peer("adv-lib", advlib("fmn", norm=2, steps=steps)),
            Peer("foolbox", foolbox("L2FMNAttack", steps=steps), "never projects onto its ball"),
        ), cases, minimal=True),
        Comparison(f"ddn(steps={steps})", "l2", (
            Peer("adv-lib", advlib("ddn", steps=steps, levels=None)),
            Peer("foolbox", foolbox("DDNAttack", steps=steps)),
        ), cases, minimal=True),
    ]  # fmt: skip


def squares(queries: int, cases: tuple[str, ...], norms: tuple[str, ...] = ("linf", "l2")) -> list[Comparison]:
    """With AutoAttack's schedule, made for 10,000 queries, and with one that is squeezed into those given."""
    lines = []
    for norm in norms:
        scale = {"linf": 1.5, "l2": 2.0}[norm]
        wrong = "divides where it must multiply" if norm == "l2" else ""
        lines += [
            Comparison(f"square(queries={queries})", norm, (
                Peer("pyautoattack", authors_square(norm, queries), "" if norm == "l2" else SHARED),
            ), cases, scale=scale),
            Comparison(f"square(queries={queries}, rescale_schedule=true)", norm, (
                Peer("torchattacks", torchattacks("Square", norm=TITLE[norm], n_queries=queries)),
                Peer("ART", art("SquareAttack", norm=ORDER[norm], max_iter=queries, batch_size=256), wrong),
            ), cases, scale=scale, images=40),
        ]  # fmt: skip
    return lines


COMPARISONS: list[Comparison] = [
    Comparison("fgsm", "linf", (
        Peer("torchattacks", torchattacks("FGSM")),
        Peer("foolbox", foolbox("FGSM")),
        Peer("advertorch", torched("GradientSignAttack")),
    ), (*SMALL, *LARGE)),
    *pgds(30, SMALL), *pgds(15, LARGE)[:1],
    Comparison("mim(steps=30)", "linf", (
        Peer("torchattacks", torchattacks("MIFGSM", rel=0.1, steps=30), LAST),
        Peer("foolbox", foolbox("MIFGSM", rel_stepsize=0.1, steps=30)),
        Peer("advertorch", torched("LinfMomentumIterativeAttack", rel=0.1, nb_iter=30), LAST),
    ), SMALL),
    *apgds(30, SMALL), *apgds(15, LARGE, ("linf",), libraries=2),
    *[Comparison("apgd-dlr(steps=30)", norm, (
        Peer("pyautoattack", authors_apgd(norm, "dlr", 30)),
        Peer("adv-lib", advlib("apgd", norm=ORDER[norm], n_iter=30, loss_function="dlr")),
        Peer("torchattacks", torchattacks("APGD", norm=TITLE[norm], steps=30, loss="dlr")),
    ), SMALL) for norm in ("linf", "l2")],
    *[Comparison("apgd-t(steps=20)", norm, (
        Peer("pyautoattack", authors_apgd(norm, "t", 20)),
        Peer("adv-lib", advlib("apgd_targeted", norm=ORDER[norm], n_iter=20, num_targets=9),
            "a break is reaching the target; attacks images that are wrong already, and repairs them"),
        Peer("torchattacks", torchattacks("APGDT", norm=TITLE[norm], steps=20, n_classes=10)),
    ), cases) for norm, cases in (("linf", (*SMALL, "digits-errors")), ("l2", TWO))],
    *squares(400, SMALL), *squares(100, LARGE[1:], ("linf",)),
    *[Comparison("fab-t(steps=20)", norm, (
        Peer("pyautoattack", authors_fab_t(norm, 20)),
        Peer("adv-lib", advlib("fab", norm=ORDER[norm], n_iter=20, targeted_restarts=True, restarts=9)),
    ), SMALL, minimal=True, images=20) for norm in ("linf", "l2")],
    *minimal_l2(50, SMALL), *minimal_l2(15, LARGE)[:1],
    Comparison("fmn(steps=50)", "linf", (
        Peer("adv-lib", advlib("fmn", norm=INF, steps=50)),
        Peer("foolbox", foolbox("LInfFMNAttack", steps=50)),
    ), SMALL, minimal=True),
    Comparison("cw(steps=900, searches=9)", "l2", (
        Peer("adv-lib", advlib("carlini_wagner_l2", max_iterations=100)),
        Peer("foolbox", foolbox("L2CarliniWagnerAttack", steps=100)),
        Peer("torchattacks", torchattacks("CW", steps=900), FROZEN),
        Peer("advertorch", torched("CarliniWagnerL2Attack", num_classes=10, max_iterations=100)),
    ), SMALL, minimal=True, images=20),
    Comparison("deepfool", "l2", (
        Peer("adv-lib", advlib("df", steps=50, norm=2)),
        Peer("foolbox", foolbox("L2DeepFoolAttack", steps=50)),
        Peer("torchattacks", torchattacks("DeepFool", steps=50)),
    ), SMALL, minimal=True),
    Comparison("deepfool", "linf", (
        Peer("adv-lib", advlib("df", steps=50, norm=INF)),
        Peer("foolbox", foolbox("LinfDeepFoolAttack", steps=50)),
    ), SMALL, minimal=True),
    Comparison("ead(steps=900, searches=9)", "l1", (
        Peer("foolbox", foolbox("EADAttack", steps=100, decision_rule="L1")),
        Peer("advertorch", torched("ElasticNetL1Attack", num_classes=10, max_iterations=100, decision_rule="L1")),
        Peer("torchattacks", torchattacks("EADL1", max_iterations=100)),
    ), SMALL, minimal=True, images=20),
    Comparison("sigma-zero(steps=200)", "l0", (
        Peer("adv-lib", advlib("sigma_zero", num_steps=200)),
        Peer("foolbox's FMN", foolbox("L0FMNAttack", steps=200)),
    ), SMALL, minimal=True, images=40),
    Comparison("nes(queries=1000, samples=50)", "linf", (
        Peer("the formula", lambda m, x, y, eps: reference.nes(m, x, y, eps, 19, 50)),
    ), SMALL, scale=1.5, images=40),
    Comparison("spsa(queries=1300, samples=128)", "linf", (
        Peer("torchattacks", torchattacks("SPSA", nb_iter=10, nb_sample=64, lr=0.01), LAST),
        Peer("advertorch", torched("LinfSPSAAttack", nb_iter=10, nb_sample=64, lr=0.01), LAST),
    ), SMALL, scale=1.5, images=20),
    Comparison("boundary(queries={q})", "l2", (
        Peer("foolbox", foolbox("BoundaryAttack", steps=1000)),
        Peer("ART", art("BoundaryAttack", targeted=False, max_iter=340, num_trial=5, sample_size=5), EARLY),
    ), TWO, minimal=True, images=12),
    Comparison("hopskipjump(queries={q})", "l2", (
        Peer("foolbox", foolbox("HopSkipJumpAttack", steps=6, constraint="l2")),
        Peer("ART", art("HopSkipJump", norm=2, max_iter=6, init_size=20)),
    ), TWO, minimal=True, images=12),
    Comparison("rays(queries=500)", "linf", (
        Peer("the formula", lambda m, x, y, eps: reference.rays(m, x, y, 500)),
    ), TWO, minimal=True, images=20),
    Comparison("vmi-fgsm", "linf", (
        Peer("torchattacks", torchattacks("VMIFGSM", rel=0.1, N=20)),
        Peer("torchattacks as it comes", torchattacks("VMIFGSM", rel=0.1), "5 neighbours, not 20"),
        Peer("the formula", reference.vmi),
    ), ("digits-transfer",)),
    Comparison("dim", "linf", (
        Peer("torchattacks", torchattacks("DIFGSM", rel=0.1, decay=1.0)),
        Peer(
            "torchattacks as it comes", torchattacks("DIFGSM", rel=0.1), "no momentum; shrinks where it should grow"
        ),
        Peer("the formula", reference.di),
    ), ("digits-transfer",)),
    Comparison("autoattack", "linf", (
        Peer("pyautoattack", authors_autoattack("linf")),
        Peer("torchattacks", torchattacks("AutoAttack", norm="Linf", n_classes=10),
            "APGD, APGD-T and FAB take 10 steps, not 100"),
    ), ("digits-robust", "mnist-robust"), images=20),
]  # fmt: skip
