"""``aresbench compare``: two models on the same images, with intervals for the difference."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from aresbench.cli.chosen import add_store, cells_of, open_store
from aresbench.cli.parser import print_json, print_table

if TYPE_CHECKING:
    from aresbench.store import Cell


def add(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "compare",
        help="two models on the same images, with intervals",
        description="Compare two models of a store task by task, paired on the images that both have seen.",
    )
    parser.add_argument("first", metavar="A", help="a model's name in the store")
    parser.add_argument("second", metavar="B", help="another one")
    parser.add_argument("--seed", type=int, metavar="N", help="results of this seed, where the store holds several")
    parser.add_argument("--json", action="store_true", help="for another program to read")
    add_store(parser)
    parser.set_defaults(call=call)


def call(args: argparse.Namespace) -> int:
    """Print the differences."""
    store = open_store(args.store)
    first, second = (_of_seed(cells_of(store, [name]), args.seed) for name in (args.first, args.second))
    from aresbench.report.compare import compare

    comparison = compare(first, second)
    if args.json:
        print_json(json.loads(comparison.frame().to_json(orient="records")))
        return 0
    from aresbench.report.tables import comparison_table

    print_table(comparison_table(comparison))
    return 0


def _of_seed(cells: list[Cell], seed: int | None) -> list[Cell]:
    return cells if seed is None else [c for c in cells if c.description["identity"].get("seed") == seed]
