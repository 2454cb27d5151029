"""Each finding about a dataset fires on a planted fault, says what to do, and stays quiet on honest files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aresbench.core.errors import SpecError, UnknownName
from aresbench.core.flag import Flag
from aresbench.data.load import load_dataset
from aresbench.engine.doctor_data import examine_data, examine_dataset


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve digits as pictures, in folders named by class."""
    data = load_dataset("digits")
    for k in range(12):
        folder = tmp_path / "photos" / str(data.labels[k])
        folder.mkdir(parents=True, exist_ok=True)
        data.picture(k).save(folder / f"{k}.png")
    return tmp_path / "photos"


def findings(spec: str, n: int | None = None, **options: Any) -> dict[str, Flag]:
    _, flags = examine_dataset(spec, n=n, **options)
    assert all(flag.message and flag.remedy and flag.about == "data" for flag in flags)
    return {flag.name: flag for flag in flags}


def test_honest_files_pass(photos: Path) -> None:
    data, flags = examine_dataset(f"folder:{photos}")
    assert flags == [] and data is not None and len(data) == 12


def test_torn_files_and_copies(photos: Path) -> None:
    first = next(photos.rglob("*.png"))
    load_dataset(f"folder:{photos}").picture(0).save(photos / "other.bmp")  # lies in no class folder
    (first.parent / "copy.png").write_bytes(first.read_bytes())
    (first.parent / "torn.png").write_bytes(first.read_bytes()[:70])
    found = findings(f"folder:{photos}")
    assert list(found) == ["unreadable-images", "duplicates"], "errors first"
    assert "torn.png" in found["unreadable-images"].message
    assert found["duplicates"].evidence["groups"] == [sorted([f"{first.parent.name}/{first.name}", _id(first, "copy")])]


def _id(file: Path, stem: str) -> str:
    return f"{file.parent.name}/{stem}.png"


def test_a_copy_is_seen_through_another_encoding(photos: Path) -> None:
    data = load_dataset(f"folder:{photos}")
    source = data.source(0)
    assert source is not None
    data.picture(0).save(source.with_name("again.bmp"))
    assert "again.bmp" in findings(f"folder:{photos}")["duplicates"].message


def test_one_picture_under_two_labels(photos: Path) -> None:
    one, other = sorted(photos.iterdir())[:2]
    file = next(one.iterdir())
    (other / "same.png").write_bytes(file.read_bytes())
    found = findings(f"folder:{photos}")
    assert list(found) == ["two-labels", "duplicates"]
    assert f"({one.name})" in found["two-labels"].message and f"({other.name})" in found["two-labels"].message


def test_pictures_of_the_same_bytes_and_another_shape_are_no_copies(tmp_path: Path) -> None:
    x = np.zeros((1, 4, 9, 3), np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=[0])
    np.savez(tmp_path / "b.npz", x=x.reshape(1, 6, 6, 3), y=[0])
    for name in ("a", "b"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        load_dataset(f"npz:{tmp_path / name}.npz").picture(0).save(folder / "1.png")
    assert findings(f"folder:{tmp_path / 'photos'}") == {}


def test_only_the_first_images_are_looked_at(photos: Path) -> None:
    data = load_dataset(f"folder:{photos}")
    last = data.source(11)
    assert last is not None
    last.write_bytes(b"torn")
    assert "unreadable-images" in findings(f"folder:{photos}", 12) and findings(f"folder:{photos}", 11) == {}
    told: list[tuple[int, int]] = []
    examine_data(data, 5, lambda done, total: told.append((done, total)))
    assert told == [(5, 5)]


def test_classes_without_images_are_mentioned() -> None:
    data = load_dataset("digits")[np.flatnonzero(load_dataset("digits").labels < 3)[:20]]
    assert {f.name for f in examine_data(data)} == {"classes-without-images"}


def test_what_cannot_be_loaded_is_a_finding(tmp_path: Path) -> None:
    data, (flag,) = examine_dataset("imagenet-c(corruption=frog, severity=1)", tmp_path)
    assert data is None
    assert (flag.name, flag.level) == ("cannot-be-loaded", "error") and "'fog'" in flag.remedy
    with pytest.raises(UnknownName):
        examine_dataset("imagenet-d")
    with pytest.raises(SpecError):
        examine_dataset("imagenet-c")


def test_the_datasets_own_findings_are_told(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    def check(self: object, n: int | None = None) -> list[Flag]:
        asked.append(n)
        return [Flag("own", "error", "data", "a fault", "a remedy")]

    monkeypatch.setattr("aresbench.data.folder.Folder.check", check)
    assert list(findings(f"folder:{photos}", 3)) == ["own"] and asked == [3]


def test_the_licence_is_a_finding(photos: Path) -> None:
    assert findings(f"folder:{photos}", commercial=True) == {}
    found = findings("samples", 2, commercial=True)
    assert found["not-for-commercial-use"].level == "error" and "foolbox" in found["not-for-commercial-use"].message
    assert "not-for-commercial-use" not in findings("samples", 2)


def rename(photos: Path, names: list[str]) -> None:
    for folder, name in zip(sorted(photos.iterdir()), names, strict=False):
        folder.rename(photos / name)


def test_splits_taken_for_classes(photos: Path) -> None:
    root = photos.parent / "whole"
    root.mkdir()
    photos.rename(root / "val")
    (root / "train").mkdir()
    (root / "train/1.png").write_bytes(next((root / "val").rglob("*.png")).read_bytes())
    found = findings(f"folder:{root}")["folders-are-splits"]
    assert found.level == "error" and found.remedy.endswith(f"folder:{root / 'val'}")


def test_severities_taken_for_classes(photos: Path) -> None:
    root = photos.parent / "imagenet-c/fog"
    for severity in "12345":
        (root / severity / "n01440764").mkdir(parents=True)
        (root / severity / "n01440764/a.png").write_bytes(next(photos.rglob("*.png")).read_bytes())
    found = findings(f"folder:{root}")["folders-are-severities"]
    assert f"imagenet-c(corruption=fog, severity=3):{root.parent}" in found.remedy


def test_numbers_taken_for_names(photos: Path) -> None:
    rename(photos, ["0", "1", "10", "100"])
    found = findings(f"folder:{photos}")["folders-are-numbers"]
    assert found.level == "warning" and "classes.txt" in found.remedy and "imagenet-v2" in found.remedy
    (photos / "classes.txt").write_text("".join(f"{p.name} class {p.name}\n" for p in photos.iterdir() if p.is_dir()))
    assert findings(f"folder:{photos}") == {}


def test_imagenet_read_as_a_folder(photos: Path) -> None:
    file = next(sorted(photos.iterdir())[0].iterdir())
    file.rename(file.with_name("ILSVRC2012_val_00000293.png"))
    found = findings(f"folder:{photos}")["is-imagenet"]
    assert found.level == "info" and "imagenet:/path" in found.remedy
