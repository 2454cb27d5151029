"""The datasets that come with packages, and the two that are downloaded."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import pickle
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from aresbench.core.errors import DataError
from aresbench.core.preprocessing import Preprocessing
from aresbench.data import fashion_mnist
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset


def test_digits_hold_out_the_500_smallest_hashes() -> None:
    held_out, train = load_dataset("digits"), load_dataset("digits", split="train")
    ids = [f"digits/{i:05d}" for i in range(1797)]
    ids.sort(key=lambda i: hashlib.blake2b(i.encode(), digest_size=8).digest())
    assert list(held_out.ids) == ids[:500] and list(train.ids) == ids[500:]
    assert (held_out.name, train.name) == ("digits", "digits-train")
    assert held_out.classes.names == tuple("0123456789")
    assert held_out.ids[:3] == ("digits/00491", "digits/01025", "digits/01346"), "the split must never move"


def test_digits_pixels_and_labels_are_scikit_learns() -> None:
    data, raw = load_dataset("digits"), load_digits()
    x, _, _ = load_images(data, range(500), None)
    assert x.shape == (500, 3, 8, 8)
    for k, image_id in enumerate(data.ids):
        i = int(image_id.removeprefix("digits/"))
        assert data.labels[k] == raw.target[i]
        grey = torch.tensor(np.vectorize(round)(raw.images[i] * 255 / 16))
        assert torch.equal((x[k] * 255).round().to(torch.int64), grey.expand(3, 8, 8))


def test_digits_at_a_models_size() -> None:
    x, _, _ = load_images(load_dataset("digits"), [0, 1], Preprocessing((32, 32), 32, "bilinear"))
    assert x.shape == (2, 3, 32, 32)


def test_samples_labels_agree_with_the_file_names() -> None:
    samples = load_dataset("samples")
    assert len(samples) == 20 and len(samples.classes) == 1000
    assert [int(i.removesuffix(".jpg").split("_")[2]) for i in samples.ids] == samples.labels.tolist()
    assert samples.classes.names[samples.labels[samples.ids.index("imagenet_15_99.jpg")]] == "goose"


def test_samples_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="not installed") as caught:
        load_dataset("samples")
    assert 'pip install "aresbench[samples]"' in caught.value.remedy


def test_samples_damaged_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = importlib.util.find_spec("foolbox")
    assert spec is not None
    monkeypatch.setattr(spec, "submodule_search_locations", [str(tmp_path)])  # the module's own where it is imported
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match="0 ImageNet photographs where 20 belong"):
        load_dataset("samples")


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the published ones (a pickle of protocol 2), with random pixels."""
    rng = np.random.default_rng(0)
    content = {
        "data": rng.integers(0, 256, (10_000, 3072), dtype=np.uint8),
        "labels": rng.integers(0, 10, 10_000).tolist(),
        "filenames": [f"{k}.png" for k in range(10_000)],
    }
    path = tmp_path_factory.mktemp("cifar") / "batch"
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


@pytest.fixture
def cifar(tmp_path: Path, batch: Path) -> Path:
    """The published layout, each file a link to ``batch``."""
    folder = tmp_path / "files/cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in ("test_batch", *(f"data_batch_{k}" for k in range(1, 6))):
        (folder / name).symlink_to(batch)
    return folder


def _replace(path: Path, content: bytes) -> None:
    path.unlink()  # not through the link
    path.write_bytes(content)


def test_cifar10_reads_local_batches(cifar: Path, without_data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_dataset(f"cifar10:{cifar.parent}")
    assert (data.name, len(data)) == ("cifar10", 10_000)
    assert data.classes.names[0] == "airplane" and data.classes.names[9] == "truck"
    published = pickle.loads((cifar / "test_batch").read_bytes())
    place = int(data.ids[3].removeprefix("test/"))
    expected = published["data"][place].reshape(3, 32, 32)  # channels first, as published
    x, _, _ = load_images(data, [3], None)
    assert np.array_equal((x[0] * 255).round().numpy(), expected)
    assert data.labels[3] == published["labels"][place]
    assert load_dataset("cifar10", root=cifar).ids == data.ids
    monkeypatch.setenv("ARESBENCH_DATA", str(cifar.parent.parent))
    cifar.parent.rename(cifar.parent.parent / "cifar10")
    train = load_dataset("cifar10(split=train)")
    assert (train.name, len(train)) == ("cifar10-train", 50_000)
    assert int(train.ids[0].removeprefix("train/")) < 50_000


class _Evil:
    def __reduce__(self) -> tuple:
        return print, ("code has run",)


def test_cifar10_refuses_pickles_that_could_run_code(cifar: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _replace(cifar / "test_batch", pickle.dumps({"data": _Evil(), "labels": []}))
    with pytest.raises(DataError, match=r"asks for builtins.print"):
        load_dataset("cifar10", root=cifar)
    assert "code has run" not in capsys.readouterr().out


def test_cifar10_broken_files(cifar: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not hold CIFAR-10's batch files"):
        load_dataset("cifar10", root=tmp_path / "files" / "..")
    with pytest.raises(DataError, match="does not exist"):
        load_dataset("cifar10", root=tmp_path / "nowhere")
    _replace(cifar / "test_batch", (cifar / "test_batch").read_bytes()[:100_000])
    with pytest.raises(DataError, match="is not a batch file of CIFAR-10"):
        load_dataset("cifar10", root=cifar)
    (cifar / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"data_batch_3 is missing"):
        load_dataset("cifar10", root=cifar, split="train")


def _write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "fashion"
    folder.mkdir()
    for prefix, n, ending in (("t10k", 50, ".gz"), ("train", 60, "")):
        _write_idx(folder / f"{prefix}-images-idx3-ubyte{ending}", rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        _write_idx(folder / f"{prefix}-labels-idx1-ubyte{ending}", (np.arange(n) % 10).astype(np.uint8))
    return folder


def test_fashion_mnist_reads_local_files_packed_or_not(
    fashion: Path, without_data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_dataset("fashion-mnist", root=fashion)
    assert (data.name, len(data), len(load_dataset("fashion-mnist", root=fashion, split="train"))) == (
        "fashion-mnist",
        50,
        60,
    )
    raw = np.frombuffer(gzip.decompress((fashion / "t10k-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    place = int(data.ids[7].removeprefix("test/"))
    picture = np.asarray(data.picture(7))
    assert np.array_equal(picture, np.repeat(raw.reshape(50, 28, 28, 1)[place], 3, axis=2))
    assert data.labels[7] == place % 10
    assert data.classes.names[9] == "Ankle boot"
    monkeypatch.setattr(fashion_mnist, "DEBIAN", fashion)  # Debian's package
    assert load_dataset("fashion-mnist").ids == data.ids


def test_fashion_mnist_broken_files(fashion: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"does not hold t10k-images-idx3-ubyte.gz"):
        load_dataset("fashion-mnist", root=tmp_path / "empty")
    labels = fashion / "t10k-labels-idx1-ubyte.gz"
    _write_idx(labels, np.zeros(49, np.uint8))
    with pytest.raises(DataError, match=r"50 images but .* 49 labels"):
        load_dataset("fashion-mnist", root=fashion)
    _write_idx(labels, np.zeros((5, 10), np.uint8))
    with pytest.raises(DataError, match="first bytes"):
        load_dataset("fashion-mnist", root=fashion)
    for damaged in (b"", b"text", labels.read_bytes()[:-12]):
        labels.write_bytes(damaged)
        with pytest.raises(DataError, match="not a readable IDX file"):
            load_dataset("fashion-mnist", root=fashion)


@pytest.mark.parametrize(("name", "published"), [("cifar10", "CIFAR10"), ("fashion-mnist", "FashionMNIST")])
def test_downloads_fail_clearly_without_a_network(
    name: str, published: str, without_data_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def offline(root: str, **options: object) -> None:
        asked.append(root)
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(f"torchvision.datasets.{published}", offline)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "no-debian")
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        load_dataset(name)
    assert asked == [str(without_data_folder / "aresbench" / name)]
    assert "ARESBENCH_DATA" in caught.value.remedy


@pytest.mark.parametrize("name", ["digits", "cifar10", "fashion-mnist"])
def test_unknown_splits(name: str) -> None:
    with pytest.raises(DataError, match="no split 'trian'") as caught:
        load_dataset(name, split="trian")
    assert "'train'" in caught.value.remedy
