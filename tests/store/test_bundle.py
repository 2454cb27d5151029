"""Bundles: equal results are equal files, what is damaged or foreign is named, a kill leaves no half file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aresbench
from aresbench.core.errors import StoreError
from aresbench.store import Store, read_manifest, unpacked, write_bundle
from aresbench.store.exact import origin, pack, unpack

Make = Callable[..., dict[str, Any]]
IMAGE = np.random.default_rng(0).random((3, 4, 5), np.float32)


def _break(i: int) -> dict[str, Any]:
    levels, rest = pack(IMAGE)
    facts = {"id": f"test/{i:05d}", "position": i, "shard": i // 32, "attack": "pgd", "eps": "1/255"}
    return facts | {"height": 4, "width": 5, "levels": levels, "rest": rest, "origin": origin(IMAGE)}


@pytest.fixture
def filled(store: Store, description: Make, image: Make, attempt: Make) -> Store:
    """Two cells: one whole, with a break's image, a flag and a result; one with rows still in its journal."""
    cell = store.cell(description())
    cell.append("images", [image(i) for i in range(40)])
    cell.append("attempts", [attempt(i) for i in range(40)])
    cell.seal()
    cell.add_breaks([_break(3), _break(33)])
    cell.add_provenance({"torch": "2"})
    cell.write_result({"accuracy": 1.0})
    other = store.cell(description("other"))
    other.append("images", [image(i) for i in range(3)])
    other.close()
    return store


@pytest.fixture
def bundle(filled: Store, tmp_path: Path) -> Path:
    write_bundle(tmp_path / "b.zip", filled.cells(), command="aresbench store export -o b.zip")
    return tmp_path / "b.zip"


@pytest.mark.parametrize(
    "values",
    [
        IMAGE.ravel()[:12],
        np.arange(12) / np.float32(255),
        [-0.0, 0, 1, 2, np.nan, np.inf, -np.inf, -3, 1e-40, 0.5, 1 / 510, np.nextafter(np.float32(0.1), 1)],
    ],
    ids=["any", "levels", "odd"],
)
def test_images_are_kept_to_the_bit(values: Any) -> None:
    image = np.asarray(values, np.float32).reshape(3, 2, 2)
    levels, rest = pack(image)
    assert np.array_equal(unpack(levels, rest, 2, 2).view(np.uint32), image.view(np.uint32))
    assert len(levels) == 12


def test_whole_levels_need_no_rest_and_other_types_are_refused() -> None:
    assert pack((np.arange(12) / np.float32(255)).astype(np.float32).reshape(3, 2, 2))[1] == b""
    with pytest.raises(ValueError, match="float32"):
        pack(IMAGE.astype(np.float64))


def test_a_bundle_brings_every_row_to_another_archive(bundle: Path, filled: Store, tmp_path: Path) -> None:
    target = Store(tmp_path / "new")
    assert target.merge(bundle)["cells"] == 2
    for ours, theirs in zip(target.cells(), filled.cells(), strict=True):
        assert ours.description == theirs.description
        for table in ("images", "attempts", "breaks"):
            assert getattr(ours, table)().equals(getattr(theirs, table)())
    row = next(c for c in target.cells() if len(c.images()) == 40).breaks({1}).iloc[0]
    assert (row["id"], row["origin"]) == ("test/00033", origin(IMAGE))
    assert np.array_equal(unpack(row["levels"], row["rest"], 4, 5), IMAGE)
    assert target.merge(bundle) == {"cells": 0, "files": 0}
    assert filled.merge(bundle)["cells"] == 0


def test_images_of_breaks_may_be_left_out(filled: Store, tmp_path: Path) -> None:
    write_bundle(tmp_path / "small.zip", filled.cells(), breaks=False)
    assert not any("breaks-" in name for name in read_manifest(tmp_path / "small.zip")["members"])


def test_equal_results_are_equal_files(bundle: Path, filled: Store, tmp_path: Path) -> None:
    shutil.copytree(filled.path, tmp_path / "copied")
    os.utime(tmp_path / "copied", (0, 0))
    again = tmp_path / "again.zip"
    write_bundle(again, Store(tmp_path / "copied").cells()[::-1], command="aresbench store export -o b.zip")
    assert again.read_bytes() == bundle.read_bytes()
    with zipfile.ZipFile(again) as file:
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}, "nor on another day"
    write_bundle(again, filled.cells(), command="another")
    assert again.read_bytes() != bundle.read_bytes()


def test_the_manifest_says_what_is_there(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert (manifest["format"], manifest["command"]) == (1, "aresbench store export -o b.zip")
    assert manifest["environment"]["pyarrow"]
    with zipfile.ZipFile(bundle) as file:
        assert sorted(file.namelist()) == sorted([*manifest["members"], "manifest.json"])
        for name, facts in manifest["members"].items():
            assert hashlib.sha256(file.read(name)).hexdigest() == facts["sha256"]


def test_a_result_goes_along_only_where_it_is_that_of_the_rows(filled: Store, image: Make, tmp_path: Path) -> None:
    cell = next(c for c in filled.cells() if len(c.images()) == 40)
    write_bundle(tmp_path / "b.zip", [cell])
    with unpacked(tmp_path / "b.zip") as folder:
        assert Store(folder).cells()[0].result() == {"accuracy": 1.0}
    cell.append("images", [image(50)])
    cell.flush()
    write_bundle(tmp_path / "b.zip", [cell])
    assert not any(name.endswith("result.json") for name in read_manifest(tmp_path / "b.zip")["members"])


def _rewritten(bundle: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The bundle with its members changed; the zip's own checksums are right."""
    with zipfile.ZipFile(bundle) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    with zipfile.ZipFile(bundle, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return bundle


def _first(members: dict[str, bytes], word: str) -> str:
    return next(name for name in sorted(members) if word in name)


def _flip(members: dict[str, bytes]) -> None:
    name = _first(members, "attempts-")
    members[name] = members[name][:50] + bytes([members[name][50] ^ 1]) + members[name][51:]


def _lose(members: dict[str, bytes]) -> None:
    del members[_first(members, "attempts-")]


def _smuggle(members: dict[str, bytes]) -> None:
    members["cells/../../attempts-evil"] = b"x"


def _smuggle_listed(members: dict[str, bytes]) -> None:
    manifest = json.loads(members["manifest.json"])
    manifest["members"]["../attempts-evil"] = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}
    members |= {"../attempts-evil": b"x", "manifest.json": json.dumps(manifest).encode()}


@pytest.mark.parametrize("change", [_flip, _lose, _smuggle, _smuggle_listed])
def test_a_member_that_is_damaged_missing_or_foreign_is_named(
    bundle: Path, change: Callable[[dict[str, bytes]], None], tmp_path: Path
) -> None:
    target = Store(tmp_path / "new")
    with pytest.raises(StoreError, match="attempts-"):
        target.merge(_rewritten(bundle, change))
    assert target.cells() == [] and not (tmp_path.parent / "attempts-evil").exists()


def test_a_cell_under_anothers_name_is_refused(bundle: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        name = _first(members, "cell.json")
        members[name] = members[name].replace(b'"seed":0', b'"seed":1')
        manifest = json.loads(members["manifest.json"])
        manifest["members"][name]["sha256"] = hashlib.sha256(members[name]).hexdigest()
        members["manifest.json"] = json.dumps(manifest).encode()

    with pytest.raises(StoreError, match=r"cell\.json describes another cell"), unpacked(_rewritten(bundle, change)):
        pass


def test_spoilt_bytes_and_a_file_cut_short_are_named(bundle: Path, tmp_path: Path) -> None:
    data = bundle.read_bytes()
    with zipfile.ZipFile(bundle) as file:
        info = next(i for i in file.infolist() if "images-" in i.filename)
    spoilt = tmp_path / "spoilt.zip"
    at = info.header_offset + 200
    spoilt.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    with pytest.raises(StoreError, match=r"images-.* is not what the manifest says"), unpacked(spoilt):
        pass
    spoilt.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreError, match="cut short"), unpacked(spoilt):
        pass


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        (None, "no manifest.json"),
        (b"{", "no manifest.json"),
        (b"{}", "another program"),
        (b'{"kind": "aresbench bundle", "format": 2}', "format 2"),
        (b'{"kind": "aresbench bundle", "format": 1}', "lists no members"),
    ],
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, manifest: bytes | None, told: str) -> None:
    path = tmp_path / "foreign.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt" if manifest is None else "manifest.json", manifest or b"hello")
    with pytest.raises(StoreError, match=told):
        Store(tmp_path / "new").merge(path)
    with pytest.raises(StoreError, match="is a folder"):
        read_manifest(tmp_path)


def test_a_full_disk_leaves_no_half_bundle(filled: Store, small_disk: Path, description: Make) -> None:
    cell = filled.cell(description("large"))
    noise = np.random.default_rng(1).random((3, 300, 300), np.float32)
    levels, rest = pack(noise)
    cell.add_breaks([_break(0) | {"height": 300, "width": 300, "levels": levels, "rest": rest}])
    if not os.path.ismount(small_disk):
        pytest.skip("needs a disk that can be mounted")
    with pytest.raises(StoreError, match="disk is full"):
        write_bundle(small_disk / "b.zip", filled.cells())
    assert list(small_disk.iterdir()) == []


def test_a_kill_while_packing_leaves_the_former_bundle_whole(bundle: Path, filled: Store) -> None:
    before = bundle.read_bytes()
    code = (
        "import sys, time\n"
        "from aresbench.store import Store, bundle\n"
        "def slow(cell, breaks, real=bundle._files):\n"
        "    for pair in real(cell, breaks):\n"
        "        yield pair\n"
        "        print('packed', flush=True)\n"
        "        time.sleep(30)\n"
        "bundle._files = slow\n"
        "bundle.write_bundle(sys.argv[2], Store(sys.argv[1]).cells())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(aresbench.__file__).parents[1])}
    words = [sys.executable, "-c", code, str(filled.path), str(bundle)]
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"packed\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert bundle.read_bytes() == before
    with unpacked(bundle) as folder:
        assert len(Store(folder).cells()) == 2
