"""Errors are plain words on stderr and an exit status; a traceback only when asked for."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from aresbench.cli import list_, main
from aresbench.core.errors import DataError


def _raising(error: BaseException) -> Any:
    def call(args: argparse.Namespace) -> int:
        raise error

    return call


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the verb ``list`` raise."""
    return lambda error: monkeypatch.setattr(list_, "call", _raising(error))


def test_an_error_is_a_problem_and_a_remedy_without_traceback(command: Any, broken: Any) -> None:
    broken(DataError("a.png is truncated", "fetch it again"))
    said = command("list", "attacks")
    assert said.status == 2
    assert said.out == ""
    assert said.err == "aresbench: a.png is truncated\n  → fetch it again\n"


def test_debug_shows_the_traceback(command: Any, broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARESBENCH_DEBUG", "1")
    broken(DataError("a.png is truncated"))
    with pytest.raises(DataError):
        main.main(["list", "attacks"])


def test_a_bug_is_never_dressed_up(command: Any, broken: Any) -> None:
    broken(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        command("list", "attacks")


def test_interrupted(command: Any, broken: Any) -> None:
    broken(KeyboardInterrupt())
    said = command("list", "attacks")
    assert said.status == 130
    assert "interrupted" in said.err


def test_a_reader_that_stops_reading_is_no_error(fresh: Any) -> None:
    said = fresh(
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-m', 'aresbench', 'list', 'attacks', '--json'],"
        " stdout=subprocess.PIPE, stderr=subprocess.PIPE)\n"
        "p.stdout.close()\n"
        "print(p.wait(), p.stderr.read())"
    )
    assert said.out == "0 b''\n"


@pytest.mark.parametrize("n", ["0", "-3", "many"])
def test_n_is_a_whole_number_above_zero(command: Any, n: str) -> None:
    said = command("run", f"--n={n}")
    assert said.status == 2
    assert "whole number above 0" in said.err


@pytest.mark.parametrize("words", ["report", "compare a b", "store export -o out"])
def test_readers_of_an_empty_store_say_how_to_fill_it(command: Any, words: str) -> None:
    said = command(*words.split(), "--store", "nothing-here")
    assert said.status == 2
    assert "aresbench run MODEL" in said.err


def test_a_folder_that_is_no_store_is_left_alone(command: Any, tmp_path: Any) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    said = command("store", "status", "--store", "photos")
    assert said.status == 2
    assert "not a store" in said.err


@pytest.mark.parametrize("device", ["nonsense", "cuda:77"])
@pytest.mark.parametrize(
    "words", ["run samples:digits-plain", "run samples:digits-plain --dry-run", "doctor samples:digits-plain"]
)
def test_a_device_that_is_not_there_is_named(command: Any, words: str, device: str) -> None:
    said = command(*words.split(), "--device", device)
    assert said.status == 2
    assert f"no device {device!r}" in said.err


def test_a_model_that_fails_on_the_images_is_said_in_words(command: Any, tmp_path: Any) -> None:
    (tmp_path / "mine.py").write_text(
        "import aresbench as ab, torch\n"
        "def make():\n"
        "    return ab.Classifier(torch.nn.Linear(7, 10), classes=[str(k) for k in range(10)], preprocessing=8)\n"
    )
    said = command("doctor", "./mine.py:make", "--data", "digits")
    assert said.status == 2
    assert "mine.py:make fails on images of shape" in said.err


@pytest.mark.parametrize(("text", "line"), [("x = 1\ndef f(:\n", 2), ("import torch\n\nimport nosuchmodule\n", 3)])
def test_a_file_of_ones_own_that_cannot_be_imported_names_the_line(
    command: Any, tmp_path: Any, text: str, line: int
) -> None:
    (tmp_path / "mine.py").write_text(text)
    said = command("doctor", "./mine.py:make")
    assert said.status == 2
    assert "mine.py cannot be imported" in said.err
    assert f"see line {line}" in said.err
