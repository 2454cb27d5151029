"""The command ``aresbench``: picks the verb, and turns errors into plain words.

Exit status: 0 all is well · 1 a cell failed or a check found an error · 2 a wrong word or file · 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from aresbench import __version__
from aresbench.cli import (
    cache,
    compare,
    doctor,
    leaderboard,
    list_,
    report,
    rescore,
    run,
    show,
    store,
    submit,
    train,
    verify,
)
from aresbench.cli.parser import Parser
from aresbench.core.errors import AresError

_EPILOG = """\
a first run:
  aresbench run --suite quickstart          five small classifiers, under four minutes on two cores
  aresbench report -o report.html           one file with everything inside

your own model:
  aresbench doctor ./mine.py:make           the checks to make before spending a night
  aresbench run ./mine.py:make --suite quickstart --data folder:/photos
"""


def build_parser() -> Parser:
    """The parser of all verbs."""
    parser = Parser("aresbench", description="How robust is an image classifier?", epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"aresbench {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=Parser)
    for verb in (run, list_, show, compare, report, leaderboard, rescore, train, doctor, store, verify, submit, cache):
        verb.add(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status. ``ARESBENCH_DEBUG=1`` shows tracebacks."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(words)
    args.argv = words
    try:
        status: int = args.call(args)
        sys.stdout.flush()
        return status
    except AresError as error:
        if os.environ.get("ARESBENCH_DEBUG"):
            raise
        print(f"aresbench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\naresbench: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
