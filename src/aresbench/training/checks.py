"""What a recipe's values must be; components are looked up by their cards, so that torch is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from aresbench.core.errors import AresError, SpecError, did_you_mean
from aresbench.core.registry import card
from aresbench.core.spec import parse_call


def one_of(key: str, value: str, choices: Sequence[str], verb: str = "is") -> None:
    """Refuse a word that is none of ``choices``."""
    if value not in choices:
        words = ", ".join(repr(choice) for choice in choices)
        raise SpecError(f"{key} = {value!r} {verb} none of {words}", did_you_mean(value, [c for c in choices if c]))


def share(key: str, value: float) -> None:
    """Refuse what is no share of one."""
    if not 0 <= value <= 1:
        raise SpecError(f"{key} = {value} is not between 0 and 1")


def below_one(key: str, value: float) -> None:
    """Refuse what is no share of one, or all of it."""
    if not 0 <= value < 1:
        raise SpecError(f"{key} = {value} is not in [0, 1)")


def above(key: str, value: float) -> None:
    """Refuse what is not positive."""
    if not (value > 0 and isfinite(value)):
        raise SpecError(f"{key} = {value} must be above 0")


def at_least(key: str, value: float, least: float) -> None:
    """Refuse what is too small."""
    if not (value >= least and isfinite(value)):
        raise SpecError(f"{key} = {value} must be at least {least}")


def climbing_attack(key: str, text: str, norms: Sequence[str]) -> None:
    """Refuse an attack that training cannot use, or cannot use under these norms."""
    facts = named("attacks", key, text)
    if facts.get("access", "gradient") != "gradient" or facts.get("kind", "bounded") != "bounded":
        raise SpecError(
            f"{key} = {text!r} is no bounded attack that climbs gradients",
            "training needs one such as pgd(steps=3, rel_step=2/3) or apgd-ce(steps=2)",
        )
    known = facts.get("norms", norms)
    for norm in norms:
        if norm not in known:
            raise SpecError(f"{key} = {text!r} does not attack under {norm}", f"it knows {', '.join(known)}")


def named(kind: str, key: str, text: str) -> dict[str, Any]:
    """The facts on the card of a registered component, whose settings must be its own; of any other nothing is known.

    Raises:
        SpecError: no such component or setting; the nearest right word is named.
    """
    try:
        call = parse_call(text)
        if ":" in call.name:
            return {}
        found = card(kind, call.name)
    except AresError as error:
        raise SpecError(f"{key} = {text!r}: {error.problem}", error.remedy) from None
    for name in call.kwargs:
        if name not in found.settings:
            known = ", ".join(found.settings) or "none"
            raise SpecError(
                f"{key} = {text!r}: {call.name} has no setting {name!r}",
                did_you_mean(name, found.settings) or f"its settings are {known}",
            )
    return found.facts
