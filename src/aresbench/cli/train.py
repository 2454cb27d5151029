"""``aresbench train``: train a robust model as a recipe says."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import Any

from aresbench.core.errors import AresError
from aresbench.training.recipe import load_recipe

STOPPED = 75  # asked to stop, checkpoint written: the batch system may start the same command again (EX_TEMPFAIL)


def add(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "train",
        help="train a robust model as a recipe says",
        description="Train a classifier as a recipe says. The same command again goes on where it stopped.\n"
        "Several processes: torchrun --nproc-per-node 8 -m aresbench train RECIPE …\n"
        f"Exit status {STOPPED}: stopped by a signal, checkpoint written; start the same command again.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="name (aresbench list recipes) or .toml file")
    parser.add_argument(
        "changes", nargs="*", metavar="key=value", help="changes to it, e.g. schedule.epochs=10 method='trades(beta=3)'"
    )
    parser.add_argument("--out", metavar="DIR", help="folder of weights, card and checkpoints (default: models/NAME)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, … (default: a GPU if there is one)")
    parser.add_argument("--dry-run", action="store_true", help="print the whole recipe and what it would take")
    parser.set_defaults(call=call)


def call(args: argparse.Namespace) -> int:
    """Train; 1 if the training could not go on."""
    recipe = load_recipe(args.recipe, args.changes)  # a wrong word is told before torch is imported
    first = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0
    if first:
        print(recipe.toml(), flush=True)
    if args.dry_run:
        from aresbench.training.forecast import forecast

        print(forecast(recipe, args.device))
        return 0
    from aresbench.training.loop import Interrupted, TrainingError, train

    try:
        trained = train(recipe, args.out, device=args.device, progress=_tell if first else None)
    except Interrupted as stopped:
        return _stop(stopped, STOPPED)
    except TrainingError as error:
        return _stop(error, 1)
    except KeyboardInterrupt:
        print("\naresbench: interrupted. To go on from the newest checkpoint, the same again:", file=sys.stderr)
        print(f"  → aresbench {shlex.join(args.argv)}", file=sys.stderr)
        return 130
    if first:
        print(trained)
        print(f"measure it:\n  aresbench run {shlex.quote(str(trained.folder))} --suite SUITE")
    return 0


def _stop(error: AresError, status: int) -> int:
    print(f"\naresbench: {error}", file=sys.stderr)
    return status


def _tell(line: str) -> None:
    """One line that renews itself on a terminal; lines one below the other elsewhere."""
    if not sys.stdout.isatty():
        print(line, flush=True)
        return
    passing = line.endswith(" left")
    print(f"\r\033[K{line}", end="" if passing else "\n", flush=True)
