"""``aresbench report``: one page about chosen models, with its data and charts inside."""

from __future__ import annotations

import argparse
from typing import Any

from aresbench.cli.chosen import add_store, cells_of, open_store


def add(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "report",
        help="one HTML page, offline, with everything inside",
        description="Write one HTML page about the models of a store: tables with intervals, curves, flags, pictures.",
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="a name or a pattern such as 'timm:*' (default: all)"
    )
    parser.add_argument("-o", "--output", default="report.html", metavar="FILE", help="default: report.html")
    add_store(parser)
    parser.set_defaults(call=call)


def call(args: argparse.Namespace) -> int:
    """Build the page and say where it is."""
    cells = cells_of(open_store(args.store), args.models)
    from aresbench.report.page import build_report

    print(build_report(cells, args.output))
    return 0
