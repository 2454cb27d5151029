"""Suites and recipes: small TOML files of this package, or of the user's own."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from aresbench.core.errors import SpecError, UnknownName, did_you_mean


def file_names(room: str) -> list[str]:
    """Names of the files of this package in a room, ``suites`` or ``recipes``."""
    folder = resources.files("aresbench") / room
    return sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".toml"))


def read_file(room: str, name: str, otherwise: str) -> dict[str, Any]:
    """What is in a file of this package, by name, or in one of the user's own, by its path.

    Args:
        room: ``suites`` or ``recipes``.
        name: a name, or a path that ends in ``.toml``.
        otherwise: the remedy where no right name is near.

    Raises:
        UnknownName: no such name or file.
        SpecError: the file is not valid TOML.
    """
    what, known = room.removesuffix("s"), file_names(room)
    if name.endswith(".toml"):
        path = Path(name).expanduser()
        if not path.is_file():
            raise UnknownName(f"there is no {what} file {name}", f"the path is relative to {Path.cwd()}")
        text = path.read_text("utf-8")
    elif name in known:
        text = (resources.files("aresbench") / room / f"{name}.toml").read_text("utf-8")
    else:
        raise UnknownName(f"there is no {what} called {name!r}", did_you_mean(name, known) or otherwise)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{name} is not valid TOML: {error}") from None
