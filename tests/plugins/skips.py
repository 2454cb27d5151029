"""In CI, a skip whose reason is not in ``tests/allowed_skips.txt`` fails the run."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path
from typing import Any

import pytest

_ALLOWED = Path(__file__).parents[1] / "allowed_skips.txt"
_unexpected: list[str] = []


def _allowed(reason: str) -> bool:
    lines = (line.strip() for line in _ALLOWED.read_text("utf-8").splitlines())
    return any(fnmatch.fnmatchcase(reason, line) for line in lines if line and not line.startswith("#"))


def _look(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not _allowed(reason):
            _unexpected.append(f"{report.nodeid}: {reason}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _look(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _look(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Workers of pytest-xdist see only their share; the controller sees every report.
    if os.environ.get("CI") and _unexpected and not hasattr(session.config, "workerinput"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if os.environ.get("CI") and _unexpected:
        terminalreporter.section("skips that are not allowed (tests/allowed_skips.txt)", red=True)
        for line in dict.fromkeys(_unexpected):
            terminalreporter.line(line, red=True)
