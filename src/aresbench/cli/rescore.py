"""``aresbench rescore``: stored rows under the class rules of others."""

from __future__ import annotations

import argparse
import json
from typing import Any

from aresbench.cli.chosen import add_store, cells_of, open_store
from aresbench.cli.parser import print_columns, print_json


def add(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "rescore",
        help="stored results under another protocol: masked or 1,000-way, ObjectNet's three, another AlexNet",
        description="Judge stored rows by other rules; no model is asked again. What the rows do not tell is said.",
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names or patterns in the store (default: all)")
    parser.add_argument("--json", action="store_true", help="for another program to read")
    add_store(parser)
    parser.set_defaults(call=call)


def call(args: argparse.Namespace) -> int:
    """Print each number under each protocol."""
    cells = cells_of(open_store(args.store), args.models)
    from aresbench.report.rescore import rescore, rescored_frame

    if args.json:
        print_json(json.loads(rescored_frame(cells).to_json(orient="records")))
        return 0
    found = rescore(cells)
    if not found:
        print("nothing here can be judged by another rule: no masked data, no ObjectNet, no complete ImageNet-C")
        return 0
    table = [("model", "dataset", "task", "protocol", "number")]
    for one in found:
        own = " (as measured)" if one.protocol == one.measured else ""
        table.append((one.model, one.dataset, one.task, one.protocol + own, str(one.score) if one.score else one.why))
    print_columns(table)
    return 0
