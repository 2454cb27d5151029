"""``cache``: where decoded pictures lie, how much room they take, and how they are removed."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aresbench.core.preprocessing import Preprocessing
from aresbench.data.cache import PictureCache
from aresbench.data.load import load_dataset


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two sample photographs at one size and one at another."""
    monkeypatch.setenv("ARESBENCH_CACHE", str(tmp_path / "kept"))
    samples = load_dataset("samples")
    PictureCache().load(samples, [0, 1], Preprocessing((32, 32), 36))
    PictureCache().load(samples, [0], Preprocessing((16, 16), squash=True))
    return tmp_path / "kept" / "pictures"


def test_path_and_status(command: Any, kept: Path) -> None:
    assert command("cache", "path").out == f"{kept}\n"
    lines = command("cache", "status").out.splitlines()
    assert lines[0].startswith(f"{kept}: ") and len(lines) == 3
    assert any("samples" in line and "32×32 of 36 (bicubic)" in line and "2 pictures" in line for line in lines)
    assert any("16×16, both sides resized (bicubic)" in line and "1 pictures" in line for line in lines)
    facts = json.loads(command("cache", "status", "--json").out)
    assert facts["path"] == str(kept) and sorted(entry["pictures"] for entry in facts["kept"]) == [1, 2]
    assert facts["bytes"] == sum(entry["bytes"] for entry in facts["kept"]) > 0


def test_clear(command: Any, kept: Path) -> None:
    said = command("cache", "clear", "sample")
    assert said.status == 2 and "did you mean 'samples'" in said.err
    assert command("cache", "clear", "samples").out.startswith("3 pictures removed")
    assert list(kept.iterdir()) == []
    assert command("cache", "clear").out.startswith("0 pictures removed")


def test_what_is_kept_of_packed_pictures(command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARESBENCH_CACHE", str(tmp_path / "kept"))
    samples = load_dataset("samples")
    picture = samples.file_bytes(0)
    assert picture is not None
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("a.jpg", picture), ("a.cls", b"0")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    load_dataset(f"shards:{tmp_path / 'a.tar'}")
    pq.write_table(pa.table({"image": [picture] * 3, "label": [0, 1, 2]}), tmp_path / "b.parquet")
    load_dataset(f"hf-dataset:{tmp_path / 'b.parquet'}")
    lines = command("cache", "status").out.splitlines()
    assert [line.partition(":")[0] for line in lines[1:]] == [
        str(tmp_path / "kept" / k) for k in ("indexes", "unpacked")
    ]
    packed = json.loads(command("cache", "status", "--json").out)["packed"]
    assert [one["kind"] for one in packed] == ["indexes", "unpacked"] and packed[1]["bytes"] > 3 * len(picture)
    assert command("cache", "clear", "samples").status == 2
    out = command("cache", "clear").out
    assert "indexes: 1 files removed" in out and "unpacked: 2 files removed" in out  # with its lock
    assert not [p for p in (tmp_path / "kept").rglob("*") if p.is_file()]
    assert len(command("cache", "status").out.splitlines()) == 1


def test_empty_and_switched_off(command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARESBENCH_CACHE", str(tmp_path / "nothing"))
    assert command("cache", "status").out == f"{tmp_path / 'nothing' / 'pictures'}: 0 B\n"
    monkeypatch.setenv("ARESBENCH_CACHE", "off")
    said = command("cache", "status")
    assert said.status == 2 and "switched off" in said.err


def test_dry_run_says_how_much_room_it_takes(command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARESBENCH_CACHE", str(tmp_path / "kept"))
    suite = tmp_path / "two.toml"
    suite.write_text(
        'name = "two"\nversion = 1\ntitle = "Two tasks on photographs, one on arrays"\n'
        '[[tasks]]\ndata = "samples"\nn = 3\nthreats = ["clean"]\n'
        '[[tasks]]\ndata = "samples"\nn = 5\nthreats = ["corruption(fog, 1)"]\n'
    )
    said = command("run", "samples:efficientnet-lite0", "--suite", str(suite), "--dry-run")
    assert f"up to 752.6 kB more in {tmp_path / 'kept' / 'pictures'}" in said.out  # 5 × 3 × 224 × 224
    assert not (tmp_path / "kept").exists()
    monkeypatch.setenv("ARESBENCH_CACHE", "off")
    assert (
        "decoded pictures" not in command("run", "samples:efficientnet-lite0", "--suite", str(suite), "--dry-run").out
    )
