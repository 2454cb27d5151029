"""What a start of the command line costs beyond Python's own: ``python benchmarks/cli_start.py``.

Each command is run several times in turn with an empty Python program; the smallest time of each is compared, because
everything that disturbs a measurement makes it longer. Promise: under 0.3 s each.
"""

from __future__ import annotations

import subprocess
import sys
import time

COMMANDS = (
    ["--help"],
    ["list", "attacks"],
    ["list", "models"],
    ["list", "suites", "--json"],
    ["show", "apgd-ce"],
    ["show", "quickstart"],
)
ROUNDS = 7
PROMISE = 0.3


def seconds(words: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> int:
    programs = [["-c", ""], *(["-m", "aresbench", *words] for words in COMMANDS)]
    best = [min(times) for times in zip(*([seconds(p) for p in programs] for _ in range(ROUNDS)), strict=True)]
    print(f"python alone                     {best[0]:.3f} s")
    late = False
    for words, total in zip(COMMANDS, best[1:], strict=True):
        extra = total - best[0]
        late |= extra > PROMISE
        print(f"{'aresbench ' + ' '.join(words):32} +{extra:.3f} s")
    print(f"promise: at most +{PROMISE} s each: {'broken' if late else 'kept'}")
    return int(late)


if __name__ == "__main__":
    sys.exit(main())
