"""The grammar of specs: ``name``, ``name(setting=value, …)``, ``scheme:rest``. No eval anywhere."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from fractions import Fraction
from typing import Any

from aresbench.core.errors import SpecError, did_you_mean

_OPEN, _CLOSE = "([", ")]"


@dataclass(frozen=True)
class Call:
    """A name with arguments, e.g. ``pgd(steps=20)``; values are texts still to be read."""

    name: str
    args: tuple[str, ...] = ()
    kwargs: dict[str, str] = field(default_factory=dict)


def split_top(text: str, separator: str) -> list[str]:
    """Split at ``separator`` where no bracket is open and no quote either; pieces are stripped.

    Raises:
        SpecError: brackets or quotes do not close.
    """
    pieces, depth, quote, start = [], [], "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in _OPEN:
            depth.append(_CLOSE[_OPEN.index(char)])
        elif char in _CLOSE:
            if not depth or depth.pop() != char:
                raise SpecError(f"{text!r} has a {char!r} too many at position {i + 1}")
        elif char == separator and not depth:
            pieces.append(text[start:i].strip())
            start = i + 1
    if depth or quote:
        raise SpecError(f"{text!r} has a bracket or quote that is never closed", f"add {(depth or [quote])[-1]!r}")
    pieces.append(text[start:].strip())
    return pieces


def parse_call(text: str) -> Call:
    """Read ``name`` or ``name(value, key=value)``.

    Raises:
        SpecError: malformed text.
    """
    text = text.strip()
    if not text:
        raise SpecError("a name is missing")
    if not text.endswith(")"):
        split_top(text, ",")  # refuses brackets that do not close
        return Call(text)
    name, _, inner = text.partition("(")
    args: list[str] = []
    kwargs: dict[str, str] = {}
    pieces = split_top(inner[:-1], ",")
    if pieces == [""]:
        pieces = []
    for piece in pieces:
        key, *value = split_top(piece, "=")
        if not piece or (value and not key.isidentifier()) or len(value) > 1:
            raise SpecError(f"{piece!r} in {text!r} is not a setting", "write key=value")
        if value:
            if key in kwargs:
                raise SpecError(f"{key!r} is given twice in {text!r}")
            kwargs[key] = value[0]
        elif kwargs:
            raise SpecError(f"in {text!r}, {piece!r} without a key follows settings with keys")
        else:
            args.append(piece)
    return Call(name.strip(), tuple(args), kwargs)


def settings_of(call: Call, component: Any, text: str) -> dict[str, Any]:
    """The settings that a call gives to a component, read; the component itself still judges their values.

    Args:
        call: e.g. of ``pgd(steps=20)``.
        component: a dataclass, or an object of one, whose own settings then stand for those not given.
        text: what the call was read from, for errors.

    Raises:
        SpecError: a value without a name, a setting the component does not have (the nearest right word is named), or
            one that is missing.
    """
    known = {f.name: f for f in fields(component)}
    if call.args:
        first = next(iter(known), "setting")
        raise SpecError(f"{call.args[0]!r} in {text!r} has no name", f"write {call.name}({first}={call.args[0]})")
    for name in call.kwargs:
        if name not in known:
            raise SpecError(
                f"{call.name} has no setting {name!r}",
                did_you_mean(name, known) or f"its settings are {', '.join(known) or 'none'}",
            )
    needed = known.values() if isinstance(component, type) else ()
    missing = [
        f.name for f in needed if f.default is MISSING and f.default_factory is MISSING and f.name not in call.kwargs
    ]
    if missing:
        raise SpecError(f"{call.name} needs {', '.join(missing)}", f"write {call.name}({missing[0]}=…)")
    return {name: parse_value(value) for name, value in call.kwargs.items()}


def parse_value(text: str) -> Any:
    """Read a setting's value: number, fraction ``4/255`` (as float), true/false/none, list, or text."""
    text = text.strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() == "none":
        return None
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1].strip()
        return [parse_value(v) for v in split_top(inner, ",")] if inner else []
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    try:
        first, *rest = [Fraction(part.strip()) for part in text.split("/")]
        for part in rest:
            first /= part
        return float(first)
    except (ValueError, ZeroDivisionError):
        return text


def format_value(value: Any) -> str:
    """The text that ``parse_value`` reads back as ``value``."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(format_value(v) for v in value) + "]"
    return repr(value) if isinstance(value, float) else str(value)
