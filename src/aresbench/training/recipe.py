"""A recipe: everything that decides what weights a training ends with, in one small readable file."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from aresbench.core.builtin import file_names, read_file
from aresbench.core.errors import SpecError, did_you_mean
from aresbench.core.spec import parse_value
from aresbench.training.checks import at_least, named
from aresbench.training.recipe_parts import (
    Augment,
    Average,
    Data,
    Engine,
    Machine,
    Model,
    Optimizer,
    Schedule,
    Threat,
    Watch,
)


@dataclass(frozen=True)
class Recipe:
    """A training, declared: model, data, augmentation, threat, method, optimiser, schedule, averaging.

    Args:
        name, title, paper, notes: what it is called, in a line; where it is from; where it departs from there.
        method: training method of ``aresbench list methods`` with settings, e.g. ``trades(beta=6)``.
        perturb: adversarial weight perturbation on top of it, e.g. ``awp(gamma=0.005)``; empty: none.
        seed: of every random draw.
    """

    model: Model
    data: Data
    schedule: Schedule
    name: str = ""
    title: str = ""
    paper: str = ""
    notes: tuple[str, ...] = ()
    method: str = "adversarial"
    perturb: str = ""
    seed: int = 0
    augment: Augment = field(default_factory=Augment)
    threat: Threat = field(default_factory=Threat)
    optimizer: Optimizer = field(default_factory=Optimizer)
    average: Average = field(default_factory=Average)
    engine: Engine = field(default_factory=Engine)
    watch: Watch = field(default_factory=Watch)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)
        named("methods", "method", self.method)
        part = self.engine.batch // self.engine.accumulate
        if (self.augment.mixup or self.augment.cutmix) and part % 2:
            raise SpecError(
                f"mixing pairs images, and batches of {part} images leave one over",
                "make engine.batch / engine.accumulate even",
            )

    @property
    def lr(self) -> float:
        """The learning rate after scaling by the batch."""
        scale = self.engine.batch / self.optimizer.lr_batch if self.optimizer.lr_batch else 1.0
        return self.optimizer.lr * scale

    def identity(self) -> dict[str, Any]:
        """What decides the weights, as plain data."""
        words = ("name", "title", "paper", "notes", "machine")
        return {key: value for key, value in plain(self).items() if key not in words}

    @property
    def hash(self) -> str:
        """12 hex digits that change with anything that decides the weights."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def toml(self) -> str:
        """The whole recipe, every setting written out; ``read_recipe`` reads it back."""
        lines: list[str] = []
        tables: dict[str, Any] = plain(self)
        lines += [f"{key} = {_toml(value)}" for key, value in tables.items() if not isinstance(value, dict)]
        for key, value in tables.items():
            if isinstance(value, dict):
                lines += ["", f"[{key}]", *(f"{name} = {_toml(item)}" for name, item in value.items())]
        return "\n".join(lines) + "\n"


def plain(value: Any) -> Any:
    """A recipe (or a part of it) as dictionaries, lists, numbers and texts."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # TOML's numbers, truth values and basic strings are JSON's


def recipe_names() -> list[str]:
    """Names of the built-in recipes."""
    return file_names("recipes")


def load_recipe(name: str | Path, changes: Sequence[str] | Mapping[str, Any] = ()) -> Recipe:
    """A built-in recipe by name, or one of your own from a ``.toml`` file, with changes.

    Args:
        name: ``digits-pgd``, ``./mine.toml``.
        changes: ``["schedule.epochs=10", "threat.attack=pgd(steps=5)"]``, or the same as a mapping.

    Raises:
        UnknownName: no such recipe or file.
        SpecError: a key or a value the recipe does not know; the nearest right key is named.
    """
    text = str(name)
    raw = read_file("recipes", text, "`aresbench list recipes` shows them all")
    raw.setdefault("name", Path(text).stem)
    pairs = changes.items() if isinstance(changes, Mapping) else map(_pair, changes)
    for key, value in pairs:
        _put(raw, key, value, text)
    return read_recipe(raw, text)


def read_recipe(raw: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from its parsed TOML; ``where`` names it in errors.

    Raises:
        SpecError: an unknown key, a missing one, or a value of the wrong kind.
    """
    recipe: Recipe = _read(Recipe, raw, where, "")
    return recipe


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SpecError(f"{text!r} is not a change to a recipe", "write key=value, e.g. schedule.epochs=10")
    return key.strip(), parse_value(value)


def _keys() -> dict[str, list[str]]:
    """The keys of each part; of the recipe itself under an empty name."""
    hints = get_type_hints(Recipe)
    parts = {name: [f.name for f in fields(kind)] for name, kind in hints.items() if is_dataclass(kind)}
    return {"": [f.name for f in fields(Recipe)], **parts}


def _put(raw: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Write a change into the parsed file; the reader then judges it as if it had stood there."""
    known = _keys()
    part, _, name = key.rpartition(".")
    if key.startswith("model.arguments."):
        part, name = "model.arguments", key.removeprefix("model.arguments.")
    elif part not in known or name not in known[part]:
        raise SpecError(f"{where}: there is no setting {key!r}", _near(key))
    at = raw
    for step in filter(None, part.split(".")):
        at = at.setdefault(step, {})
        if not isinstance(at, dict):
            raise SpecError(f"{where}: {step} is a part of the recipe, not a value", f"write [{step}] and its keys")
    at[name] = value


def _near(key: str) -> str:
    """The nearest right keys: those of that very name in other parts, else those that look alike."""
    known = _keys()
    paths = [f"{part}.{name}" if part else name for part, names in known.items() for name in names]
    part, _, last = key.rpartition(".")
    if part and part in known and (near := did_you_mean(last, known[part])):
        return near
    same = [path for path in paths if path.rpartition(".")[2] == last]
    if same:
        likely = difflib.get_close_matches(key, same, n=1, cutoff=0.75) if part and part not in known else []
        return f"write {' or '.join(likely or same)}"
    if not part and (alike := difflib.get_close_matches(key, known[""], n=1, cutoff=0.8)):
        return f"did you mean {alike[0]!r}?"
    ends = {path.rpartition(".")[2]: path for path in paths}
    if near := did_you_mean(key, paths):
        return near
    close = difflib.get_close_matches(last, ends, n=1, cutoff=0.6)
    return f"did you mean {ends[close[0]]!r}?" if close else f"its parts are {', '.join(filter(None, known))}"


def _read(kind: Any, raw: Any, where: str, section: str) -> Any:
    """A dataclass from a mapping whose keys and kinds are checked."""
    if not isinstance(raw, Mapping):
        raise SpecError(f"{where}: {section} is a part of the recipe, not a value", f"write [{section}] and its keys")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    inside = f"[{section}]: " if section else ""
    for key in raw:
        if key not in known:
            full = f"{section}.{key}" if section else key
            raise SpecError(f"{where}: {inside}unknown key {key!r}", _near(full))
    values: dict[str, Any] = {}
    for name, f in known.items():
        if name in raw:
            full = f"{section}.{name}" if section else name
            values[name] = (
                _read(hints[name], raw[name], where, name)
                if is_dataclass(hints[name])
                else _cast(hints[name], raw[name], where, full)
            )
        elif f.default is MISSING and f.default_factory is MISSING:
            raise SpecError(
                f"{where}: {inside}{name} is missing",
                f"write [{name}]" if is_dataclass(hints[name]) else f"write {name} = …",
            )
    try:
        return kind(**values)
    except SpecError as error:
        raise SpecError(f"{where}: {error.problem}", error.remedy) from None


_WORDS = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", dict: "a table"}


def _cast(hint: Any, value: Any, where: str, key: str) -> Any:
    """The value in the kind a field has; whole numbers may stand for fractions, never the other way round."""
    kind = get_origin(hint) or hint
    if kind is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_cast(get_args(hint)[0], item, where, key) for item in items)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        return float(value)
    if isinstance(value, kind) and kind is not float and (kind is bool) == isinstance(value, bool):
        return value
    raise SpecError(f"{where}: {key} = {value!r} is not {_WORDS[kind]}")
