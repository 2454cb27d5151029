"""Stores are opened, listed, merged by copying and refused kindly."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aresbench.core.errors import StoreError
from aresbench.store import Cell, Store

Make = Callable[..., dict[str, Any]]


def test_opening_touches_nothing_and_an_empty_store_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    assert store.cells() == [] and store.status().cells == 0
    assert not (tmp_path / "none").exists()
    with pytest.raises(StoreError, match=r"does not exist(.|\n)*aresbench run"):
        store.require_cells()
    (tmp_path / "none").mkdir()
    with pytest.raises(StoreError, match="is empty"):
        Store(tmp_path / "none").require_cells()


def test_a_cell_is_found_again_by_its_identity(store: Store, description: Make) -> None:
    cell = store.cell(description())
    again = Store(store.path).cell(description() | {"suite": "another view of the same cell"})
    assert (again.key, again.description) == (cell.key, cell.description)
    other = description()
    other["identity"]["seed"] = 1
    assert store.cell(other).key != cell.key
    assert [c.key for c in store.cells()] == sorted([cell.key, store.cell(other).key])
    assert len(cell.key) == 16 and "m on digits, clean" in repr(cell)


def test_key_does_not_depend_on_the_order_of_fields_or_on_tuples(store: Store, description: Make) -> None:
    plain = description()
    turned = dict(reversed(plain["identity"].items())) | {"protocol": {"size": (32, 32)}}
    assert store.cell(plain).key == store.cell({"identity": turned}).key


@pytest.mark.parametrize("bad", [{}, {"identity": "text"}, {"identity": {"eps": float("nan")}}])
def test_a_description_must_be_plain_and_have_an_identity(store: Store, bad: dict[str, Any]) -> None:
    with pytest.raises(StoreError):
        store.cell(bad)


def test_a_folder_of_something_else_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="not a store"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="is a file"):
        Store(tmp_path / "thesis.tex")


@pytest.mark.parametrize("found", [0, 2, "two"])
def test_a_store_of_another_version_is_refused_with_the_remedy(store: Store, description: Make, found: object) -> None:
    store.cell(description())
    (store.path / "archive.json").write_text(json.dumps({"format": found}))
    with pytest.raises(StoreError, match=rf"has format {found}(.|\n)*start a new store"):
        Store(store.path)


def test_a_store_whose_first_moment_was_killed_is_no_obstacle(tmp_path: Path, description: Make) -> None:
    (tmp_path / ".tmp-1234").write_text("half")
    store = Store(tmp_path)
    cell = store.cell(description())
    (store.path / "cells" / ("0" * 16)).mkdir()  # made, but killed before its description was written
    assert [c.key for c in store.cells()] == [cell.key]


def fill(store: Store, description: Make, image: Make, attempt: Make, numbers: range) -> Cell:
    cell = store.cell(description())
    cell.append("images", [image(i) for i in numbers])
    cell.append("attempts", [attempt(i) for i in numbers])
    return cell


def test_merging_takes_everything_once(tmp_path: Path, description: Make, image: Make, attempt: Make) -> None:
    first, second = Store(tmp_path / "a"), Store(tmp_path / "b")
    fill(first, description, image, attempt, range(40)).seal()
    theirs = fill(second, description, image, attempt, range(20, 80))
    theirs.seal([0, 1])  # the last shard stays in a journal that is still being written
    theirs.add_provenance({"host": "b"})
    second.cell(description("only there")).append("images", [image(0)])
    assert first.merge(second.path) == {"cells": 1, "files": 8}
    assert first.merge(second.path) == {"cells": 0, "files": 0}
    merged = first.cell(description())
    assert merged.images()["position"].tolist() == list(range(80))
    assert merged.attempts()["position"].tolist() == list(range(80))
    assert merged.provenance() == [{"host": "b"}]
    assert first.merge(first.path) == {"cells": 0, "files": 0}


def test_merging_is_copying(tmp_path: Path, description: Make, image: Make, attempt: Make) -> None:
    first, second = Store(tmp_path / "a"), Store(tmp_path / "b")
    fill(first, description, image, attempt, range(40)).seal()
    fill(second, description, image, attempt, range(30, 70)).close()
    shutil.copytree(second.path, first.path, dirs_exist_ok=True)
    cell = first.cell(description())
    assert cell.images()["position"].tolist() == list(range(70))
    cell.seal()
    assert cell.attempts()["position"].tolist() == list(range(70))
    assert first.status().journals == 0


def test_merging_refuses_what_is_damaged_or_no_store(tmp_path: Path, description: Make, image: Make) -> None:
    theirs = Store(tmp_path / "b").cell(description())
    theirs.append("images", [image(0)])
    theirs.seal()
    path = next(theirs.folder.glob("*.parquet"))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(StoreError, match=path.name):
        Store(tmp_path / "a").merge(tmp_path / "b")
    with pytest.raises(StoreError, match="does not exist"):
        Store(tmp_path / "a").merge(tmp_path / "c")


def test_status_counts(store: Store, description: Make, image: Make, attempt: Make) -> None:
    cell = fill(store, description, image, attempt, range(40))
    cell.seal([0])
    status = store.status()
    assert status.rows == {"images": 40, "attempts": 40, "examples": 0, "breaks": 0}
    assert (status.cells, status.files, status.journals, status.torn) == (1, 4, 1, 0)
    assert status.bytes == sum(path.stat().st_size for path in cell.folder.iterdir())


def test_a_thousand_descriptions_are_read_in_a_blink(store: Store, description: Make) -> None:
    marker = store.cell(description())
    for number in range(1000):
        folder = store.path / "cells" / f"{number:016x}"
        folder.mkdir()
        shutil.copy(marker.folder / "cell.json", folder)
    start = time.perf_counter()
    assert len(store.cells()) == 1001
    assert time.perf_counter() - start < 1.0


def test_a_full_disk_is_named_and_finished_work_kept(small_disk: Path, description: Make, image: Make) -> None:
    cell = Store(small_disk / "runs").cell(description())
    written = 0

    def fill_the_disk() -> None:
        nonlocal written
        for written in range(0, 100_000, 32):
            cell.append("images", [image(i) for i in range(written, written + 32)])

    with pytest.raises(StoreError, match=r"disk is full: \S+journal-\S+ could not(.|\n)*finished work is kept") as full:
        fill_the_disk()
    assert "free)" in full.value.problem
    assert written > 64
    assert cell.images()["position"].tolist() == list(range(written))  # no row lost, none half written
    with pytest.raises(StoreError, match="disk is full"):
        cell.append("images", [image(i) for i in range(1000)])
    with pytest.raises(StoreError, match=r"disk is full: \S+\.parquet"):
        cell.seal()
    assert cell.images()["position"].tolist() == list(range(written))
    with pytest.raises(StoreError, match="disk is full"):
        cell.write_result({"long": "x" * 300_000})
    assert not list(small_disk.rglob(".tmp-*"))


def test_a_file_size_limit_reads_like_a_full_disk(tmp_path: Path, description: Make) -> None:
    """The system's own refusal, in a process of its own because the limit cannot be raised again."""
    code = (
        "import sys; from aresbench.store import Store; from aresbench.core.errors import StoreError\n"
        f"cell = Store(sys.argv[1]).cell({description()!r})\n"
        "try:\n    cell.write_result({'long': 'x' * 50_000})\n"
        "except StoreError as error:\n    print(error.problem)\n"
    )
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "runs")],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "disk is full" in done.stdout and "result.json" in done.stdout
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.fixture
def forbidden() -> Iterator[Path]:
    """A folder this process may read but not write; root gives its powers up for the test."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_an_unwritable_folder_is_named(forbidden: Path, description: Make) -> None:
    with pytest.raises(StoreError, match=rf"{forbidden}\S* may not be written(.|\n)*--store DIR") as refused:
        Store(forbidden / "runs").cell(description())
    assert isinstance(refused.value.__cause__, OSError) and refused.value.__cause__.errno == errno.EACCES


def test_a_parent_that_is_a_file_is_named(tmp_path: Path, description: Make) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / "file" / "runs").cell(description())
