"""ImageNet-C and ImageNet-C̄: found in every layout, paired with ImageNet, and told from what was saved again."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aresbench.core.errors import DataError, SpecError
from aresbench.core.preprocessing import Preprocessing
from aresbench.data import corrupted
from aresbench.data.base import load_images
from aresbench.data.imagenet_c import C_BAR
from aresbench.data.jpeg_files import luminance_table
from aresbench.data.load import load_dataset

FOG = "imagenet-c(corruption=fog, severity=3, partial=true)"


def flags(data: Any, n: int | None = None) -> dict[str, Any]:
    return {flag.name: flag for flag in data.check(n)}


def test_nineteen_names_in_five_archives() -> None:
    assert len(corrupted.COMMON) == len(set(corrupted.COMMON)) == 19
    assert [len(names) for names in corrupted.ARCHIVES.values()] == [3, 4, 4, 4, 4]
    assert len(C_BAR) == 10


def test_the_whole_pairs_with_imagenet(imagenet: Path, tmp_path: Path) -> None:
    (tmp_path / "weather/fog").mkdir(parents=True)
    (tmp_path / "weather/fog/3").symlink_to(imagenet / "tree/val")
    fog = load_dataset(f"imagenet-c(corruption=fog, severity=3):{tmp_path}")
    clean = load_dataset("imagenet", root=imagenet / "tree")
    assert (fog.name, fog.parent, fog.corrupted_by) == ("imagenet-c/fog/3", "imagenet", ("fog", 3))
    assert fog.ids == clean.ids and np.array_equal(fog.labels, clean.labels) and fog.classes == clean.classes
    assert clean.corrupted_by is None
    assert not isinstance(fog._listing.images, list), "75 such sets would fill the memory with paths"
    where = [(fog.source(k), clean.source(k)) for k in (0, 1, 49_999)]
    assert all(a is not None and b is not None and a.samefile(b) for a, b in where)
    assert fog[:7].corrupted_by == ("fog", 3)


def test_the_two_layouts_hold_the_same(tree: Any) -> None:
    root = tree("weather/fog/3")
    grouped = load_dataset(f"{FOG}:{root}")
    (root / "weather/fog").rename(root / "fog")
    flat = load_dataset("imagenet-c", corruption="fog", severity=3, root=root, partial=True)
    assert grouped.ids == flat.ids and grouped.name == flat.name
    assert flat.name.startswith("imagenet-c/fog/3-part-") and len(flat) == 20
    assert set(flat.labels.tolist()) == {0, 1, 5, 999}


def test_other_endings_are_found_again(tree: Any) -> None:
    root = tree("fog/3")
    for file in sorted(root.rglob("*.JPEG"))[:3]:
        file.rename(file.with_suffix(".jpg"))
    data = load_dataset(f"{FOG}:{root}")
    assert {data.source(k) for k in range(len(data))} == {p for p in root.rglob("*") if p.is_file()}


def test_pictures_of_224_are_taken_as_they_are(tree: Any, jpegs: list[Path]) -> None:
    data = load_dataset(f"{FOG}:{tree('fog/3')}")
    usual = Preprocessing((224, 224), 256, "bilinear")
    ready, _, _ = load_images(data, [0], data.prepared_by(usual))
    with Image.open(data.source(0)) as opened:
        pixels = np.asarray(opened)
    assert np.array_equal((ready[0] * 255).round().numpy().transpose(1, 2, 0), pixels)
    resized, _, _ = load_images(data, [0], usual)
    assert not np.array_equal(ready.numpy(), resized.numpy())
    other = Preprocessing((299, 299), 320, "bilinear")
    assert data.prepared_by(other) == other


def test_the_folder_from_the_environment(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARESBENCH_DATA", raising=False)
    with pytest.raises(DataError, match="neither root nor ARESBENCH_DATA") as caught:
        load_dataset(FOG)
    assert "zenodo.org/records/2235448" in caught.value.remedy
    root = tree("ImageNet-C/fog/3")
    monkeypatch.setenv("ARESBENCH_DATA", str(root / "elsewhere"))
    with pytest.raises(DataError, match=r"there is no folder .*elsewhere/imagenet-c"):
        load_dataset(FOG)
    monkeypatch.setenv("ARESBENCH_DATA", str(root))
    assert len(load_dataset(FOG)) == 20


@pytest.mark.parametrize(
    ("spec", "problem", "remedy"),
    [
        ("imagenet-c(corruption=frog, severity=3)", "no corruption 'frog'", "'fog'"),
        ("imagenet-c(corruption=Gaussian-Noise, severity=3)", "no corruption", "'gaussian_noise'"),
        ("imagenet-c(corruption=fog, severity=6)", "no severity 6", "1, 2, 3, 4 and 5"),
        ("imagenet-c(corruption=fog, severity=true)", "no severity True", "1, 2, 3, 4 and 5"),
        ("imagenet-c-bar(corruption=concentric_sine_waves, severity=1)", "no corruption", "'cocentric_sine_waves'"),
        ("imagenet-c(corruption=snow, severity=3)", "no folder snow; it has fog", "weather.tar of https://zenodo.org"),
        ("imagenet-c(corruption=fog, severity=4)", "fog has no folder 4; it has 3", "weather.tar"),
        ("imagenet-c(corruption=fog, severity=3)", "4 of ImageNet's 1000 class folders", "partial=True"),
    ],
)
def test_wrong_words_and_missing_folders(tree: Any, spec: str, problem: str, remedy: str) -> None:
    root = tree("weather/fog/3")
    with pytest.raises(DataError, match=problem) as caught:
        load_dataset(spec, root=root)
    assert re.search(remedy, caught.value.remedy)


def test_a_folder_with_a_spelling_of_its_own_is_pointed_out(tree: Any) -> None:
    root = tree("motion_blurr/3")
    with pytest.raises(DataError, match=r"no folder motion_blur\n") as caught:
        load_dataset("imagenet-c", root, corruption="motion_blur", severity=3, partial=True)
    assert "did you mean 'motion_blurr'?" in caught.value.remedy


@pytest.mark.parametrize("inside", ["fog", "fog/3"])
def test_a_root_too_deep(tree: Any, inside: str) -> None:
    with pytest.raises(DataError, match="is a part of ImageNet-C, not the whole") as caught:
        load_dataset(FOG, root=tree("fog/3") / inside)
    assert "holds the folder fog" in caught.value.remedy


def test_settings_that_must_be_given() -> None:
    with pytest.raises(SpecError, match="imagenet-c needs 'corruption'") as caught:
        load_dataset("imagenet-c")
    assert "imagenet-c(corruption=…, severity=…)" in caught.value.remedy


def test_c_bar_and_the_folders_of_its_generator(tree: Any) -> None:
    root = tree("sparkles/3")
    data = load_dataset("imagenet-c-bar", root, corruption="sparkles", severity=3, partial=True)
    assert data.name.startswith("imagenet-c-bar/sparkles/3-part-") and data.corrupted_by == ("sparkles", 3)
    assert set(flags(data)) == {"set-incomplete"}
    (root / "sparkles/3").rename(root / "sparkles/10.00")
    for dose in ("1.00", "2.00", "4.00", "9.00"):
        (root / "sparkles" / dose).mkdir()
    with pytest.raises(DataError, match="no folder 5") as caught:
        load_dataset("imagenet-c-bar", root, corruption="sparkles", severity=5)
    assert "rename 10.00 to 5" in caught.value.remedy


def test_published_files_pass(tree: Any) -> None:
    data = load_dataset(f"{FOG}:{tree('fog/3')}")
    found = flags(data)
    assert set(found) == {"set-incomplete"}
    assert found["set-incomplete"].level == "info" and "74 of the 75 folders" in found["set-incomplete"].message


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({"quality": 95}, "JPEG quality 95, 4:2:0"),
        ({"quality": 75}, "JPEG quality 75, 4:2:0"),
        ({"quality": 85, "subsampling": "4:4:4"}, "JPEG quality 85, 4:4:4"),
        ({"format": "PNG"}, "PNG"),
        ({"qtables": "web_high"}, "JPEG tables of another encoder, 4:2:0"),
    ],
)
def test_files_saved_again_are_found(tree: Any, saved: Any, options: dict[str, Any], how: str) -> None:
    data = load_dataset(f"{FOG}:{tree('fog/3', saved(**options))}")
    found = flags(data, 5)
    assert found["re-saved"].level == "error" and found["re-saved"].evidence == {"count": 5, "how": {how: 5}}
    assert "zenodo.org/records/2235448" in found["re-saved"].remedy
    assert "resized" not in found


def test_resized_files_are_found(tree: Any, saved: Any) -> None:
    found = flags(load_dataset(f"{FOG}:{tree('fog/3', saved((256, 256)))}"))
    assert "20 of 20 pictures are not 224×224, most of them 256×256" in found["resized"].message
    assert "re-saved" not in found


def test_a_complete_set_gets_no_note(tree: Any) -> None:
    root = tree("weather/fog/3")
    for archive, names in corrupted.ARCHIVES.items():
        for name in names if archive != "extra" else ():
            for severity in range(1, 6):
                (root / archive / name / str(severity)).mkdir(parents=True, exist_ok=True)
    assert flags(load_dataset(f"{FOG}:{root}")) == {}


@pytest.mark.parametrize("quality", [1, 40, 50, 85, 100])
def test_tables_are_libjpegs(quality: int) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    assert luminance_table(quality) == tuple(Image.open(file).quantization[0])
