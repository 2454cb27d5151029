"""An argument parser that suggests the nearest right word, and the output habits all verbs share."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from aresbench.core.errors import did_you_mean


class Parser(argparse.ArgumentParser):
    """argparse with "did you mean", no abbreviated options, and help that keeps its line breaks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        hint = self._hint(message)
        self.exit(2, f"aresbench: {message}\n" + (f"  → {hint}\n" if hint else f"  → {self.prog} --help\n"))

    def _hint(self, message: str) -> str:
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            return did_you_mean(choice.group(1), re.findall(r"[\w-]+", choice.group(2)))
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        if unknown:
            options = [o for p in (self, *self._verbs()) for a in p._actions for o in a.option_strings]
            return did_you_mean(unknown.group(1).partition("=")[0], dict.fromkeys(options))
        return ""

    def _verbs(self) -> list[argparse.ArgumentParser]:
        groups = [a for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        return [parser for group in groups for parser in group.choices.values()]


def print_json(value: Any) -> None:
    """Print ``value`` as JSON for another program to read."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    print()


def print_columns(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Print rows in aligned columns; the last column is shortened to the terminal (never when piped)."""
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in rows:
        line = indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(line[: room - 1] + "…" if room and len(line) > room else line)


def print_table(table: Any) -> None:
    """Print a rich table as wide as the terminal; in a pipe as wide as it needs to be."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(table)


def print_wrapped(text: str, indent: str = "") -> None:
    """Print a paragraph wrapped at 100 characters."""
    print(textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=indent))


def readable_size(count: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def count(text: str) -> int:
    """A whole number above 0, as an option takes it."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value
