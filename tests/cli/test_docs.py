"""What README and documentation say can be done can be done: commands parse, names exist, links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

import aresbench
from aresbench.cli.main import build_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "reference" not in page.parts]
MADE_LATER = ("docs/images/report.png", "reference/", "example/")


def _blocks(page: Path, language: str) -> list[str]:
    """The page's code blocks in a language; ``""`` for those that name none."""
    parts = re.split(r"^```(.*)\n", page.read_text("utf-8"), flags=re.MULTILINE)
    return [text for word, text in zip(parts[1::4], parts[2::4], strict=True) if word == language]


def _commands() -> list[str]:
    lines = [line for page in PAGES for block in _blocks(page, "") for line in block.splitlines()]
    return sorted({line.partition("  #")[0].strip() for line in lines if line.startswith("aresbench ")})


@pytest.mark.parametrize("line", _commands())
def test_every_command_that_is_shown_parses(line: str) -> None:
    build_parser().parse_args(shlex.split(line)[1:])


def test_there_are_commands_to_parse() -> None:
    assert {line.split()[1] for line in _commands()} >= {"run", "report", "list", "show", "compare", "doctor"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_of_the_front_door_that_is_shown_exists(page: Path) -> None:
    for block in _blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ab":
                assert node.attr in aresbench.__all__, f"ab.{node.attr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not target.startswith(("http", *MADE_LATER)):
            assert (page.parent / target).exists(), target
