"""``aresbench list``: what there is, by kind."""

from __future__ import annotations

import argparse
import fnmatch
from typing import Any

from aresbench.cli import catalogue
from aresbench.cli.parser import print_columns, print_json
from aresbench.core.errors import SpecError, UnknownName, did_you_mean
from aresbench.core.registry import ELSEWHERE
from aresbench.data.licence import commercial


def add(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("list", help="what there is", description="What there is, by kind.")
    parser.add_argument("kind", choices=catalogue.KINDS, metavar="KIND", help=", ".join(catalogue.KINDS))
    parser.add_argument("pattern", nargs="?", default="*", help="part of a name, or a pattern such as 'apgd*'")
    parser.add_argument("--commercial", action="store_true", help="only datasets whose licence allows commercial use")
    parser.add_argument("--json", action="store_true", help="for another program to read")
    parser.set_defaults(call=call)


def call(args: argparse.Namespace) -> int:
    """Print the components of one kind whose name matches."""
    pattern = args.pattern if any(c in args.pattern for c in "*?[") else f"*{args.pattern}*"
    everything = catalogue.listing(args.kind)
    found = [one for one in everything if any(fnmatch.fnmatchcase(name, pattern) for name in _names(one))]
    if not found and args.pattern != "*":
        known = [one["name"] for one in everything]
        near = ELSEWHERE.get(args.pattern) or did_you_mean(args.pattern, known)
        hint = near or f"`aresbench list {args.kind}` shows them all"
        raise UnknownName(f"none of the {args.kind} matches {args.pattern!r}", hint)
    if args.commercial:
        found = _commercial(args.kind, found)
    if args.json:
        print_json(found)
    else:
        print_columns([(one["name"], _mark(one), one["summary"]) for one in found])
    return 0


def _names(one: dict[str, Any]) -> tuple[str, ...]:
    """The names a pattern may match: a model's also without its source."""
    name: str = one["name"]
    return (name, name.partition(":")[2]) if one["kind"] == "model" else (name,)


def _commercial(kind: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of some datasets that may be used commercially."""
    if kind != "datasets":
        raise SpecError(f"--commercial is about datasets, not {kind}", "aresbench list datasets --commercial")
    allowed = [one for one in found if commercial(one["facts"].get("terms", ""))]
    if found and not allowed:
        named = ", ".join(f"{one['name']} ({one['facts'].get('terms', 'unclear')})" for one in found)
        raise UnknownName(f"none of these may be used commercially: {named}", "aresbench list datasets --commercial")
    return allowed


def _mark(one: dict[str, Any]) -> str:
    """The few words that tell the members of a kind apart."""
    facts = one.get("facts", {})
    if one["kind"] == "attack":
        return f"{facts.get('access', '')} {'/'.join(facts.get('norms', ()))}"
    if one["kind"] == "dataset":
        return str(facts.get("terms", ""))
    if one["kind"] == "suite":
        return f"{len(one['tasks'])} tasks"
    return str(facts.get("family", ""))
