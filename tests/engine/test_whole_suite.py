"""A whole suite on small real photographs and four tiny networks, killed twice, resumed, and read in report and site.

The suite is ares-bench with every kind of its tasks, but fewer rungs, steps, filters and corruptions.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from plugins.tiny_models import SPECS, install

import aresbench as ab
from aresbench.cli.main import main
from aresbench.core.suite import Suite, load_suite
from aresbench.data.load import dataset_name
from aresbench.engine.results import Results
from aresbench.report.reading import Reading
from aresbench.store import Store

SMALL = """
name = "small"
title = "ares-bench, small"
headline = "AutoAttack L∞ 4/255"

[[tasks]]
data = "imagenet"
n = 3
threats = [
    { name = "FGSM L∞ 4/255", threat = "adversary(linf, 4/255, fgsm)" },
    { name = "AutoAttack L∞ 4/255", threat = "adversary(linf, 4/255, autoattack)" },
    { name = "PGD L∞ curve", threat = "adversary(linf, search(1/255, doublings=2, bisections=2), pgd(steps=3))" },
    { name = "PGD L2 curve", threat = "adversary(l2, search(0.25, doublings=2, bisections=2), pgd(steps=3))" },
    { name = "MIM", threat = "transfer(linf, 8/255, mim(steps=4, rel_step=1/4, parts=[di, ti]), from=each)" },
]
[[tasks]]
data = "imagenet"
n = 3
threats = ["clean", "lowpass([60, 10])"]
"""
CLEAN = (
    *("imagenet-real", "imagenet-v2(variant=matched-frequency)", "imagenet-a", "imagenet-a-clean", "imagenet-r"),
    *("imagenet-r-clean", "imagenet-sketch", "imagenet-stylized", "objectnet(protocol=official)", "imagenet-v"),
    "imagenet-c(corruption=fog, severity=[1, 3, 5])",
)
MISSING = "imagenet-sketch"
RUN = ("run", *SPECS, "--suite", "small.toml", "--partial")
CELLS = len(SPECS) * (4 + len(SPECS) + 3 + 9 + 3)


@dataclass(frozen=True)
class Place:
    """A user's folder: a suite, four models, and data but for one set."""

    home: Path
    environment: dict[str, str]

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "aresbench", *RUN]
        return subprocess.Popen(command, cwd=self.home, env=self.environment, stdout=subprocess.PIPE, text=True)

    def sealed(self) -> dict[str, int]:
        """Finished files of rows, with the time each was written."""
        return {str(p): p.stat().st_mtime_ns for p in (self.home / "runs").rglob("images-*.parquet")}

    def done(self) -> int:
        """Cells that have finished rows."""
        return len({Path(file).parent for file in self.sealed()})


@pytest.fixture(scope="module")
def place(relatives_of_imagenet: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("home")
    (home / "data").mkdir()
    for folder in relatives_of_imagenet.iterdir():
        if folder.name != MISSING:
            (home / "data" / folder.name).symlink_to(folder)
    blocks = "".join(f'[[tasks]]\ndata = "{data}"\nn = 3\nthreats = ["clean"]\n' for data in CLEAN)
    (home / "small.toml").write_text(SMALL + blocks)
    install(home, ab.load_dataset("imagenet", root=home / "data/imagenet", partial=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("ARESBENCH_DATA", str(home / "data"))
        source = str(Path(ab.__file__).parents[1])
        yield Place(home, {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"})


def kinds(suite: Suite) -> set[tuple[object, ...]]:
    """What kinds of tasks a suite has: datasets, threats, norms, whether a curve, whether a matrix."""
    found = set()
    for task in suite.tasks:
        adversary = task.threat.adversary
        of = (adversary.ladder.norm, len(adversary.ladder.rungs) > 1, adversary.surrogates) if adversary else ()
        found.add((dataset_name(task.dataset), task.threat.kind, *of))
    return found


@pytest.fixture(scope="module")
def resumed(place: Place) -> Store:
    """The archive of a run that was killed twice and then finished."""
    before, done = place.sealed(), 0
    for numbers in (3, 45):  # in the middle of a white-box attack, and of the rest
        process = place.start()
        assert process.stdout is not None
        printed = 0
        while printed < numbers:
            line = process.stdout.readline()
            assert line, f"the run ended after {printed} numbers"
            printed += " n=3" in line
        time.sleep(0.1)
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert done < place.done() < CELLS
        assert place.sealed().items() >= before.items(), "finished work was done again"
        before, done = place.sealed(), place.done()
    process = place.start()
    out, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, out[-2000:]
    assert place.sealed().items() >= before.items(), "finished work was done again"
    assert place.done() == CELLS
    assert f" {3 * done} (" in out.partition("plan: ")[2].partition("\n")[0], "what is there is told beforehand"
    told = out.splitlines().index(
        f"{MISSING} left out: ImageNet-Sketch is not on this machine: there is no folder {place.home}/data/{MISSING}"
    )
    assert "ImageNet-Sketch" in out.splitlines()[told + 1] and "→" in out.splitlines()[told + 1]
    return Store(place.home / "runs")


@pytest.fixture(scope="module")
def straight(place: Place) -> Results:
    """The same without any interruption."""
    return ab.evaluate(list(SPECS), "small.toml", partial=True, store=place.home / "straight")


def test_it_has_every_kind_of_task_of_the_suite(place: Place) -> None:
    assert kinds(load_suite("small.toml")) == kinds(load_suite("ares-bench"))


def test_killed_and_resumed_rows_are_those_of_an_uninterrupted_run(resumed: Store, straight: Results) -> None:
    cells = {cell.key: cell for cell in resumed.cells()}
    assert len(straight) == len(cells) == CELLS and not straight.failed
    exactly = ["label", "prediction", "correct", "breaking_budget", "broken_by", "adv_prediction"]
    for reading in straight:
        other = Reading(cells[reading.cell.key])
        pd.testing.assert_frame_equal(reading.images[exactly], other.images[exactly])
        for column in ("margin", "breaking_distance"):
            pd.testing.assert_series_equal(reading.images[column], other.images[column], rtol=1e-3, atol=1e-4)
        key = ["id", "attack", "eps"]
        mine, theirs = (r.attempts.sort_values(key).reset_index(drop=True) for r in (reading, other))
        assert not theirs.duplicated(key).any()
        counted = [*key, "verdict", "forwards", "backwards", "adv_prediction"]
        pd.testing.assert_frame_equal(mine[counted], theirs[counted])


def test_every_kind_measured_something(straight: Results) -> None:
    images = straight.images()
    clean = images[images["task"] == "clean"].groupby("dataset")["correct"].mean()
    assert clean.filter(regex="^imagenet-part").item() == 1, "the networks tell the photographs apart"
    assert (clean > 0).sum() >= 9
    for name in ("FGSM L∞ 4/255", "AutoAttack L∞ 4/255", "PGD L∞ curve", "PGD L2 curve"):
        assert straight[name].images()["breaking_budget"].notna().any()
        examples = straight[name].readings[0].cell.examples()
        assert examples["changed_png"].notna().any(), "a part of a set has pictures too"
    broken = images[images["task"].str.contains(" from ")].groupby(["task", "model"])["breaking_budget"].count()
    assert len(broken) == len(SPECS) ** 2
    own = [broken[task, model] for task, model in broken.index if task.endswith(model)]
    assert sum(own) > sum(broken) / 2, "an attack breaks the model that it sees, and others less"


def test_nothing_is_left_to_do(place: Place, resumed: Store, capsys: pytest.CaptureFixture[str]) -> None:
    before = place.sealed()
    assert main(RUN) == 0
    assert f"plan: {CELLS} cells of {3 * CELLS} images; all of them are there already" in capsys.readouterr().out
    assert place.sealed() == before


def test_report_and_leaderboard_are_made_of_it(place: Place, resumed: Store) -> None:
    assert main(("report", "-o", "report.html")) == 0
    assert main(("leaderboard", "runs", "-o", "site")) == 0
    page = (place.home / "report.html").read_text("utf-8")
    for text in ("tiny_models.py:swin", "PGD L2 curve", "Stylized-ImageNet", "MIM from"):
        assert text in page
    assert "tiny_models.py:vit" in (place.home / "site/index.html").read_text("utf-8")
