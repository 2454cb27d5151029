"""``aresbench run``: measure models on the tasks of a suite."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aresbench.cli.chosen import STORE, add_store
from aresbench.cli.parser import count, print_columns, print_table, readable_size
from aresbench.core.suite import load_suite

if TYPE_CHECKING:
    from aresbench.engine.events import Event
    from aresbench.engine.plan import Planned
    from aresbench.engine.results import Results
    from aresbench.report.reading import Reading
    from aresbench.report.tables import LiveTable


def add(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "run",
        help="measure models on the tasks of a suite",
        description="Measure models on the tasks of a suite. The same command again goes on where it stopped;\n"
        "a larger --n computes only the images that are new.",
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="e.g. timm:resnet50.a1_in1k (default: the suite's)")
    parser.add_argument(
        "--suite", default="quickstart", metavar="NAME", help="name or .toml file (default: quickstart)"
    )
    parser.add_argument("--data", metavar="SPEC", help="dataset in place of the suite's, e.g. folder:/photos")
    parser.add_argument("--root", metavar="DIR", help="where the dataset lies (of several: in $ARESBENCH_DATA)")
    parser.add_argument("--partial", action="store_true", help="accept datasets that are there in part")
    parser.add_argument("--n", type=count, metavar="N", help="images of each dataset, in its published order")
    parser.add_argument("--balanced", action="store_true", help="choose the N images class by class")
    parser.add_argument("--seed", type=int, default=0, help="of all random draws (default: 0)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, … (default: a GPU if there is one)")
    parser.add_argument("--batch", type=count, metavar="B", help="images in flight (default: what suits the machine)")
    parser.add_argument(
        "--on-bad", choices=("raise", "skip"), default="raise", help="at an image that cannot be read (default: raise)"
    )
    parser.add_argument("--commercial", action="store_true", help="leave out data that may not be used commercially")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, what is there, how long")
    add_store(parser)
    parser.set_defaults(call=call)


def call(args: argparse.Namespace) -> int:
    """Run a suite; 1 if a cell failed."""
    if args.dry_run:
        return _dry_run(args)
    try:
        return _run(args)
    except KeyboardInterrupt:
        print("\naresbench: interrupted; every finished row is kept. To go on, the same again:", file=sys.stderr)
        print(f"  → aresbench {shlex.join(args.argv)}", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    suite = load_suite(args.suite)  # a wrong name is told before torch is imported
    from aresbench.report.tables import LiveTable

    with LiveTable() as table:
        table.status("loading …")
        from aresbench.engine.evaluate import evaluate

        results = evaluate(
            args.models or None,
            suite,
            data=args.data,
            root=args.root,
            n=args.n,
            balanced=args.balanced,
            store=args.store,
            seed=args.seed,
            partial=args.partial,
            commercial=args.commercial,
            device=args.device,
            batch=args.batch,
            on_bad=args.on_bad,
            progress=_Watch(table),
        )
    return _close(args, results)


class _Watch:
    """Shows the engine's events in the growing table."""

    def __init__(self, table: LiveTable) -> None:
        self.table = table
        self.began = 0.0
        self.told: set[tuple[str, str]] = set()

    def __call__(self, event: Event) -> None:
        cell, skipped = event.cell, event.skipped
        # A model that cannot be loaded fails every task for one reason: it is told once.
        if skipped is not None and skipped.failed and (skipped.model, event.message) not in self.told:
            self.told.add((skipped.model, event.message))
            self.table.failed(skipped.model, skipped.task.dataset, skipped.task.name, event.message)
            if not sys.stdout.isatty():  # whoever reads the pipe may not show it
                print(f"aresbench: {skipped.model} · {skipped.task.name} failed: {event.message}", file=sys.stderr)
        if event.kind == "note":
            print(f"aresbench: {event.message}", file=sys.stderr)
        if cell is None:
            return
        if event.kind == "start":
            self.began = time.monotonic()
        if event.kind == "done":
            self.table.add(results_of(cell), time.monotonic() - self.began)
        else:
            parts = [cell.model.name, cell.task.name, event.message, f"{event.done} of {event.total} images"]
            if event.seconds_left is not None:
                parts.append(f"{duration(event.seconds_left)} left")
            self.table.status(" · ".join(part for part in parts if part))


def results_of(planned: Planned) -> Reading:
    """A finished cell, restricted to the images that were asked for."""
    from aresbench.report.reading import Reading

    return Reading(planned.cell, frozenset(planned.dataset.ids))


def _close(args: argparse.Namespace, results: Results) -> int:
    """The table of models, what was left out, and what to do next."""
    from aresbench.report.tables import model_tables

    for table in model_tables(results) if len(results) else ():
        print()
        print_table(table)
    if results.failed:
        print(f"\naresbench: {len(results.failed)} cells failed", file=sys.stderr)
    unsuited = [s for s in results.skipped if not s.failed]
    if unsuited:
        print()
        for skipped in unsuited:
            print(f"{skipped.model} was not run on {skipped.task.dataset}: {skipped.reason.splitlines()[0]}")
    if not len(results):
        return 1
    report = "aresbench report -o report.html" + (f" --store {shlex.quote(args.store)}" if args.store != STORE else "")
    print(f"\nresults are in {args.store}; one page with curves and pictures:\n  {report}")
    return 1 if results.failed else 0


def _dry_run(args: argparse.Namespace) -> int:
    suite = load_suite(args.suite)
    from aresbench.engine.evaluate import chosen_device
    from aresbench.engine.forecast import Forecast
    from aresbench.engine.plan import make_plan
    from aresbench.store import Store

    plan = make_plan(
        args.models or None,
        suite,
        Store(args.store),
        data=args.data,
        root=args.root,
        n=args.n,
        balanced=args.balanced,
        seed=args.seed,
        partial=args.partial,
        commercial=args.commercial,
    )
    device = chosen_device(args.device)
    forecast = Forecast(device)
    table = [("model", "dataset", "task", "there", "to do", "at most")]
    total = 0.0
    for cell in plan.cells:
        seconds = forecast.seconds_at_most(cell)
        total += seconds
        there = f"{len(cell.dataset) - len(cell.missing)} of {len(cell.dataset)}"
        table.append(
            (cell.model.name, cell.dataset.name, cell.task.name, there, str(len(cell.missing)), duration(seconds))
        )
    print_columns(table)
    left_out = [(s.model, s.task.name, s.reason.splitlines()[0]) for s in plan.skipped]
    if left_out:
        print("\nleft out")
        print_columns(left_out, "  ")
    print(f"\n{len(plan.cells)} cells, at most {duration(total)} on {device} (images that break early make it shorter)")
    if told := _room_for_pictures(plan.cells):
        print(told)
    return 1 if any(s.failed for s in plan.skipped) else 0


def _room_for_pictures(cells: Sequence[Planned]) -> str:
    """What decoded pictures will add to the cache on disk, and where; empty where nothing is added."""
    from aresbench.data.cache import PictureCache

    cache = PictureCache()
    # the largest view of each dataset holds the images of the others
    largest = {(c.dataset.name, c.preprocessing): c for c in sorted(cells, key=lambda c: len(c.dataset)) if c.missing}
    room = sum(cache.needed(c.dataset, c.preprocessing) for c in largest.values())
    return f"decoded pictures will take up to {readable_size(room)} more in {cache.folder}" if room else ""


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
