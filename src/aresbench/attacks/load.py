"""From text to attack and back: ``pgd(steps=50)``, ``./mine.py:MyAttack(strength=2)``."""

from __future__ import annotations

import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from aresbench.attacks.base import Attack
from aresbench.core import registry
from aresbench.core.errors import SpecError, did_you_mean
from aresbench.core.spec import format_value, parse_call, parse_value


def make_attack(spec: str | Attack) -> Attack:
    """The attack a text describes, or the attack given.

    Args:
        spec: a registered name, ``./file.py:Class`` or ``package.module:Class``, with settings in
            brackets where they differ from the defaults: ``apgd-ce(steps=50)``.

    Raises:
        UnknownName: no such attack (the nearest right name is told).
        SpecError: malformed text, an unknown setting, a value the attack refuses, or an object that is
            no attack.
    """
    if isinstance(spec, Attack):
        return spec
    call = parse_call(spec)
    found = registry.find("attacks", call.name)
    if not (isinstance(found, type) and issubclass(found, Attack)):
        raise SpecError(f"{call.name} is not an attack", "name a subclass of aresbench.attacks.base.Attack")
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
    missing = [
        f.name
        for f in known.values()
        if f.default is MISSING and f.default_factory is MISSING and f.name not in call.kwargs
    ]
    if missing:
        raise SpecError(f"{call.name} needs {', '.join(missing)}", f"write {call.name}({missing[0]}=…)")
    return found(**{name: _frozen(parse_value(value)) for name, value in call.kwargs.items()})


def describe(attack: Attack) -> str:
    """The one text under which an attack's results are kept; ``make_attack`` reads it back.

    The first setting (how long the attack runs) is always written, the others where they differ from
    their defaults, in the order of the class. A class from a file is written with the file's name
    only: ``./mine.py:MyAttack``.
    """
    texts = []
    for place, f in enumerate(fields(attack)):
        value = getattr(attack, f.name)
        if isinstance(f.default, float) and isinstance(value, int):
            value = float(value)  # alpha=2 and alpha=2.0 are one attack
        if place == 0 or value != f.default:
            texts.append(f"{f.name}={_quoted(value)}")
    name = name_of(type(attack))
    return f"{name}({', '.join(texts)})" if texts else name


def name_of(kind: type[Attack]) -> str:
    """The registered name of an attack class, else where it can be found."""
    where = f"{kind.__module__}:{kind.__qualname__}"
    for name, path in registry.table("attacks").items():
        if path == where:
            return name
    module = sys.modules.get(kind.__module__)
    if module is not None and module.__file__ and not _importable(kind.__module__):
        return f"./{Path(module.__file__).name}:{kind.__qualname__}"
    return where


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
