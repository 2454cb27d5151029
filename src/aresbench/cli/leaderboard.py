"""``aresbench leaderboard``: a ranking of measured and published results as a static site."""

from __future__ import annotations

import argparse
from typing import Any

from aresbench.cli.chosen import open_store


def add(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "leaderboard",
        help="a ranking as a folder of pages, offline, beside published numbers",
        description="Write a static site that ranks the models of any number of stores, beside published numbers, "
        "which are marked and never mixed with measured ones.",
    )
    parser.add_argument("stores", nargs="*", metavar="DIR", help="folders of results (none: published numbers alone)")
    parser.add_argument("-o", "--output", default="site", metavar="DIR", help="folder to write (default: site)")
    parser.add_argument(
        "--published",
        metavar="NAMES",
        help="tables of published numbers, with commas between: robustbench, timm, paper, oodrobustbench, easyrobust; "
        "or none (default: all)",
    )
    parser.set_defaults(call=call)


def call(args: argparse.Namespace) -> int:
    """Build the site and say where its first page is."""
    cells = [cell for folder in args.stores for cell in open_store(folder).require_cells()]
    from aresbench.models.zoo import entries
    from aresbench.report.leaderboard.site import build_leaderboard

    named = None if args.published is None else [n.strip() for n in args.published.split(",") if n.strip()]
    cards = {f"zoo:{name}": one.facts() for name, one in entries().items()}
    print(build_leaderboard(cells, args.output, [] if named == ["none"] else named, cards))
    return 0
