"""Attacks of other libraries, run under our judge: they propose, their model calls are counted, the engine decides.

The library is handed a module that asks the problem's model. Every row it asks about, and every way back, is
counted for its image; of the points asked about, the nearest admissible break is offered beside the image the
library returns. Images go one by one, because most libraries let the images of a batch influence each other.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import random
import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from aresbench.attacks import geometry
from aresbench.attacks.base import Attack, Problem, State
from aresbench.core.errors import AresError, SpecError, UnknownName, did_you_mean
from aresbench.core.spec import parse_call, parse_value

NORMS = ("linf", "l2", "l1", "l0")


class Watched(nn.Module):
    """The problem's model as another library sees it, for one image: each call is counted, each answer looked at.

    Args:
        problem: whose model is asked.
        index: the image that pays.
    """

    def __init__(self, problem: Problem, index: int) -> None:
        super().__init__()
        self.problem, self.index = problem, index
        self.clean = problem.x[index : index + 1]
        # Libraries look for the device of the first parameter.
        self.place = nn.Parameter(torch.zeros(0, device=self.clean.device), requires_grad=False)
        self.nearest, self.far = self.clean, float("inf")
        self.logits: Tensor | None = None
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.to(self.clean.dtype)
        owner = torch.full((len(rows),), self.index, device=rows.device)
        if torch.is_grad_enabled() and rows.requires_grad:
            rows = rows.view_as(rows)
            rows.register_hook(lambda gradient: gradient.contiguous())  # libraries call .view on it
            logits = self.problem.differentiable(self._laid_out(rows), owner)
        else:
            logits = self.problem.query(self._laid_out(rows), owner)
        self._look(rows.detach(), logits.detach(), owner)
        return logits

    def _laid_out(self, rows: Tensor) -> Tensor:
        last = self.clean.is_contiguous(memory_format=torch.channels_last)
        return rows.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def _look(self, rows: Tensor, logits: Tensor, owner: Tensor) -> None:
        """Remember the nearest break inside budget and box."""
        if rows.shape[1:] != self.clean.shape[1:]:
            return
        reached = self.problem.adversarial(logits, owner)
        if not reached.any():
            return
        low, high = geometry.extent(rows)
        far = geometry.distance(rows, self.clean, self.problem.norm)
        good = reached & (low >= 0) & (high <= 1) & (far <= geometry.allowance(self.problem.eps[owner]))
        best = int(torch.where(good, far, torch.inf).argmin())
        if good[best] and float(far[best]) < self.far:
            self.nearest, self.logits, self.far = rows[best : best + 1], logits[best : best + 1], float(far[best])


@dataclass(frozen=True)
class Foreign(Attack):
    """What attacks of other libraries share.

    Args:
        attack: a call in the library's own words, without model, images, budget and norm, which the threat gives.
    """

    attack: str

    package: ClassVar[str]
    _norm_of: ClassVar[dict[str, str]] = {}
    _bounded: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        call = parse_call(self.attack)
        if call.args:
            raise SpecError(f"{call.args[0]!r} in {self.attack!r} has no name", f"write {call.name}(setting=…)")
        inner = ", ".join(f"{name}={value}" for name, value in call.kwargs.items())
        object.__setattr__(self, "attack", f"{call.name}({inner})" if inner else call.name)
        # The card is the default's; this object's facts are those of the attack inside, as far as they are known.
        if call.name in self._norm_of:
            object.__setattr__(self, "norms", (self._norm_of[call.name],))
        object.__setattr__(self, "kind", self._kind(call.name))

    @classmethod
    @abstractmethod
    def _kind(cls, name: str) -> str:
        """``bounded`` or ``minimal``."""

    @abstractmethod
    def _run(self, model: Watched, x: Tensor, y: Tensor, target: Tensor | None, eps: float, seed: int) -> Tensor:
        """The image the library returns for one image [1, C, H, W]."""

    @property
    def total_steps(self) -> int:
        return 1

    @property
    def inside(self) -> str:
        """The name of the library's attack."""
        return parse_call(self.attack).name

    def start(self, problem: Problem) -> State:
        self._found(self._library())
        return State(torch.zeros_like(problem.y))

    def step(self, problem: Problem, state: State) -> State:
        returned, nearest = problem.x.clone(), problem.x.clone()
        logits = torch.full((len(problem.x), problem.num_classes), torch.nan, device=problem.x.device)
        seeds = problem.streams.bits("foreign", 1)[:, 0].tolist()
        for i, seed in enumerate(seeds):
            watched = Watched(problem, i)
            found = self._ask(problem, watched, i, seed & (2**63 - 1))
            if found is not None:
                returned[i] = found
            nearest[i] = found if found is not None and watched.logits is None else watched.nearest[0]
            logits[i] = torch.nan if watched.logits is None else watched.logits[0]
        # What the library returns is judged as it is: outside the budget it is rejected and counted.
        problem.offer(returned, problem.query(returned))
        problem.offer(nearest, logits)  # logits of NaN prove nothing
        return state

    def _ask(self, problem: Problem, watched: Watched, i: int, seed: int) -> Tensor | None:
        """One image's answer, or ``None`` where the library found no place to start or returned no image."""
        x = watched.clean.contiguous()
        target = None if problem.target is None else problem.target[i : i + 1]
        try:
            with _randomness(seed), torch.enable_grad(), contextlib.redirect_stdout(io.StringIO()):
                found = self._run(watched, x.clone(), problem.y[i : i + 1], target, float(problem.eps[i]), seed)
        except (AresError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:
            if self._no_start(error):
                problem.give_up(torch.arange(len(problem.x), device=x.device) == i)
                return None
            raise SpecError(
                f"{self.inside} of {self.package} failed: {type(error).__name__}: {error}",
                f"check its settings: {self.attack}",
            ) from error
        if found.shape != x.shape:
            raise SpecError(f"{self.inside} of {self.package} returned {tuple(found.shape)} for {tuple(x.shape)}")
        found = found.detach().to(x.dtype)[0]
        return found if bool(torch.isfinite(found).all()) else None

    @staticmethod
    def _no_start(error: Exception) -> bool:
        """Does the error say that no starting point was found for the image?"""
        return "init_attack failed" in str(error)

    def _library(self) -> Any:
        """The module that holds the library's attacks, imported now.

        Raises:
            SpecError: it is not installed, or lacks something itself.
        """
        module = {"adv-lib": "adv_lib.attacks", "foolbox": "foolbox"}.get(self.package, self.package)
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            lacks = "is not installed" if error.name == module.partition(".")[0] else f"cannot find {error.name!r}"
            raise SpecError(f"{self.package} {lacks}", f"pip install {self.package}") from error

    def _found(self, library: Any) -> Callable[..., Any]:
        """The library's attack by its name."""
        found = getattr(library, self.inside, None)
        if not callable(found):
            public = [name for name, value in vars(library).items() if callable(value) and not name.startswith("_")]
            raise UnknownName(f"{self.package} has no attack {self.inside!r}", did_you_mean(self.inside, public))
        return found

    def _settings(self, found: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
        """The user's settings and those that the threat gives, of which each is given once.

        Args:
            given: what the threat gives, by all names it may have.

        Raises:
            SpecError: a setting the attack does not have, or one that the threat gives.
        """
        known = inspect.signature(found).parameters
        mine = {unicodedata.normalize("NFKC", k): parse_value(v) for k, v in parse_call(self.attack).kwargs.items()}
        for name in mine:
            if name in given:
                raise SpecError(f"{name} of {self.inside} is given by the threat", "leave it out")
            if name not in known and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
                raise SpecError(f"{self.inside} of {self.package} has no setting {name!r}", did_you_mean(name, known))
        return {**{name: value for name, value in given.items() if name in known}, **mine}

    def _refuse_norm(self, norm: str) -> SpecError:
        return SpecError(f"{self.inside} of {self.package} does not search under {norm}")


@dataclass(frozen=True)
class TorchAttacks(Foreign):
    """An attack of torchattacks under our judge, as a second opinion (Kim, 2020).

    The threat gives eps, norm and target; ``attack`` says the rest in the library's words:
    ``torchattacks(attack=PGD(steps=10, alpha=2/255))``. Norms and kind are those of the attack inside. Draws are
    keyed by the image. One forward pass more asks about the image it returns.

    Args:
        attack: class and settings, as for ``torchattacks.PGD(model, …)``.
    """

    attack: str = "PGD"

    norms: ClassVar[tuple[str, ...]] = ("linf",)
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    package: ClassVar[str] = "torchattacks"
    paper: ClassVar[str] = "H. Kim. Torchattacks: a PyTorch Repository for Adversarial Attacks. 2020. arXiv:2010.01950"
    choose_when: ClassVar[str] = "you want to see what an attack of torchattacks is worth, judged and counted like ours"

    _norm_of: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("PGDL2", "PGDRSL2", "CW", "DeepFool"), "l2"),
        **dict.fromkeys(("EADL1", "EADEN"), "l1"),
        **dict.fromkeys(("JSMA", "OnePixel", "Pixle", "SparseFool"), "l0"),
    }
    _flexible: ClassVar[tuple[str, ...]] = ("APGD", "APGDT", "AutoAttack", "FAB", "Square")
    _minimal: ClassVar[tuple[str, ...]] = (
        "CW", "DeepFool", "EADL1", "EADEN", "JSMA", "OnePixel", "Pixle", "SparseFool",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inside in self._flexible:
            object.__setattr__(self, "norms", ("linf", "l2"))

    @classmethod
    def _kind(cls, name: str) -> str:
        return "minimal" if name in cls._minimal else "bounded"

    def _run(self, model: Watched, x: Tensor, y: Tensor, target: Tensor | None, eps: float, seed: int) -> Tensor:
        found = self._found(self._library())
        threat = {"eps": eps, "max_epsilon": eps, "norm": {"linf": "Linf", "l2": "L2"}.get(model.problem.norm)}
        settings = self._settings(found, {**threat, "n_classes": model.problem.num_classes, "seed": seed % 2**32})
        attack = found(model, **settings)
        if target is not None:
            attack.set_mode_targeted_by_label(quiet=True)
        return attack(x, y if target is None else target)


@dataclass(frozen=True)
class Foolbox(Foreign):
    """An attack of Foolbox under our judge, as a second opinion (Rauber, Zimmermann, Bethge and Brendel, 2020).

    The threat gives eps, norm and target; ``attack`` says the rest in the library's words:
    ``foolbox(attack=LinfPGD(steps=40))``. Norms and kind are those of the attack inside. Draws are keyed by the image.
    Foolbox asks again about what it found, and one forward pass more asks about the image it returns. An image without
    a starting point is given up.

    Args:
        attack: class and settings, as for ``foolbox.attacks.LinfPGD(…)``.
    """

    attack: str = "LinfPGD"

    norms: ClassVar[tuple[str, ...]] = ("linf",)
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "bounded"
    revision: ClassVar[int] = 1
    package: ClassVar[str] = "foolbox"
    paper: ClassVar[str] = (
        "J. Rauber, R. Zimmermann, M. Bethge and W. Brendel. Foolbox Native: Fast Adversarial Attacks to Benchmark the "
        "Robustness of Machine Learning Models in PyTorch, TensorFlow, and JAX. JOSS 2020"
    )
    choose_when: ClassVar[str] = "you want to see what an attack of Foolbox is worth, judged and counted like ours"

    _bounded: ClassVar[tuple[str, ...]] = (
        "PGD", "GradientDescent", "BasicIterative", "FGM", "FGSM", "FastGradient", "MI", "Noise", "GenAttack",
        "SparseL1Descent", "SLIDE", "VirtualAdversarial",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        starts = [norm for norm in NORMS if self.inside.lower().startswith(norm)]
        object.__setattr__(self, "norms", tuple(starts) or NORMS)

    @classmethod
    def _kind(cls, name: str) -> str:
        return "bounded" if any(word in name for word in cls._bounded) else "minimal"

    def _found(self, library: Any) -> Callable[..., Any]:
        return super()._found(library.attacks)

    def _run(self, model: Watched, x: Tensor, y: Tensor, target: Tensor | None, eps: float, seed: int) -> Tensor:
        library = self._library()
        found = self._found(library)
        attack = found(**self._settings(found, {}))
        order = getattr(attack.distance, "p", None)
        if order != {"linf": float("inf"), "l2": 2, "l1": 1, "l0": 0}[model.problem.norm]:
            raise self._refuse_norm(model.problem.norm)
        asked = library.PyTorchModel(model, bounds=(0, 1), device=x.device)
        goal = library.criteria.Misclassification(y)
        if target is not None:
            goal = library.criteria.TargetedMisclassification(target)
        limited = isinstance(attack, library.attacks.base.FixedEpsilonAttack)
        _, clipped, _ = attack(asked, x, goal, epsilons=eps if limited else None)
        return clipped


@dataclass(frozen=True)
class AdvLib(Foreign):
    """An attack of adv-lib under our judge, as a second opinion (Rony and Ben Ayed, 2020).

    The threat gives eps, norm and target; ``attack`` says the rest in the library's words:
    ``adv-lib(attack=fmn(steps=100))``. Norms and kind are those of the attack inside. Draws are keyed by the image. One
    forward pass more asks about the image it returns.

    Args:
        attack: function and settings, as for ``adv_lib.attacks.fmn(model, inputs, labels, …)``.
    """

    attack: str = "fmn"

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1", "l0")
    access: ClassVar[str] = "gradient"
    kind: ClassVar[str] = "minimal"
    revision: ClassVar[int] = 1
    package: ClassVar[str] = "adv-lib"
    paper: ClassVar[str] = "J. Rony and I. Ben Ayed. Adversarial Library. 2020. doi:10.5281/zenodo.5815063"
    choose_when: ClassVar[str] = "you want to see what an attack of adv-lib is worth, judged and counted like ours"

    _norm_of: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("carlini_wagner_l2", "ddn", "pdgd", "sdf", "str_attack", "perc_al"), "l2"),
        **dict.fromkeys(("carlini_wagner_linf", "pgd_linf"), "linf"),
        **dict.fromkeys(("fga", "vfga", "sigma_zero"), "l0"),
    }
    _bounded: ClassVar[tuple[str, ...]] = ("apgd", "apgd_targeted", "pgd_linf")

    @classmethod
    def _kind(cls, name: str) -> str:
        return "bounded" if name in cls._bounded else "minimal"

    def _run(self, model: Watched, x: Tensor, y: Tensor, target: Tensor | None, eps: float, seed: int) -> Tensor:
        found, norm = self._found(self._library()), model.problem.norm
        order = {"linf": float("inf"), "l2": 2.0, "l1": 1.0, "l0": 0.0}[norm]
        threat: dict[str, Any] = {"norm": order, "p": order, "distance": norm, "targeted": target is not None}
        if self.inside in self._bounded:  # elsewhere an eps is no budget
            threat |= {"eps": eps, "ε": eps}
        settings = self._settings(found, {**threat, "num_classes": model.problem.num_classes})
        if target is not None and "targeted" not in settings:
            raise SpecError(f"{self.inside} of adv-lib knows no targets")
        return found(model, x, y if target is None else target, **settings)


@contextlib.contextmanager
def _randomness(seed: int) -> Iterator[None]:
    """Global random states, from which libraries draw, that begin at ``seed``; the user's are put back."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
