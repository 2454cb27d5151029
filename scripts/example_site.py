"""Make the documentation's example: a report and a leaderboard about the digits and the sample photographs.

    python scripts/example_site.py [OUT]         # default: docs/example
    python scripts/example_site.py --pack        # also write scripts/example_site.zip anew, after measuring

What attacks found travels with the repository as a result bundle, ``example_site.zip``, because it costs minutes; all
else is measured here, in about a minute on one core. The bundle is results as any other: where a component's revision,
a model or the suite has changed since, its cells are no longer those that are asked for, and are measured again.
Results are kept in ``build/example``, so that a second call takes seconds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

import aresbench as ab
from aresbench.core.suite import load_suite
from aresbench.report.leaderboard.site import build_leaderboard
from aresbench.report.reading import Reading
from aresbench.store import Store
from aresbench.store.bundle import write_bundle

ROOT = Path(__file__).parents[1]
SUITE, BUNDLE = Path(__file__).with_suffix(".toml"), Path(__file__).with_suffix(".zip")
COMMAND = "aresbench run --suite scripts/example_site.toml"
LARGE = 64  # pixels; larger pictures are heavy for a repository: one of each model under this task is kept
PICTURED = "AutoAttack L∞"


def pack(readings: Iterable[Reading]) -> int:
    """Write the cells of adversaries as a bundle, with few pictures, and return its size in bytes."""
    with tempfile.TemporaryDirectory() as place:
        chosen = Store(place)
        for reading in readings:
            if reading.kind != "adversary":
                continue
            copy = chosen.cell(reading.cell.description)
            for file in reading.cell.folder.iterdir():
                if file.name.startswith(("images-", "attempts-", "flags-")):
                    (copy.folder / file.name).write_bytes(file.read_bytes())
            for record in reading.cell.provenance():
                copy.add_provenance({**record, "command": COMMAND})  # without this machine's folders
            copy.add_examples(_few(reading))
        return write_bundle(BUNDLE, chosen.cells(), command=COMMAND)


def _few(reading: Reading) -> list[dict[str, object]]:
    """The pictures that the repository keeps of a cell."""
    rows = reading.cell.examples()
    rows = rows[[isinstance(changed, bytes) for changed in rows["changed_png"]]]
    size = reading.description["identity"]["protocol"]["preprocessing"]["size"]
    if max(size) > LARGE:
        rows = rows.head(1 if reading.name == PICTURED else 0)
    found: list[dict[str, object]] = rows.to_dict("records")
    return found


def main() -> None:
    """Measure what is missing, write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "docs" / "example")
    parser.add_argument("--runs", type=Path, default=ROOT / "build" / "example", help="where results are kept")
    parser.add_argument("--pack", action="store_true", help="write the bundle of the repository anew")
    args = parser.parse_args()

    store = Store(args.runs)
    if BUNDLE.exists() and not args.pack:
        store.merge(BUNDLE)
    results = ab.evaluate(suite=load_suite(str(SUITE)), store=store)
    for left_out in results.skipped:
        print(f"left out: {left_out}")
    ab.report(results, args.out / "report.html", command=COMMAND)
    build_leaderboard([r.cell for r in results], args.out / "leaderboard", sources=[])
    print(f"{len(results)} cells: {args.out / 'report.html'}, {args.out / 'leaderboard' / 'index.html'}")
    if args.pack:
        print(f"{BUNDLE.name}: {pack(results) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
