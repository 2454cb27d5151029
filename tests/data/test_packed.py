"""Pictures in tar shards, Arrow and parquet files: the same as in a folder, and clear words when they are broken."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aresbench.core.errors import DataError
from aresbench.core.preprocessing import Preprocessing
from aresbench.data import hf_dataset, packed, shards, spans
from aresbench.data.base import Dataset, load_pictures
from aresbench.data.cache import PictureCache
from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.load import load_dataset

NAMES = ("cat", "dog", "owl")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test: what was found in earlier ones must not help."""
    monkeypatch.setenv("ARESBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tree(tmp_path: Path, photographs: list[Path]) -> Path:
    """Twelve pictures of three classes in folders."""
    for k, photograph in enumerate(photographs[:12]):
        (tmp_path / "tree" / NAMES[k % 3]).mkdir(parents=True, exist_ok=True)
        os.link(photograph, tmp_path / "tree" / NAMES[k % 3] / f"{k:02d}.jpg")
    return tmp_path / "tree"


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def members(tree: Path, parts: int, form: str = "cls") -> list[list[tuple[str, bytes]]]:
    """The pictures of a tree with their labels, dealt out to some archives."""
    dealt: list[list[tuple[str, bytes]]] = [[] for _ in range(parts)]
    for k, file in enumerate(sorted(tree.rglob("*.jpg"))):
        key, label = file.relative_to(tree).with_suffix("").as_posix(), NAMES.index(file.parent.name)
        text = f"{label}\n" if form == "cls" else json.dumps({"label": label, "from": "nowhere"})
        dealt[k % parts] += [(f"{key}.jpg", file.read_bytes()), (f"{key}.{form}", text.encode())]
    return dealt


@pytest.fixture
def tars(tree: Path, tmp_path: Path) -> Path:
    for k, content in enumerate(members(tree, 3)):
        write_tar(tmp_path / "tars" / f"train-{k:03d}.tar", content)
    return tmp_path / "tars"


def rows(tree: Path) -> tuple[list[bytes], list[int], list[str]]:
    files = sorted(tree.rglob("*.jpg"))
    names = [file.relative_to(tree).as_posix() for file in files]
    return [f.read_bytes() for f in files], [NAMES.index(f.parent.name) for f in files], names


def hf_table(tree: Path, names: Sequence[str] = NAMES) -> pa.Table:
    """What ``datasets`` makes of a folder of images."""
    data, labels, paths = rows(tree)
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}
    said = json.dumps({"info": {"features": features}}).encode()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = pa.array([{"bytes": b, "path": p} for b, p in zip(data, paths, strict=True)], kind)
    table = pa.table({"image": pictures, "label": pa.array(labels, pa.int64())})
    return table.replace_schema_metadata({b"huggingface": said})


def write_arrow(path: Path, table: pa.Table, *, stream: bool = True, compression: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as out:
        out.write_table(table, max_chunksize=5)
    return path


def by_content(data: Dataset) -> dict[bytes, str]:
    """Decoded pixels → class name."""
    found = {data.picture(k).tobytes(): data.classes.names[data.labels[k]] for k in range(len(data))}
    assert len(found) == len(data)
    return found


def test_folder_shards_arrow_and_parquet_hold_the_same(tree: Path, tars: Path, tmp_path: Path) -> None:
    table = hf_table(tree)
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    sources = [
        f"shards(classes_file={tmp_path / 'names.txt'}):{tars}",
        f"hf-dataset:{write_arrow(tmp_path / 'stream/data-00000-of-00001.arrow', table).parent}",
        f"hf-dataset:{write_arrow(tmp_path / 'file.arrow', table, stream=False)}",
    ]
    pq.write_table(table, tmp_path / "snappy.parquet", row_group_size=4)
    pq.write_table(table, tmp_path / "zstd.parquet", compression="zstd")
    sources += [f"hf-dataset:{tmp_path / 'snappy.parquet'}", f"hf-dataset:{tmp_path / 'zstd.parquet'}"]
    folder = load_dataset(f"folder:{tree}")
    assert len(folder) == 12
    for source in sources:
        data = load_dataset(source)
        assert data.classes.names == NAMES, source
        assert by_content(data) == by_content(folder), source
    as_written = load_dataset(sources[1])
    data, labels, _ = rows(tree)
    for k, image_id in enumerate(as_written.ids):
        assert as_written.labels[k] == labels[int(image_id)]
        image = as_written._listing.images[as_written._rows[k]]
        assert isinstance(image, spans.Span) and image.read() == data[int(image_id)]
    names = {load_dataset(source).name for source in sources[1:]}
    assert len(names) == 1 and names != {load_dataset(sources[0]).name}, "the same rows have the same name"


def test_keys_are_ids_and_how_they_are_dealt_out_does_not_matter(tree: Path, tars: Path, tmp_path: Path) -> None:
    data = load_dataset(f"shards:{tars}")
    assert data.classes.names == ("0", "1", "2")
    assert sorted(data.ids) == sorted(p.relative_to(tree).with_suffix("").as_posix() for p in tree.rglob("*.jpg"))
    assert [NAMES[y] for y in data.labels] == [image_id.partition("/")[0] for image_id in data.ids]
    for parts, form, kind in ((1, "json", tarfile.GNU_FORMAT), (2, "cls", tarfile.USTAR_FORMAT)):
        for k, content in enumerate(members(tree, parts, form)):
            write_tar(tmp_path / f"other{parts}" / f"{k}.tar", [*content, ("__meta__.json", b"{}")], kind)
        other = load_dataset("shards", root=tmp_path / f"other{parts}")
        assert (other.name, other.ids, other.labels.tolist()) == (data.name, data.ids, data.labels.tolist())
    chosen = load_dataset(f"shards:{tars}/train-{{001..002}}.tar")
    assert len(chosen) == 8 and set(chosen.ids) < set(data.ids) and chosen.name != data.name
    assert len(load_dataset(f"shards:{tars}/train-001.tar")) == 4


def test_imagenets_keys_give_its_classes_and_the_order_of_its_folders(tmp_path: Path, photographs: list[Path]) -> None:
    wnids = imagenet_classes().ids
    content: list[tuple[str, bytes]] = []
    for k in range(8):
        content += [(f"{wnids[k]}_{k + 10}.jpg", photographs[k].read_bytes()), (f"{wnids[k]}_{k + 10}.cls", b"%d" % k)]
        (tmp_path / "train" / wnids[k]).mkdir(parents=True)
        os.link(photographs[k], tmp_path / "train" / wnids[k] / f"{wnids[k]}_{k + 10}.JPEG")
    data = load_dataset(f"shards:{write_tar(tmp_path / 'a/a.tar', content)}")
    folder = load_dataset(f"imagenet-train(partial=true):{tmp_path}")
    assert data.classes == imagenet_classes()
    assert (data.ids, data.labels.tolist()) == (folder.ids, folder.labels.tolist())
    wrong = [(name, b"9" if name.endswith("cls") else data) for name, data in content]
    assert load_dataset(f"shards:{write_tar(tmp_path / 'b/b.tar', wrong)}").classes.names == tuple("0123456789")


def test_keys_that_come_in_several_archives(tmp_path: Path, photographs: list[Path]) -> None:
    for k in range(2):
        content = [("0000.jpg", photographs[k].read_bytes()), ("0000.cls", b"%d" % k)]
        write_tar(tmp_path / "tars" / f"{k}.tar", content)
    data = load_dataset(f"shards:{tmp_path / 'tars'}")
    assert sorted(data.ids) == ["0/0000", "1/0000"]
    assert [image_id[0] for image_id in data.ids] == [str(y) for y in data.labels]


def test_an_archive_is_looked_through_once(tars: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    through = shards.read_index

    def spied(file: Path) -> shards.Index:
        looked.append(file.name)
        return through(file)

    monkeypatch.setattr(shards, "read_index", spied)
    first = load_dataset(f"shards:{tars}")
    assert sorted(looked) == ["train-000.tar", "train-001.tar", "train-002.tar"]
    looked.clear()
    again = load_dataset(f"shards:{tars}")
    assert looked == [] and again.ids == first.ids and by_content(again) == by_content(first)
    assert again.notes == ()
    index = next((cache / "indexes").glob("train-001-*.npz"))
    index.write_bytes(index.read_bytes()[:100])  # spoilt
    os.utime(tars / "train-002.tar", ns=(1, 1))  # changed
    assert load_dataset(f"shards:{tars}").ids == first.ids
    assert sorted(looked) == ["train-001.tar", "train-002.tar"]
    monkeypatch.setenv("ARESBENCH_CACHE", "off")
    looked.clear()
    assert load_dataset(f"shards:{tars}").ids == first.ids and len(looked) == 3
    (cache.parent / "file").write_text("in the way")
    monkeypatch.setenv("ARESBENCH_CACHE", str(cache.parent / "file"))
    (note,) = load_dataset(f"shards:{tars}").notes
    assert "anew each time" in note


def test_broken_archives(tree: Path, tars: Path) -> None:
    whole = (tars / "train-000.tar").read_bytes()
    (content,) = members(tree, 1)
    broken = tars / "train-000.tar"
    with tarfile.open(broken) as tar:
        second = tar.getmembers()[2]
    for cut in (100, 700, second.offset, second.offset + 100, second.offset_data + 100, second.offset_data + 2048):
        broken.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=f"{broken} cannot be read") as caught:
            load_dataset(f"shards:{tars}")
        assert "incomplete" in caught.value.remedy
    broken.write_bytes(b"no archive at all" * 100)
    with pytest.raises(DataError, match=f"{broken} cannot be read"):
        load_dataset(f"shards:{tars}")
    write_tar(broken, [pair for pair in content if pair[0] not in ("dog/01.cls", "owl/02.cls")])
    with pytest.raises(DataError, match=r"2 of 12 pictures have no label: 01.jpg, 02.jpg"):
        load_dataset(f"shards:{tars}")
    for text, said in ((b"dog", "'dog'"), (b"-1", "'-1'"), (b"1.5", "'1.5'")):
        write_tar(broken, [(name, text if name == "dog/01.cls" else data) for name, data in content])
        with pytest.raises(DataError, match=f"dog/01.cls says {said} where a label is expected"):
            load_dataset(f"shards:{tars}")
    write_tar(broken, [*content, ("dog/01.png", content[0][1])])
    with pytest.raises(DataError, match=r"two pictures under the key 'dog/01': 01.jpg and 01.png"):
        load_dataset(f"shards:{tars}")


def test_paths_that_lead_nowhere(tars: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"names 4 files, and 1 of them are missing: .*train-003.tar"):
        load_dataset(f"shards:{tars}/train-{{000..003}}.tar")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/a.tar.gz").touch()
    with pytest.raises(DataError, match=r"no .tar file, but compressed ones: a.tar.gz"):
        load_dataset(f"shards:{tmp_path / 'packed'}")
    with pytest.raises(DataError, match="no file of class names"):
        load_dataset(f"shards(classes_file={tmp_path / 'nowhere'}):{tars}")
    (tmp_path / "names.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(DataError, match="has the class 'cat' twice"):
        load_dataset(f"shards(classes_file={tmp_path / 'names.txt'}):{tars}")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"labels are out of range; the first is 2"):
        load_dataset(f"shards(classes_file={tmp_path / 'names.txt'}):{tars}")


def test_a_picture_that_is_gone_when_it_is_read(tars: Path) -> None:
    data = load_dataset(f"shards:{tars}")
    file = tars / "train-001.tar"
    lost = [k for k in range(len(data)) if data.source(k) == file]
    with open(file, "r+b") as opened:
        opened.truncate(600)
    with pytest.raises(DataError, match=rf"image '.*' of shards-.* cannot be read: {file}, bytes .* incomplete"):
        data.picture(lost[0])
    _, kept, bad = load_pictures(data, range(len(data)), Preprocessing((8, 8), 8), on_bad="skip")
    assert len(bad) == len(lost) == 4 and set(kept) == set(range(12)) - set(lost)
    file.unlink()
    with pytest.raises(DataError, match="is missing: there is no file"):
        data.picture(lost[0])


def test_a_new_archive_under_an_old_name_is_read_anew(tree: Path, tars: Path) -> None:
    data = load_dataset(f"shards:{tars}")
    before = by_content(data)
    for k, content in enumerate(members(tree, 3)):
        (tars / f"train-{k:03d}.tar").unlink()
        write_tar(tars / f"train-{k:03d}.tar", content[::-1])
    assert by_content(load_dataset(f"shards:{tars}")) == before


def _sum(data: Dataset, k: int) -> int:
    return int(np.asarray(data.picture(k), np.int64).sum())


def test_threads_and_processes_read_at_once(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "_MOST_OPEN", 1)  # others are opened for each reading
    monkeypatch.setattr(spans, "_open", {})
    data = load_dataset(f"shards:{tars}")
    places = [k % 12 for k in range(240)]
    expected = [_sum(data, k) for k in places]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda k: _sum(data, k), places)) == expected
    assert len(spans._open) == 1
    with get_context("fork").Pool(2) as processes:  # handles are shared
        assert processes.starmap(_sum, [(data, k) for k in places], chunksize=7) == expected
    copy = pickle.loads(pickle.dumps(data))
    assert (copy.ids, _sum(copy, 3)) == (data.ids, expected[3])


def test_decoded_pictures_are_kept_as_those_of_a_folder(tars: Path, tmp_path: Path) -> None:
    data = load_dataset(f"shards:{tars}")
    size = Preprocessing((16, 16), 16)
    pictures = PictureCache(tmp_path / "decoded")
    assert pictures.needed(data, size) == 12 * 3 * 16 * 16
    first, _, _ = pictures.load(data, range(12), size)
    assert pictures.needed(data, size) == 0
    assert np.array_equal(first, PictureCache(tmp_path / "decoded").load(data, range(12), size)[0])


def test_splits_and_columns(tree: Path, tmp_path: Path) -> None:
    table = hf_table(tree)
    for split in ("train", "test"):
        write_arrow(tmp_path / "saved" / split / "data-00000-of-00001.arrow", table.slice(0, 6))
        (tmp_path / "hub/data").mkdir(parents=True, exist_ok=True)
        for k in range(2):
            name = f"{split}-0000{k}-of-00002.parquet"
            pq.write_table(table.slice(6 * k, 6 if split == "train" else 3), tmp_path / "hub/data" / name)
    for folder, total in (("saved", 6), ("hub", 12)):
        with pytest.raises(DataError, match=r"holds several splits: test, train") as caught:
            load_dataset(f"hf-dataset:{tmp_path / folder}")
        assert "split=test" in caught.value.remedy
        with pytest.raises(DataError) as caught:
            load_dataset(f"hf-dataset(split=trian):{tmp_path / folder}")
        assert "'train'" in caught.value.remedy
        assert len(load_dataset(f"hf-dataset(split=train):{tmp_path / folder}")) == total
    two = table.rename_columns(["photo", "fine"]).append_column("coarse", pa.array([0, 1] * 6))
    pq.write_table(two.replace_schema_metadata(None), tmp_path / "two.parquet")
    with pytest.raises(
        DataError, match=r"which column of .* holds the images is not clear; it has photo, fine, coarse"
    ):
        load_dataset(f"hf-dataset:{tmp_path / 'two.parquet'}")
    with pytest.raises(DataError, match="no column 'fin'") as caught:
        load_dataset(f"hf-dataset(image=photo, label=fin):{tmp_path / 'two.parquet'}")
    assert "'fine'" in caught.value.remedy
    fine, coarse = (
        load_dataset(f"hf-dataset(image=photo, label={k}):{tmp_path / 'two.parquet'}") for k in two.schema.names[1:]
    )
    assert (fine.classes.names, coarse.classes.names) == (("0", "1", "2"), ("0", "1"))
    wnids = imagenet_classes().ids[:3]
    named = load_dataset(f"hf-dataset:{write_arrow(tmp_path / 'w.arrow', hf_table(tree, wnids))}")
    assert named.classes.ids == wnids and named.classes.names[0] == "tench, Tinca tinca"
    whole = hf_table(tree, imagenet_classes().names)
    assert load_dataset(f"hf-dataset:{write_arrow(tmp_path / 'i.arrow', whole)}").classes == imagenet_classes()


def test_tables_that_cannot_be_read(tree: Path, tmp_path: Path) -> None:
    table = hf_table(tree)
    packed_file = write_arrow(tmp_path / "packed.arrow", table, compression="zstd")
    with pytest.raises(DataError, match="is compressed"):
        load_dataset(f"hf-dataset:{packed_file}")
    whole = write_arrow(tmp_path / "torn.arrow", table)
    whole.write_bytes(whole.read_bytes()[:-9000])
    with pytest.raises(DataError, match=f"{whole} cannot be read"):
        load_dataset(f"hf-dataset:{whole}")
    pq.write_table(table, tmp_path / "torn.parquet")
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "torn.parquet").read_bytes()[:-100])
    with pytest.raises(DataError, match=r"torn.parquet cannot be read"):
        load_dataset(f"hf-dataset:{tmp_path / 'torn.parquet'}")
    kind = table.schema.field("image").type
    only_paths = pa.array([{"bytes": b"x", "path": "a"}, {"bytes": None, "path": "b"}], kind)
    for column, labels, message in (
        (only_paths, [0, 1], "row 1 holds no picture"),
        (pa.array([[1], [2]]), [0, 1], "are list<.*>, not bytes"),
        (only_paths[:1], ["cat"], "they are string"),
        (only_paths[:1], [None], "labels of .* are not one whole number"),
        (only_paths[:1], [-1], "labels are out of range"),
    ):
        wrong = pa.table({"image": column, "label": labels})
        with pytest.raises(DataError, match=message):
            load_dataset(f"hf-dataset:{write_arrow(tmp_path / 'wrong.arrow', wrong)}")


def test_parquet_is_unpacked_once(tree: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(hf_table(tree), tmp_path / "a.parquet")
    first = load_dataset(f"hf-dataset:{tmp_path / 'a.parquet'}")
    assert first.source(0) == next((cache / packed.UNPACKED).glob("*.arrow"))
    monkeypatch.setattr(hf_dataset, "write_whole", lambda *_: pytest.fail("unpacked again"))
    assert load_dataset(f"hf-dataset:{tmp_path / 'a.parquet'}").ids == first.ids
    monkeypatch.setattr(hf_dataset, "write_whole", packed.write_whole)
    monkeypatch.setenv("ARESBENCH_CACHE", "off")
    with pytest.raises(DataError, match="ARESBENCH_CACHE is off"):
        load_dataset(f"hf-dataset:{tmp_path / 'a.parquet'}")
    monkeypatch.setenv("ARESBENCH_CACHE", str(tmp_path / "second"))
    monkeypatch.setattr(hf_dataset, "RESERVE", 10**18)
    with pytest.raises(DataError, match="GB free: too little"):
        load_dataset(f"hf-dataset:{tmp_path / 'a.parquet'}")
    assert not list((tmp_path / "second").rglob("*.arrow"))


def test_what_is_written_is_whole_or_absent(tmp_path: Path) -> None:
    def fails(out: io.BufferedIOBase) -> None:
        out.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        packed.write_whole(tmp_path / "folder/a.bin", fails)  # type: ignore[arg-type]
    assert list((tmp_path / "folder").iterdir()) == []
