"""``aresbench doctor`` on datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / f"photos/{name}/1.png")
    return tmp_path / "photos"


def test_nothing_to_complain_about(command: Any, photos: Path) -> None:
    said = command("doctor", f"folder:{photos}")
    assert said.status == 0
    assert said.out == f"folder:{photos}: 2 images, 2 classes\nnothing to complain about\n"


def test_an_error_is_told_with_its_remedy(command: Any, photos: Path) -> None:
    (photos / "cat/torn.png").write_bytes(b"")
    said = command("doctor", "folder", "--root", str(photos))
    assert said.status == 1
    assert "✗ error: unreadable-images" in said.out and "→ restore the files" in said.out
    assert command("doctor", f"folder:{photos}", "--n", "1").out.startswith(
        f"folder:{photos}: 3 images, 2 classes; the first 1 were looked at\n"
    )


def test_what_cannot_be_loaded_is_told_as_a_finding(command: Any, photos: Path) -> None:
    said = command("doctor", "imagenet-c(corruption=fgo, severity=3)", "--root", str(photos), "--json")
    (flag,) = json.loads(said.out)
    assert said.status == 1
    assert flag["name"] == "cannot-be-loaded" and "'fog'" in flag["remedy"]


def test_many_published_sets_at_once(command: Any, photos: Path) -> None:
    words = ("doctor", "imagenet-c(corruption=[fog, snow], severity=[1, 5])", "--root", str(photos))
    records = json.loads(command(*words, "--json").out)
    assert [record["thing"] for record in records] == [
        f"imagenet-c(corruption={name}, severity={severity})" for name in ("fog", "snow") for severity in (1, 5)
    ]
    said = command(*words)
    assert said.status == 1
    assert said.out.count("✗ error: cannot-be-loaded") == 4


def test_a_path_behind_settings_is_a_dataset(command: Any, photos: Path) -> None:
    said = command("doctor", f"imagenet-c(corruption=fog, severity=3):{photos}")
    assert said.status == 1
    assert "has no folder fog" in said.out


def test_the_gate_for_commercial_use(command: Any, photos: Path) -> None:
    assert command("doctor", f"folder:{photos}", "--commercial").status == 0
    said = command("doctor", "dataset", "--commercial")
    assert said.status == 2
    refused = command("doctor", "samples", "--n", "1", "--commercial")
    assert refused.status == 1
    assert "not-for-commercial-use" in refused.out
    model = command("doctor", "samples:efficientnet-lite0", "--data", "samples", "--commercial")
    assert model.status == 2
    assert "samples is refused" in model.err
