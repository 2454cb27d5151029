"""From a text such as ``trades(beta=6)`` to a training method."""

from __future__ import annotations

from aresbench.attacks.load import make_attack
from aresbench.core import registry
from aresbench.core.errors import SpecError
from aresbench.core.spec import parse_call, settings_of
from aresbench.training.methods.base import Method
from aresbench.training.recipe import Recipe


def make_method(spec: str) -> Method:
    """The method a text describes: a registered name or ``./file.py:Class``, with settings in brackets.

    Raises:
        UnknownName: no such method (the nearest right name is told).
        SpecError: malformed text, an unknown or missing setting, or a value the method refuses.
    """
    call = parse_call(spec)
    found = registry.find("methods", call.name)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise SpecError(
            f"{call.name} is no training method", "name a subclass of aresbench.training.methods.base.Method"
        )
    return found(**settings_of(call, found, spec))


def fitting_method(recipe: Recipe) -> Method:
    """The recipe's method, if the rest of the recipe fits it.

    Raises:
        UnknownName, SpecError: as ``make_method``; or the method is made of another attack, or needs whole batches.
    """
    method, threat = make_method(recipe.method), recipe.threat
    name = parse_call(recipe.method).name
    if method.single_step and make_attack(threat.attack) != make_attack(method.single_step):
        raise SpecError(
            f"{name} is made of the attack {method.single_step}, and threat.attack is {threat.attack}",
            f"set threat.attack = {method.single_step}",
        )
    if method.whole and recipe.engine.accumulate > 1:
        raise SpecError(
            f"{name} learns from whole batches, and engine.accumulate = {recipe.engine.accumulate} divides them",
            "set engine.accumulate = 1 and a smaller engine.batch",
        )
    if method.whole and threat.choose == "worst" and len(threat.budgets) > 1:
        raise SpecError(f"{name} attacks no budget but one at a time", "set threat.choose = random or alternate")
    return method
