"""``aresbench run``: measure models on the tasks of a suite."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aresbench.cli.chosen import add_store
from aresbench.cli.parser import print_columns
from aresbench.core.suite import load_suite

if TYPE_CHECKING:
    from aresbench.engine.events import Event
    from aresbench.engine.results import Results


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
    parser.add_argument("--root", metavar="DIR", help="where the dataset lies")
    parser.add_argument("--n", type=_count, metavar="N", help="images of each dataset, in its published order")
    parser.add_argument("--balanced", action="store_true", help="choose the N images class by class")
    parser.add_argument("--seed", type=int, default=0, help="of all random draws (default: 0)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, … (default: a GPU if there is one)")
    parser.add_argument("--batch", type=_count, metavar="B", help="images in flight (default: what suits the machine)")
    parser.add_argument(
        "--on-bad", choices=("raise", "skip"), default="raise", help="at an image that cannot be read (default: raise)"
    )
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
    models = args.models or list(suite.models)
    rows = _Rows(models, [task.name for task in suite.tasks])
    with _progress() as bar:
        from aresbench.engine.evaluate import evaluate

        def progress(event: Event) -> None:
            if event.kind == "done":
                bar.say(rows.of(event))
            elif event.kind == "failed":
                bar.warn(f"{_cell(event)} failed: {event.message}")
            elif event.kind == "skip" and event.skipped is not None and event.skipped.failed:
                bar.warn(f"{event.skipped.model} · {event.skipped.task.name} failed: {event.message}")
            bar.update(event)

        bar.say([rows.head])
        results = evaluate(
            args.models or None,
            suite,
            data=args.data,
            root=args.root,
            n=args.n,
            balanced=args.balanced,
            store=args.store,
            seed=args.seed,
            device=args.device,
            batch=args.batch,
            on_bad=args.on_bad,
            progress=progress,
        )
    return _close(args, results)


def _close(args: argparse.Namespace, results: Results) -> int:
    """The table of models, what was left out, and what to do next."""
    print(f"\n{results}")
    unsuited = [s for s in results.skipped if not s.failed]
    if unsuited:
        print(f"\n{len(unsuited)} tasks were left out: their classes are not the model's (--dry-run lists them)")
    if results.failed:
        print(f"aresbench: {len(results.failed)} cells failed", file=sys.stderr)
    report = "aresbench report -o report.html" + (f" --store {shlex.quote(args.store)}" if args.store != "runs" else "")
    print(f"\nresults are in {args.store}; one page with curves and pictures:\n  {report}")
    return 1 if results.failed else 0


def _dry_run(args: argparse.Namespace) -> int:
    suite = load_suite(args.suite)
    from aresbench.engine.evaluate import default_device
    from aresbench.engine.forecast import seconds_at_most
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
    )
    import torch

    device = torch.device(args.device) if args.device else default_device()
    table = [("model", "dataset", "task", "there", "to do", "at most")]
    total = 0.0
    for cell in plan.cells:
        seconds = seconds_at_most(cell, device)
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
    return 1 if any(s.failed for s in plan.skipped) else 0


class _Rows:
    """The lines of the growing table, in columns that fit every cell to come."""

    def __init__(self, models: list[str], tasks: list[str]) -> None:
        self.model = max(map(len, [*models, "model"]))
        self.task = max(map(len, [*tasks, "task"]))

    @property
    def head(self) -> str:
        return f"{'model':{self.model}}  {'task':{self.task}}  result with 95 % interval"

    def of(self, event: Event) -> list[str]:
        """One line for each number of a finished cell."""
        from aresbench.report.reading import Reading
        from aresbench.report.summary import measures

        assert event.cell is not None
        reading = Reading(event.cell.cell, frozenset(event.cell.dataset.ids))
        return [
            f"{reading.model:{self.model}}  {reading.name:{self.task}}  {score}  {measure}"
            + (f"  ⚑ {', '.join(score.flags)}" if score.flags else "")
            for measure, score in measures(reading).items()
        ]


class _Bar:
    """Progress with time left on a terminal; nothing at all where no one watches."""

    def __init__(self, progress: Any) -> None:
        self.progress = progress
        self.task = progress.add_task("loading", total=None, left="")

    def say(self, lines: list[str]) -> None:
        """Print above the bar."""
        for line in lines:
            if sys.stdout.isatty():
                self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                print(line, flush=True)

    def warn(self, text: str) -> None:
        print(f"aresbench: {text}", file=sys.stderr)

    def update(self, event: Event) -> None:
        if event.cell is None or event.kind == "done":
            return
        what = _cell(event) + (f" · {event.message}" if event.message and event.kind == "advance" else "")
        left = f"{duration(event.seconds_left)} left" if event.seconds_left is not None else ""
        self.progress.update(self.task, description=what, completed=event.done, total=event.total or None, left=left)


@contextmanager
def _progress() -> Iterator[_Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=not sys.stdout.isatty())
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Bar(progress)


def _cell(event: Event) -> str:
    assert event.cell is not None
    return f"{event.cell.model.name} · {event.cell.task.name}"


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
