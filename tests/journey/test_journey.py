"""The way of a new user: install the wheel, run, be interrupted, be killed, go on, read the report in a browser.

The environment is empty but for the wheel. What the wheel requires is not downloaded again: the new environment looks
into the site-packages of the one that runs this test (a .pth file), where pip has put exactly what pyproject.toml asks.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.journey

ROOT = Path(__file__).parents[2]
MODELS = ("samples:digits-plain", "samples:digits-robust", "samples:efficientnet-lite0")
RUN = ("run", *MODELS, "--suite", "quickstart", "--n", "8")
DIGITS = "samples:digits-"


@dataclass
class User:
    """Somebody with an environment and an empty folder."""

    bin: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        dropped = ("PYTHONPATH", "ARESBENCH_DEBUG", "ARESBENCH_DEV_DATA")
        return {k: v for k, v in os.environ.items() if k not in dropped} | {"HF_HUB_OFFLINE": "1"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start ``aresbench WORDS…`` as a terminal would: Ctrl-C reaches it."""
        return subprocess.Popen(
            [self.bin / "aresbench", *words],
            cwd=self.home,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a test run in the background would hand down an ignored SIGINT
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *words: str) -> str:
        """Run to the end; what it printed."""
        process = self.start(*words)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, f"{words}: {err}"
        return out

    def results(self) -> dict[str, int]:
        """Cells and image rows in the archive."""
        status = json.loads(self.run("store", "status", "--json"))
        return {"cells": status["cells"], "images": status["rows"]["images"]}

    def sealed(self) -> dict[str, int]:
        """Finished files of rows, with the time each was written."""
        return {str(p): p.stat().st_mtime_ns for p in (self.home / "runs").rglob("images-*.parquet")}


def _read_until(process: subprocess.Popen[str], lines: int) -> None:
    """Read until so many numbers have been printed, and no further."""
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        seen += line.startswith("samples:")
        if seen >= lines:
            return
    raise AssertionError(f"the run ended after {seen} numbers: {process.communicate()[1]}")


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> User:
    """A new environment with the wheel of this checkout, and nothing else of this project."""
    home = tmp_path_factory.mktemp("home")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    quiet: dict[str, Any] = {"check": True, "capture_output": True, "timeout": 300}
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", home / "dist", ROOT], **quiet)
    (wheel,) = (home / "dist").glob("aresbench-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], **quiet)
    python = home / "venv" / "bin" / "python"
    # The test's environment has the checkout installed too; links come last, so the wheel's copy is found first.
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], **quiet)
    target = sysconfig.get_path("purelib", vars={"base": str(home / "venv"), "platbase": str(home / "venv")})
    links = [entry for entry in sys.path if entry.endswith("site-packages")]
    Path(target, "zz-requirements.pth").write_text("\n".join(links) + "\n")
    return User(home / "venv" / "bin", home)


def test_the_wheel_is_what_runs(user: User) -> None:
    code = "import aresbench; print(aresbench.__file__)"
    command = [user.bin / "python", "-c", code]
    said = subprocess.run(command, cwd=user.home, env=user.environment, capture_output=True, text=True, check=True)
    assert Path(said.stdout.strip()).is_relative_to(user.home), said.stdout


def test_plan_run_interrupt_kill_resume(user: User) -> None:
    """Ctrl-C after the first number, kill -9 some later; the same command finishes and does nothing twice."""
    planned = user.run(*RUN, "--dry-run")
    cells = int(re.findall(r"(\d+) cells, at most", planned)[0])
    assert cells == 3 * 18

    first = user.start(*RUN)
    _read_until(first, 1)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
    assert f"aresbench {' '.join(RUN)}" in err
    assert "Traceback" not in err
    after_interrupt = user.sealed()
    assert after_interrupt

    second = user.start(*RUN)
    _read_until(second, 8)
    second.kill()
    second.communicate(timeout=60)
    after_kill = user.sealed()
    assert after_kill.items() >= after_interrupt.items(), "finished work was done again"
    assert len(after_kill) < cells

    out = user.run(*RUN)
    after_end = user.sealed()
    assert after_end.items() >= after_kill.items(), "finished work was done again"
    assert user.results() == {"cells": cells, "images": cells * 8}
    for model in MODELS:
        assert model in out
    assert re.search(r"\d\s?% \[\d+–\d+\s?%\] n=8", out), "numbers come with interval and n"

    user.run(*RUN)
    assert user.sealed() == after_end, "there was nothing left to do"


def test_the_report_in_a_browser(user: User, browser: Any) -> None:
    """Needs the finished run above: the table is read from the page and a model is picked in a legend."""
    assert user.run("report", "-o", "report.html") == "report.html\n"
    browser.open(user.home / "report.html")
    browser.until(lambda: browser.script("return document.documentElement.dataset.ready") == "yes", 60)

    tables = [t for t in browser.all("section.dataset table.sortable") if DIGITS in t.text]
    assert tables, "no table shows the digits models"
    rows = [row for row in tables[0].find_elements("css selector", "tbody tr") if DIGITS in row.text]
    assert len(rows) == 2
    for row in rows:
        assert re.search(r"\d", row.find_element("css selector", "td .value").text), row.text
        assert re.search(r"\d+.*–.*\d+", row.find_element("css selector", "td .interval").text), row.text

    chart = next(c for c in browser.all(".chart") if c.find_elements("css selector", "g.role-legend-symbol path"))
    drawn = "return arguments[0].querySelector('svg').outerHTML"
    before = browser.script(drawn, chart)
    browser.click(chart.find_element("css selector", "g.role-legend-symbol path"))
    browser.until(lambda: browser.script(drawn, chart) != before)

    assert browser.console_errors() == []
    assert browser.requests() == []
