"""``store``: where, what, copy out, copy in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aresbench.store import Store


def _fill(folder: Path, model: str, images: range, *, seal: bool = True) -> None:
    """One clean cell of a model with these images."""
    identity = {"model": {"name": model, "fingerprint": "f"}, "dataset": "digits", "threat": "clean", "seed": 0}
    cell = Store(folder).cell({"identity": identity, "task": {"name": "clean", "kind": "clean"}, "suite": None})
    rows = [
        {
            "id": f"test/{i:05d}",
            "position": i,
            "shard": i // 32,
            "label": 1,
            "prediction": 1,
            "top5": [1, 2, 3, 4, 5],
            "margin": 0.5,
            "confidence": 0.9,
            "correct": True,
        }
        for i in images
    ]
    cell.append("images", rows)
    cell.flush()
    if seal:
        cell.seal()
    cell.close()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """An archive with two models, one of whose cells was cut short before it was sealed."""
    _fill(tmp_path / "runs", "timm:a", range(40))
    _fill(tmp_path / "runs", "timm:b", range(5), seal=False)
    return tmp_path / "runs"


def _images(folder: Path) -> dict[str, int]:
    return {c.description["identity"]["model"]["name"]: len(c.images()) for c in Store(folder).cells()}


def test_path(command: Any, runs: Path) -> None:
    assert command("store", "path").out == f"{runs}\n"


def test_status(command: Any, runs: Path) -> None:
    facts = json.loads(command("store", "status", "--json").out)
    assert facts["path"] == str(runs)
    assert (facts["cells"], facts["rows"]["images"]) == (2, 45)
    assert facts["models"] == {"timm:a": 1, "timm:b": 1}
    said = command("store", "status")
    assert "45 images" in said.out
    assert "timm:b  1 cells" in said.out


def test_export_copies_chosen_models_with_unfinished_rows(command: Any, runs: Path, tmp_path: Path) -> None:
    assert command("store", "export", "timm:b", "-o", "out").status == 0
    assert _images(tmp_path / "out") == {"timm:b": 5}
    assert command("store", "export", "-o", "all").status == 0
    assert _images(tmp_path / "all") == _images(runs) == {"timm:a": 40, "timm:b": 5}


def test_export_by_pattern_and_with_a_wrong_name(command: Any, runs: Path, tmp_path: Path) -> None:
    assert command("store", "export", "timm:*", "-o", "out").status == 0
    assert len(_images(tmp_path / "out")) == 2
    said = command("store", "export", "tim:a", "-o", "other")
    assert said.status == 2
    assert "did you mean 'timm:a'" in said.err
    assert not (tmp_path / "other").exists()


def test_a_model_of_ones_own_is_chosen_as_it_was_run(command: Any, tmp_path: Path) -> None:
    _fill(tmp_path / "runs", "mine.py:make", range(3))  # results do not keep the folder of a file
    assert command("store", "export", "./mine.py:make", "-o", "out").status == 0
    assert _images(tmp_path / "out") == {"mine.py:make": 3}


def test_export_onto_itself_is_refused(command: Any, runs: Path) -> None:
    said = command("store", "export", "-o", "./runs")
    assert said.status == 2
    assert "the archive itself" in said.err


def test_merge_takes_new_rows_once(command: Any, runs: Path, tmp_path: Path) -> None:
    _fill(tmp_path / "other", "timm:a", range(32, 64))
    assert command("store", "merge", "other").status == 0
    assert _images(runs)["timm:a"] == 64
    assert "0 new cells, 0 new files" in command("store", "merge", "other").out
    assert _images(runs)["timm:a"] == 64


def test_merge_of_what_is_no_store(command: Any, runs: Path) -> None:
    said = command("store", "merge", "nowhere")
    assert said.status == 2
    assert "nowhere" in said.err


def test_a_bundle_and_back(command: Any, runs: Path, tmp_path: Path) -> None:
    said = command("store", "export", "timm:*", "-o", "b.zip")
    assert said.status == 0
    assert "2 cells in b.zip" in said.out
    assert command("store", "merge", "b.zip", "--store", "other").status == 0
    assert _images(tmp_path / "other") == _images(runs)
    assert "0 new cells, 0 new files" in command("store", "merge", "b.zip", "--store", "other").out


def test_a_damaged_bundle_is_told_in_a_sentence(command: Any, runs: Path, tmp_path: Path) -> None:
    command("store", "export", "-o", "b.zip")
    data = (tmp_path / "b.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(data[: len(data) // 2])
    said = command("store", "merge", "b.zip", "--store", "other")
    assert said.status == 2
    assert "b.zip is no bundle, or was cut short" in said.err
    assert not (tmp_path / "other").exists()
