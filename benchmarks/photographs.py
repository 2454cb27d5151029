"""Three ImageNet classifiers on real photographs under all nineteen corruptions: accuracy by severity, and a report.

    python benchmarks/photographs.py [n] [out]

The photographs are the 20 of the dataset ``samples`` and the first n (default: 80) of the development photographs,
where ``ARESBENCH_DEV_DATA`` names them. Small collections of well-chosen photographs read higher than ImageNet's
validation set: what counts here is the order of things, not the level. The report is written to ``out/report.html``
(default: a folder of its own, printed at the end); the archive lies beside it.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

from side_by_side_cases import development

import aresbench as ab
from aresbench.core.suite import Task, tasks
from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.load import load_dataset

MODELS = [f"samples:efficientnet-lite{k}" for k in range(3)]
THREATS = ("clean", "corruption(imagenet-c, all)", "corruption(imagenet-c-extra, all)")


def collect(n: int, folder: Path) -> int:
    """Links to the photographs in one folder per class; how many there are."""
    wnids = imagenet_classes().ids
    samples = load_dataset("samples")
    found = [(Path(str(samples.source(k))), int(samples.labels[k])) for k in range(len(samples))]
    more = development("imagenet-like-photos")
    if more is not None:
        with open(more / "labels.csv", newline="", encoding="utf-8") as table:
            rows = list(csv.DictReader(table))[:n]
        found += [(more / row["file"], int(row["imagenet_index"])) for row in rows]
    for file, label in found:
        place = folder / wnids[label] / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.symlink_to(file.resolve())
    return len(found)


def main() -> None:
    """Run, print one line per model and corruption, write the report."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 80
    out = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="photographs-")).resolve()
    count = collect(n, out / "photographs")
    spec = f"folder:{out / 'photographs'}"
    results = ab.evaluate(MODELS, [Task(t.dataset, t.threat) for t in tasks(spec, *THREATS)], store=out / "runs")
    table = results.frame()
    clean = table[table["kind"] == "clean"].set_index("model")["value"]
    print(f"{count} photographs, accuracy in %")
    print(f"{'':32}{'corruption':20}clean" + "".join(f"{f's{s}':>7}" for s in range(1, 6)))
    levels: dict[tuple[str, str], dict[int, float]] = {}
    for reading in results:
        if reading.kind == "corruption":
            key = reading.model, str(reading.task["corruption"])
            levels.setdefault(key, {})[int(reading.task["severity"])] = float(reading.correct.mean())
    for (model, name), by_severity in levels.items():
        shown = "".join(f"{100 * by_severity[s]:7.1f}" for s in range(1, 6))
        print(f"{model:32}{name:20}{100 * clean[model]:5.1f}{shown}")
    ab.report(results, out / "report.html")
    print(f"report: {out / 'report.html'}")


if __name__ == "__main__":
    main()
