"""From a text such as ``trades(beta=6)`` to a training method."""

from __future__ import annotations

from dataclasses import MISSING, fields

from aresbench.attacks.load import make_attack
from aresbench.core import registry
from aresbench.core.errors import SpecError, did_you_mean
from aresbench.core.spec import parse_call, parse_value
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
    known = {f.name: f for f in fields(found)}
    if call.args:
        first = next(iter(known), "setting")
        raise SpecError(f"{call.args[0]!r} in {spec!r} has no name", f"write {call.name}({first}={call.args[0]})")
    for name in call.kwargs:
        if name not in known:
            raise SpecError(
                f"{call.name} has no setting {name!r}",
                did_you_mean(name, known) or f"its settings are {', '.join(known) or 'none'}",
            )
    missing = [name for name, f in known.items() if f.default is MISSING and name not in call.kwargs]
    if missing:
        raise SpecError(f"{call.name} needs {', '.join(missing)}", f"write {call.name}({missing[0]}=…)")
    return found(**{name: parse_value(text) for name, text in call.kwargs.items()})


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
