"""Write the reference pages from the components' own cards: ``python docs/generate_reference.py``.

The pages are made anew at each build and not kept in the repository, so that they cannot disagree with the code.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from aresbench.cli import catalogue
from aresbench.cli.main import build_parser
from aresbench.models.zoo import entries, sources

TARGET = Path(__file__).parent / "reference"


def escape(text: object) -> str:
    """Text that may stand in a table cell."""
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def component_page(kind: str) -> str:
    """One page for all components of a kind."""
    lines = [f"# {kind.capitalize()}", "", f"The same as `aresbench list {kind}` and `aresbench show NAME`.", ""]
    for name in catalogue.names(kind):
        card = catalogue.describe(kind, name)
        lines += [f"## {name}", "", card["summary"], ""]
        lines += BODIES.get(kind, component_body)(card)
        lines += ["```", *card["call"], "```", ""]
    return "\n".join(lines)


def component_body(card: dict[str, Any]) -> list[str]:
    lines = []
    if card["doc"]:
        lines += ["```text", card["doc"], "```", ""]
    if card["settings"]:
        lines += ["| setting | default |", "|---|---|"]
        lines += [f"| `{key}` | `{default or 'must be given'}` |" for key, default in card["settings"].items()]
        lines += [""]
    if card["facts"]:
        lines += ["| | |", "|---|---|"]
        lines += [f"| {key.replace('_', ' ')} | {escape(plain(value))} |" for key, value in card["facts"].items()]
        lines += [""]
    return lines


def zoo_page() -> str:
    """The zoo as one table, from its own file."""
    lines = ["# The zoo", "", "The same as `aresbench list models 'zoo:*'` and `aresbench show zoo:NAME`.", ""]
    lines += ["| `zoo:` | family | M parameters | paradigm | data | weights | licence | published clean / AutoAttack |"]
    lines += ["|---|---|---:|---|---|---|---|---|"]
    for one in entries().values():
        name = f"`{one.name}`" + (" (our choice)" if one.choice == "ours" else "")
        unsure = "" if one.verified else " (architecture unverified)"
        numbers = "; ".join(
            f"{n['clean']} / {n.get('autoattack', '–')} ({source})" for source, n in one.published.items()
        )
        cells = (one.family, f"{one.parameters / 1e6:.1f}", one.paradigm, one.data, f"`{one.weights}`{unsure}")
        lines += [f"| {' | '.join(map(escape, (name, *cells, one.licence, numbers or '–')))} |"]
    lines += ["", "Percentages. Sources:", ""]
    lines += [f"- {source}: {said['title']}; {said['protocol']}." for source, said in sources().items()]
    return "\n".join([*lines, ""])


def suite_body(card: dict[str, Any]) -> list[str]:
    lines = [f"Version {card['version']}, hash `{card['hash']}`.", "", "| dataset | images | task | threat |"]
    lines += ["|---|---|---|---|"]
    lines += [
        f"| {t['dataset']} | {t['n'] or 'all'} | {escape(t['name'])} | `{escape(t['threat'])}` |" for t in card["tasks"]
    ]
    if card["models"]:
        lines += ["", "Models, when none is named: " + ", ".join(f"`{m}`" for m in card["models"]) + "."]
    return [*lines, ""]


def recipe_body(card: dict[str, Any]) -> list[str]:
    about = [card["paper"], *card["notes"]]
    return [*(line for text in about if text for line in (text, "")), "```toml", card["recipe"].rstrip(), "```", ""]


BODIES = {"suites": suite_body, "recipes": recipe_body}


def plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def command_page() -> str:
    """The help texts of all verbs."""
    parser = build_parser()
    lines = ["# Command line", "", "```text", parser.format_help().strip(), "```", ""]
    for name, verb in verbs(parser):
        lines += [f"## {name}", "", "```text", verb.format_help().strip(), "```", ""]
        for action, inner in verbs(verb):
            lines += [f"### {name} {action}", "", "```text", inner.format_help().strip(), "```", ""]
    return "\n".join(lines)


def verbs(parser: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser]]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [item for group in groups for item in group.choices.items()]


def main() -> None:
    TARGET.mkdir(exist_ok=True)
    for kind in catalogue.KINDS:
        (TARGET / f"{kind}.md").write_text(component_page(kind), "utf-8")
    (TARGET / "zoo.md").write_text(zoo_page(), "utf-8")
    (TARGET / "command-line.md").write_text(command_page(), "utf-8")


if __name__ == "__main__":
    main()
