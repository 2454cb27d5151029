"""A whole suite from the first command to the site, on folders of real photographs and four tiny networks.

    python benchmarks/whole_suite.py FOLDER                          ares-bench-mini, 3 images a task
    python benchmarks/whole_suite.py FOLDER ares-bench 2             the paper's full protocol, 2 images a task

FOLDER takes data, models, archive, report and site; it may be new. The command is killed after a tenth and after half
of its cells and given again, and what was finished before must stand untouched; the last run must end well. Printed are
the plan's forecast, the cells finished at each kill, and the seconds of each part. The numbers measured mean nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from plugins.relatives import build  # noqa: E402
from plugins.tiny_models import SPECS, install  # noqa: E402

import aresbench as ab  # noqa: E402


class Walk:
    """The commands of a user who sits in one folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
        self.environment = {
            **os.environ,
            "PYTHONPATH": path,
            "ARESBENCH_DATA": str(home / "data"),
            "ARESBENCH_CACHE": str(home / "cache"),
        }

    def sealed(self) -> dict[str, int]:
        """Finished files of rows, with the time each was written."""
        return {str(p): p.stat().st_mtime_ns for p in (self.home / "runs").rglob("images-*.parquet")}

    def command(self, *words: str, stop_after: int | None = None) -> str:
        """Run ``aresbench WORDS…``, or kill it once so many cells have finished rows; what it printed."""
        began = time.monotonic()
        log = self.home / "log.txt"
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "aresbench", *words], cwd=self.home, env=self.environment, stdout=out
            )
            while process.poll() is None:
                time.sleep(0.2)
                if stop_after is not None and self.cells() >= stop_after:
                    process.kill()
        killed = process.wait() < 0
        if not killed and process.returncode:
            raise SystemExit(f"aresbench {' '.join(words)} ended with {process.returncode}; see {log}")
        what = f"killed, {self.cells()} cells finished" if killed else "done"
        print(f"{words[0]:<12} {time.monotonic() - began:7.1f} s  {what}", flush=True)
        return log.read_text("utf-8")

    def cells(self) -> int:
        """Cells that have finished rows."""
        return len({Path(file).parent for file in self.sealed()})


def main() -> None:
    home = Path(sys.argv[1]).resolve()
    suite = sys.argv[2] if len(sys.argv) > 2 else "ares-bench-mini"
    n = sys.argv[3] if len(sys.argv) > 3 else "3"
    if not (home / "data").exists():
        build(home / "data", corrupted=int(n))
        install(home, ab.load_dataset("imagenet", root=home / "data/imagenet", partial=True))
    walk = Walk(home)
    run = ("run", *SPECS, "--suite", suite, "--partial", "--n", n)
    planned = walk.command(*run, "--dry-run")
    total = int(re.findall(r"(\d+) cells, at most", planned)[0])
    print(planned[planned.rindex(f"\n{total} cells") :].strip())
    for enough in (total // 10, total // 2):
        before = walk.sealed()
        walk.command(*run, stop_after=enough)
        assert walk.sealed().items() >= before.items(), "finished work was done again"
    before = walk.sealed()
    walk.command(*run)
    assert walk.sealed().items() >= before.items(), "finished work was done again"
    assert walk.cells() == total, f"{walk.cells()} of {total} cells"
    walk.command("report", "-o", "report.html")
    walk.command("leaderboard", "runs", "-o", "site")
    print(f"{total} cells; {(home / 'report.html').stat().st_size / 1e6:.1f} MB of report; site in {home / 'site'}")


if __name__ == "__main__":
    main()
