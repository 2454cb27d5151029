"""An adversary made ready: attacks constructed, ensembles taken apart, every text in its one canonical spelling."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aresbench.attacks.base import Attack, Ensemble
from aresbench.attacks.load import describe, make, make_attack, members
from aresbench.core.errors import SpecError
from aresbench.core.threat import Adversary


@dataclass(frozen=True)
class Armed:
    """An adversary and what carries it out.

    Args:
        named: as the task names it, canonically spelled: equal tasks share a cell.
        plan: the same with every ensemble replaced by its attacks.
        attacks: those and the bound, by their texts.
        settings: text → all settings and revision, of attacks, bound and ensembles.
    """

    named: Adversary
    plan: Adversary
    attacks: dict[str, Attack]
    settings: dict[str, dict[str, Any]]


def arm(adversary: Adversary) -> Armed:
    """Make the attacks of an adversary.

    Raises:
        UnknownName, SpecError: an attack that does not exist, that does not know the norm, or a bound that is none.
    """
    norm = adversary.ladder.norm
    made = [make(spec) for spec in adversary.attacks]
    attacks = {text: attack for part in made for text, attack in members(part, norm).items()}
    kinds = {attack.kind for attack in attacks.values()}
    if adversary.surrogates and "minimal" in kinds:
        raise SpecError(
            "an attack that looks for the nearest break ends just beyond it, where another model sees nothing",
            "transfer with an attack that uses the whole budget, e.g. mim",
        )
    bound = adversary.bound
    if all(attack.access != "gradient" for attack in attacks.values()):
        bound = "none"  # a bound with gradients would grant a black-box adversary more than its access
    if kinds == {"minimal"}:
        bound = "none"  # they find the nearest break themselves
    plan = replace(adversary, attacks=tuple(attacks), bound=bound)
    if bound != "none":
        near = make_attack(bound)
        if near.kind != "minimal":
            raise SpecError(
                f"{bound} stays inside a budget; a bound looks for the nearest break at any distance",
                "write e.g. bound=fmn(steps=30), or bound=none",
            )
        if norm not in near.norms:
            raise SpecError(f"the bound {bound} does not search under {norm}", "name another one, or bound=none")
        plan = replace(plan, bound=describe(near))
        attacks[plan.bound] = near
    named = replace(plan, attacks=tuple(describe(part) for part in made))
    settings = {describe(part): record(part) for part in (*made, *attacks.values())}
    return Armed(named, plan, attacks, settings)


def record(attack: Attack | Ensemble) -> dict[str, Any]:
    """All settings of an attack, defaults too, and what version of its numbers this is."""
    found: dict[str, Any] = {"revision": attack.revision, **asdict(attack)}
    module = sys.modules[type(attack).__module__]
    if not module.__name__.startswith("aresbench.") and module.__file__:  # the user's own: its text is its version
        found["source"] = hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()[:12]
    return found
