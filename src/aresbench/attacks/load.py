"""From text to attack and back: ``pgd(steps=50)``, ``./mine.py:MyAttack(strength=2)``."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from aresbench.attacks.base import Attack, Ensemble
from aresbench.core import registry
from aresbench.core.errors import SpecError
from aresbench.core.spec import format_value, parse_call, parse_value, settings_of


def make_attack(spec: str | Attack) -> Attack:
    """The attack a text describes, or the attack given.

    Raises:
        UnknownName, SpecError: as ``make``; also where the text names an ensemble.
    """
    made = make(spec)
    if isinstance(made, Ensemble):
        raise SpecError(
            f"{spec!r} is a list of attacks, not one",
            "it may stand wherever a list may: adversary(…, [apgd-ce, square])",
        )
    return made


def members(spec: str | Attack | Ensemble, norm: str) -> dict[str, Attack]:
    """The attacks behind a spec under a norm, by their canonical texts, in order: one, or those of an ensemble.

    Raises:
        UnknownName, SpecError: as ``make``; also where one does not know the norm.
    """
    made = make(spec)
    if norm not in made.norms:
        raise SpecError(
            f"{spec if isinstance(spec, str) else describe(made)} does not attack under {norm}",
            f"it knows {', '.join(made.norms)}",
        )
    if isinstance(made, Ensemble):
        return {text: attack for part in made.attacks(norm) for text, attack in members(part, norm).items()}
    return {describe(made): made}


def make(spec: str | Attack | Ensemble) -> Attack | Ensemble:
    """The attack or ensemble a text describes, or the object given.

    Args:
        spec: a registered name, ``./file.py:Class`` or ``package.module:Class``, with settings in
            brackets where they differ from the defaults: ``apgd-ce(steps=50)``. In place of a class there may
            be an object made of one, whose settings are then the defaults.

    Raises:
        UnknownName: no such attack (the nearest right name is told).
        SpecError: malformed text, an unknown setting, a value the attack refuses, or an object that is
            no attack.
    """
    if isinstance(spec, Attack | Ensemble):
        return spec
    call = parse_call(spec)
    found = registry.find("attacks", call.name)
    given = isinstance(found, Attack | Ensemble)
    if not given and not (isinstance(found, type) and issubclass(found, Attack | Ensemble)):
        raise SpecError(f"{call.name} is not an attack", "name a subclass of aresbench.attacks.base.Attack")
    settings = {name: _frozen(value) for name, value in settings_of(call, found, spec).items()}
    return replace(found, **settings) if given else found(**settings)


def describe(attack: Attack | Ensemble) -> str:
    """The one text under which an attack's results are kept; ``make_attack`` reads it back.

    The first setting (how long the attack runs) is always written, the others where they differ from
    their defaults, in the order of the class. Where a registered object has the same ones, its name stands
    for them: ``dim(steps=20)``. A class from a file is written with the file's name only: ``./mine.py:MyAttack``.
    """
    texts = []
    name = _object_like(attack)
    for place, f in enumerate(fields(attack)):
        value = getattr(attack, f.name)
        if isinstance(f.default, float) and isinstance(value, int):
            value = float(value)  # alpha=2 and alpha=2.0 are one attack
        if place == 0 or (name is None and value != f.default):
            texts.append(f"{f.name}={_quoted(value)}")
    name = name or name_of(type(attack))
    return f"{name}({', '.join(texts)})" if texts else name


def name_of(kind: type[Attack | Ensemble]) -> str:
    """The registered name of an attack class, else where it can be found."""
    where = f"{kind.__module__}:{kind.__qualname__}"
    for name, path in registry.table("attacks").items():
        if path == where:
            return name
    module = sys.modules.get(kind.__module__)
    if module is not None and module.__file__ and not _importable(kind.__module__):
        return f"./{Path(module.__file__).name}:{kind.__qualname__}"
    return where


def _object_like(attack: Attack | Ensemble) -> str | None:
    """The registered object of the attack's class that differs from it in the first setting at most."""
    kind = type(attack)
    first = {f.name: getattr(attack, f.name) for f in fields(attack)[:1]}
    for name, path in registry.table("attacks").items():
        module, _, attribute = path.rpartition(":")
        if module == kind.__module__ and attribute != kind.__qualname__:
            found = registry.find("attacks", name)
            if type(found) is kind and replace(found, **first) == attack:
                return name
    return None


def _frozen(value: Any) -> Any:
    """Lists as tuples: settings are hashable."""
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def _importable(module: str) -> bool:
    """Can another process import the module by this name (false for files loaded by path)?"""
    return not module.startswith("_aresbench_file_")


def _quoted(value: Any) -> str:
    """The value's text, in quotes where a bare text would be read as something else."""
    text = format_value(value)
    if isinstance(value, str) and parse_value(text) != value:
        return f"'{value}'"
    return text
