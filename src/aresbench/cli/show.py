"""``aresbench show``: what a thing is, its settings, whom to cite, when to choose it, how to call it."""

from __future__ import annotations

import argparse
from typing import Any

from aresbench.cli import catalogue
from aresbench.cli.parser import print_columns, print_json, print_wrapped
from aresbench.core.errors import UnknownName, did_you_mean


def add(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "show",
        help="what a thing is, its settings, whom to cite, how to call it",
        description="Show an attack, corruption, dataset, model source, suite, training method or recipe.\n"
        "Where a name means two things, say which: `aresbench show dataset samples`.",
    )
    parser.add_argument("thing", nargs="+", metavar="[KIND] THING", help="e.g. pgd, fog, quickstart, dataset samples")
    parser.add_argument("--json", action="store_true", help="for another program to read")
    parser.set_defaults(call=call)


def call(args: argparse.Namespace) -> int:
    """Print one card."""
    *kind, thing = args.thing
    if len(kind) > 1:
        raise UnknownName("`aresbench show` takes one thing at a time", f"aresbench show {thing}")
    found, name = catalogue.locate(thing, _kind(kind[0]) if kind else None)
    card = catalogue.describe(found, name)
    if found == "models" and thing != name:
        one = catalogue.describe_model(thing)
        card = one if "facts" in one else {**card, "call": one["call"]}
    if args.json:
        print_json(card)
    elif card["kind"] == "suite":
        _print_suite(card)
    elif card["kind"] == "recipe":
        _print_recipe(card)
    else:
        _print_component(card)
    return 0


def _kind(word: str) -> str:
    """``attack``, ``attacks``, ``model`` … as the name of a table."""
    plural = word if word.endswith("s") else word + "s"
    if plural not in catalogue.KINDS:
        hint = did_you_mean(plural, catalogue.KINDS) or f"kinds are {', '.join(catalogue.KINDS)}"
        raise UnknownName(f"there is no kind of thing called {word!r}", hint)
    return plural


def _print_component(card: dict[str, Any]) -> None:
    print(f"{card['name']} · {card['kind']}\n{card['summary']}")
    if card["doc"]:
        print(f"\n{card['doc']}")
    if card["facts"]:
        print()
        known = {key: value for key, value in card["facts"].items() if value not in ("", [], {})}
        print_columns([(key.replace("_", " "), _plain(value)) for key, value in known.items()])
    if card["settings"]:
        print("\nsettings")
        rows = [(key, f"= {default}" if default else "(must be given)") for key, default in card["settings"].items()]
        print_columns(rows, "  ")
    _print_calls(card)


def _print_suite(card: dict[str, Any]) -> None:
    print(f"{card['name']} · suite, version {card['version']}\n{card['summary']}\n\ntasks")
    rows = [(t["dataset"], "all" if t["n"] is None else str(t["n"]), t["name"], t["threat"]) for t in card["tasks"]]
    print_columns([("dataset", "n", "task", "threat"), *rows], "  ")
    if card["headline"]:
        print(f"\nheadline  {card['headline']}")
    if card["models"]:
        print("\nmodels, when none is named")
        for model in card["models"]:
            print(f"  {model}")
    _print_calls(card)


def _print_recipe(card: dict[str, Any]) -> None:
    print(f"{card['name']} · recipe {card['hash']}\n{card['summary']}")
    if card["paper"]:
        print(f"\n{card['paper']}")
    for note in card["notes"]:
        print()
        print_wrapped(note)
    print(f"\n{card['recipe']}".rstrip())
    _print_calls(card)


def _print_calls(card: dict[str, Any]) -> None:
    print("\nhow to call it")
    for line in card["call"]:
        print(f"  {line}")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key}: {_plain(one)}" if isinstance(one, dict) else f"{key} {one}" for key, one in value.items()
        )
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
