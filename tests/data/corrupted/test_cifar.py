"""CIFAR-100, CIFAR-10.1 and the corrupted CIFARs: the right rows, the right labels, and arrays that are not theirs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aresbench.core.errors import DataError
from aresbench.data import checksums, cifar, cifar100, cifar_c
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset

Edit = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cifar-100-python/test as published, with random pixels."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("cifar100") / "cifar-100-python"
    folder.mkdir()
    fine = rng.permutation(np.repeat(np.arange(100), 100))
    content = {
        "data": rng.integers(0, 256, (10_000, 3072), dtype=np.uint8),
        "fine_labels": fine.tolist(),
        "coarse_labels": (fine // 5).tolist(),
        "filenames": [f"{k}.png" for k in range(10_000)],
        "batch_label": "testing batch 1 of 1",
    }
    (folder / "test").write_bytes(pickle.dumps(content, protocol=2))
    return folder


def test_cifar100_has_its_fine_labels(batch: Path) -> None:
    data = load_dataset("cifar100", root=batch.parent)
    published = pickle.loads((batch / "test").read_bytes())
    assert (data.name, len(data), len(data.classes)) == ("cifar100", 10_000, 100)
    assert list(data.classes.names) == sorted(data.classes.names) and data.classes.names[49] == "mountain"
    place = int(data.ids[3].removeprefix("test/"))
    x, _, _ = load_images(data, [3], None)
    assert np.array_equal((x[0] * 255).round().numpy(), published["data"][place].reshape(3, 32, 32))
    assert data.labels[3] == published["fine_labels"][place]
    with pytest.raises(DataError, match="no split 'tset'"):
        load_dataset("cifar100", root=batch, split="tset")
    with pytest.raises(DataError, match=r"CIFAR-100's file .*train is missing"):
        load_dataset("cifar100", root=batch, split="train")


def test_the_doctor_knows_the_published_files(batch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_dataset("cifar100", root=batch)
    (flag,) = data.check()
    assert flag.name == "not-as-published" and flag.evidence == {"files": ["test"]}
    monkeypatch.setitem(cifar100._PUBLISHED, "test", checksums.md5_of(batch / "test"))
    assert data.check() == []


def test_cifar10_files_are_compared_too(batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.loads((batch / "test").read_bytes())
    content["labels"] = [k % 10 for k in range(10_000)]
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    data = load_dataset("cifar10", root=tmp_path)
    assert [flag.name for flag in data.check()] == ["not-as-published"]
    monkeypatch.setitem(cifar._PUBLISHED, "test_batch", checksums.md5_of(tmp_path / "test_batch"))
    assert data.check() == []


def test_md5_is_md5(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert checksums.md5_of(tmp_path / "file") == "d41d8cd98f00b204e9800998ecf8427e"


def labels_like(first: tuple[int, ...], classes: int) -> np.ndarray:
    """10,000 labels, as many of each class, that begin as the published ones do."""
    left = np.repeat(np.arange(classes), 10_000 // classes).tolist()
    for label in first:
        left.remove(label)
    return np.array([*first, *left], dtype=np.uint8)


@pytest.fixture(params=["cifar10", "cifar100"])
def arrays(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A folder with fog.npy, zero (a sparse file) but for the corners of some rows, and labels.npy."""
    name = request.param
    folder = tmp_path / {"cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C"}[name]
    folder.mkdir()
    x = np.lib.format.open_memmap(folder / "fog.npy", "w+", np.uint8, (50_000, 32, 32, 3))
    for severity in range(5):
        x[severity * 10_000 + 17, 0, 0] = (severity + 1, 2, 3)
    x.flush()
    y = labels_like(*((cifar_c._FIRST_10, 10) if name == "cifar10" else (cifar_c._FIRST_100, 100)))
    np.save(folder / "labels.npy", np.tile(y, 5))
    return name, tmp_path


@pytest.mark.parametrize("severity", [1, 5])
def test_rows_of_a_severity(arrays: tuple[str, Path], severity: int) -> None:
    name, root = arrays
    data = load_dataset(f"{name}-c(corruption=fog, severity={severity}):{root}")
    assert (data.name, len(data)) == (f"{name}-c/fog/{severity}", 10_000)
    assert (data.parent, data.corrupted_by) == (name, ("fog", severity))
    place = data.ids.index("test/00017")
    assert np.asarray(data.picture(place))[0, 0].tolist() == [severity, 2, 3]
    x, _, _ = load_images(data, [place], None)
    assert (x[0, :, 0, 0] * 255).round().tolist() == [severity, 2, 3]
    assert data.labels[data.ids.index("test/00000")] == (3 if name == "cifar10" else 49)


def test_corrupted_and_clean_pair(arrays: tuple[str, Path], batch: Path, tmp_path: Path) -> None:
    name, root = arrays
    content = pickle.loads((batch / "test").read_bytes())
    content["labels"] = [k % 10 for k in range(10_000)]
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    fog = load_dataset(f"{name}-c", root, corruption="fog", severity=1)
    clean = load_dataset(name, tmp_path if name == "cifar10" else batch)
    assert fog.ids == clean.ids and fog.classes == clean.classes


def damage(path: Path, edit: Edit) -> None:
    array = np.array(np.load(path, mmap_mode="r")[:: 5 if path.stem == "fog" else 1])
    np.save(path, edit(array))


@pytest.mark.parametrize(
    ("file", "edit", "problem", "remedy"),
    [
        ("fog", lambda x: x, r"shape \[10000, 32, 32, 3\] where CIFAR.* \(5 severities", "zenodo.org"),
        ("fog", lambda x: x[:9] / np.float32(255), "numbers of type float32; .* uint8", "zenodo.org"),
        ("labels", lambda y: y[:10_000], r"shape \[10000\] and type uint8; it must be 50,000", "zenodo.org"),
        ("labels", lambda y: y.astype(np.float32), "type float32; it must be 50,000 integers", "zenodo.org"),
        ("labels", lambda y: np.sort(y), "not the same 10,000 labels five times", "another order"),
        ("labels", lambda y: np.tile(np.sort(y[:10_000]), 5), r"published order: it begins with \[0, 0", "not sorted"),
        ("labels", lambda y: np.tile(y[:10_000] // 5, 5), "published order", "not coarse"),
    ],
)
def test_arrays_that_are_not_the_published_ones(
    arrays: tuple[str, Path], file: str, edit: Edit, problem: str, remedy: str
) -> None:
    name, root = arrays
    damage(next(root.glob(f"*/{file}.npy")), edit)
    with pytest.raises(DataError, match=problem) as caught:
        load_dataset(f"{name}-c(corruption=fog, severity=1):{root}")
    assert remedy in caught.value.remedy


def test_channels_first_and_files_cut_short(arrays: tuple[str, Path]) -> None:
    name, root = arrays
    file = next(root.glob("*/fog.npy"))
    np.lib.format.open_memmap(file, "w+", np.uint8, (50_000, 3, 32, 32)).flush()
    with pytest.raises(DataError, match="channels first"):
        load_dataset(f"{name}-c(corruption=fog, severity=1):{root}")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match="is no readable array"):
        load_dataset(f"{name}-c(corruption=fog, severity=1):{root}")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code has run",)


def test_pickles_are_never_opened(arrays: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    name, root = arrays
    labels = next(root.glob("*/labels.npy"))
    np.save(labels, np.array([_Evil()], dtype=object), allow_pickle=True)
    bare = pickle.dumps(_Evil())  # numpy takes every file without its own first bytes for a pickle
    for content in (labels.read_bytes(), bare):
        labels.write_bytes(content)
        with pytest.raises(DataError, match="is no readable array"):
            load_dataset(f"{name}-c(corruption=fog, severity=1):{root}")
    assert "code has run" not in capsys.readouterr().out


def test_missing_files(arrays: tuple[str, Path]) -> None:
    name, root = arrays
    with pytest.raises(DataError, match=r"has no file frost.npy; it has fog"):
        load_dataset(f"{name}-c(corruption=frost, severity=1):{root}")
    with pytest.raises(DataError, match="no corruption 'snwo'") as caught:
        load_dataset(f"{name}-c(corruption=snwo, severity=1):{root}")
    assert "'snow'" in caught.value.remedy
    next(root.glob("*/labels.npy")).unlink()
    with pytest.raises(DataError, match=r"there is no file .*labels.npy"):
        load_dataset(f"{name}-c(corruption=fog, severity=1):{root}")


def test_the_doctor_compares_checksums(arrays: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    name, root = arrays
    data = load_dataset(f"{name}-c(corruption=fog, severity=1):{root}")
    (flag,) = data.check()
    assert flag.level == "error" and flag.evidence == {"files": ["fog.npy", "labels.npy"]}
    published = cifar_c._PUBLISHED_10 if name == "cifar10" else cifar_c._PUBLISHED_100
    assert sorted(published) == sorted([*cifar_c.COMMON, "labels"])
    for file in ("fog", "labels"):
        monkeypatch.setitem(published, file, checksums.md5_of(next(root.glob(f"*/{file}.npy"))))
    assert data.check() == []


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """CIFAR-10.1's repository."""
    rng = np.random.default_rng(0)
    (tmp_path / "datasets").mkdir()
    for version, count in (("v4", 2_021), ("v6", 2_000)):
        x = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        np.save(tmp_path / f"datasets/cifar10.1_{version}_data.npy", x)
        np.save(tmp_path / f"datasets/cifar10.1_{version}_labels.npy", (np.arange(count) % 10).astype(np.int32))
    return tmp_path


def test_cifar10_1(second: Path) -> None:
    six, four = load_dataset(f"cifar10.1:{second}"), load_dataset("cifar10.1", second / "datasets", version="v4")
    assert (six.name, len(six), six.parent) == ("cifar10.1", 2_000, "cifar10")
    assert (four.name, len(four)) == ("cifar10.1-v4", 2_021)
    place = int(six.ids[5].removeprefix("v6/"))
    raw = np.load(second / "datasets/cifar10.1_v6_data.npy")
    assert np.array_equal(np.asarray(six.picture(5)), raw[place]) and six.labels[5] == place % 10
    assert six.classes.names == cifar.CLASSES
    assert six.check() == four.check() == []
    np.save(second / "datasets/cifar10.1_v6_labels.npy", np.arange(2_000) % 9)
    (flag,) = load_dataset(f"cifar10.1:{second}").check()
    assert flag.name == "class-counts" and "0 to 223 images" in flag.message


def test_cifar10_1_wrong(second: Path) -> None:
    with pytest.raises(DataError, match="no version 'v5'"):
        load_dataset("cifar10.1", second, version="v5")
    (second / "datasets/cifar10.1_v4_data.npy").rename(second / "datasets/cifar10.1_v6_data.npy")
    with pytest.raises(DataError, match=r"shape \[2021, 32, 32, 3\] where CIFAR-10.1 has \[2000"):
        load_dataset(f"cifar10.1:{second}")
