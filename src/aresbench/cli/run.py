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
from aresbench.core.words import duration

if TYPE_CHECKING:
    from aresbench.engine.events import Event
    from aresbench.engine.forecast import Cost
    from aresbench.engine.plan import Plan, Planned, Skipped
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
        watch = _Watch(table)
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
            progress=watch,
        )
    return _close(args, results, watch.left_out)


class _Watch:
    """Shows the engine's events in the growing table."""

    def __init__(self, table: LiveTable) -> None:
        self.table = table
        self.began = 0.0
        self.told: set[tuple[str, str]] = set()
        self.left_out: list[str] = []

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
        if event.plan is not None:
            self.left_out = left_out(event.plan)
            for line in (*self.left_out, f"plan: {ahead(event.costs)}"):
                self.table.console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
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


def _close(args: argparse.Namespace, results: Results, skipped: Sequence[str]) -> int:
    """The table of models, what was left out, and what to do next."""
    from aresbench.report.tables import model_tables

    for table in model_tables(results) if len(results) else ():
        print()
        print_table(table)
    if results.failed:
        print(f"\naresbench: {len(results.failed)} cells failed", file=sys.stderr)
    if skipped:
        print()
        print("\n".join(skipped))
    if not len(results):
        return 1
    report = "aresbench report -o report.html" + (f" --store {shlex.quote(args.store)}" if args.store != STORE else "")
    print(f"\nresults are in {args.store}; one page with curves and pictures:\n  {report}")
    return 1 if results.failed else 0


def _dry_run(args: argparse.Namespace) -> int:
    suite = load_suite(args.suite)
    from aresbench.engine.evaluate import chosen_device
    from aresbench.engine.forecast import Cost, Forecast
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
    costs = Forecast(device).timed(plan.cells)
    table = [("model", "dataset", "task", "there", "to do", "passes", "at most")]
    by_model: dict[str, list[Cost]] = {}
    for cell, cost in zip(plan.cells, costs, strict=True):
        by_model.setdefault(cell.model.name, []).append(cost)
        table.append((cell.model.name, cell.dataset.name, cell.task.name, *_columns(cost)))
    print_columns(table)
    if len(by_model) > 1:
        print()
        summary = [(name, f"{len(own)} cells", *_columns(Cost.total(own))) for name, own in by_model.items()]
        print_columns([("model", "", "there", "to do", "passes", "at most"), *summary])
    told = [*left_out(plan), *(f"{s.model} · {s.task.name} fails: {s.reason}" for s in plan.skipped if s.failed)]
    if told:
        print()
        print("\n".join(told))
    total = Cost.total(costs)
    time = "" if total.seconds is None else f", at most {duration(total.seconds)} on {device}"
    print(f"\n{len(costs)} cells{time} (images that break early make it shorter)")
    print(ahead(costs))
    if room := _room_for_pictures(plan.cells):
        print(room)
    return 1 if any(s.failed for s in plan.skipped) else 0


def left_out(plan: Plan) -> list[str]:
    """What is not run, a sentence for each reason: which data or task, which models, why, and the remedy."""
    from aresbench.data.load import dataset_name

    taken = {cell.task.dataset for cell in plan.cells}
    models = {cell.model.name for cell in plan.cells}
    groups: dict[str, list[Skipped]] = {}
    for skipped in plan.skipped:
        if not skipped.failed:
            groups.setdefault(skipped.reason, []).append(skipped)
    sentences = []
    for reason, group in groups.items():
        tasks = [skipped.task for skipped in group]
        what = [f"{t.name} on {t.dataset}" if t.dataset in taken else dataset_name(t.dataset) for t in tasks]
        whom = dict.fromkeys(skipped.model for skipped in group)
        some = "" if models and models <= set(whom) else f" for {', '.join(whom)}"
        sentences.append(f"{', '.join(dict.fromkeys(what))} left out{some}: {reason}")
    return sentences


def _columns(cost: Cost) -> tuple[str, str, str, str]:
    time = "–" if cost.seconds is None else duration(cost.seconds)
    return f"{cost.there:,} of {cost.there + cost.missing:,}", f"{cost.missing:,}", f"{cost.passes:,}", time


def ahead(costs: Sequence[Cost]) -> str:
    """What lies ahead of a run, in a line."""
    from aresbench.engine.forecast import Cost

    total = Cost.total(costs)
    images = total.there + total.missing
    cells = f"{len(costs):,} cells of {images:,} images"
    if not total.missing:
        return f"{cells}; all of them are there already"
    there = f"; {total.there:,} ({total.there / images:.0%}) are there already" if total.there else ""
    time = "" if total.seconds is None else f", {duration(total.seconds)}"
    return f"{cells}{there}; to do: {total.missing:,}, at most {total.passes:,} forward and backward passes{time}"


def _room_for_pictures(cells: Sequence[Planned]) -> str:
    """What decoded pictures will add to the cache on disk, and where; empty where nothing is added."""
    from aresbench.data.cache import PictureCache

    cache = PictureCache()
    # the largest view of each dataset holds the images of the others
    largest = {(c.dataset.name, c.preprocessing): c for c in sorted(cells, key=lambda c: len(c.dataset)) if c.missing}
    room = sum(cache.needed(c.dataset, c.preprocessing) for c in largest.values())
    return f"decoded pictures will take up to {readable_size(room)} more in {cache.folder}" if room else ""
