"""Hugging Face datasets on disk: Arrow files of ``save_to_disk`` and of its cache, or parquet files of the hub."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import numpy as np

from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, did_you_mean
from aresbench.data.base import Dataset, Listing
from aresbench.data.cache import RESERVE, VARIABLE
from aresbench.data.imagenet_classes import imagenet_classes, index_of_wnid
from aresbench.data.local import relative_hint
from aresbench.data.packed import UNPACKED, kept_file, name_of, write_whole
from aresbench.data.spans import Spans

if TYPE_CHECKING:
    import pyarrow as pa

REVISION = 1  # raised when unpacked files hold other things
_ROWS = 64  # of a parquet file in memory at a time


@dataclass(frozen=True, eq=False, repr=False)
class HuggingFaceDataset(Dataset):
    """Pictures in the Arrow or parquet files of a Hugging Face dataset, without its package.

    Pictures are read where they lie in Arrow files (``Dataset.save_to_disk``, or the folder in the ``datasets`` cache).
    Parquet can only be read in large pieces: its pictures are unpacked once into the cache folder, which takes as much
    room again. Ids are row numbers. Class names are those of the label's features where the files hold them; names
    that are wnids give ImageNet's classes.

    Args:
        root: a folder of .arrow or .parquet files, or one file.
        split: of several in the folder: a folder within it, or what file names begin with.
        image: the column of pictures, where there are several.
        label: the column of labels, where there are several.
    """

    title: ClassVar[str] = "Hugging Face dataset on disk"
    licence: ClassVar[str] = "yours"
    terms: ClassVar[str] = "free"
    citation: ClassVar[str] = ""
    obtain: ClassVar[str] = "dataset.save_to_disk('/path/mine'), or download its parquet files; write hf-dataset:/path"
    image_size: ClassVar[str] = "any, resized and cropped by a model's preprocessing"

    root: str | Path
    split: str = ""
    image: str = ""
    label: str = ""

    def read(self) -> Listing:
        files = dataset_files(Path(self.root).expanduser(), self.split)
        schema = _schema(files[0])
        features = _features(schema)
        image = self._column("image", schema, features, "Image", ("image", "img", "jpg"))
        label = self._column("label", schema, features, "ClassLabel", ("label", "labels", "cls", "fine_label"))
        parts = [_part(file, image, label) for file in files]
        if not sum(len(part.labels) for part in parts):
            raise DataError(f"{self.root} holds no rows", self.obtain)
        labels = np.concatenate([part.labels for part in parts])
        classes = _classes(features.get(label, {}).get("names"), labels)
        pictures = Spans(
            [part.file for part in parts],
            np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.labels) for part in parts]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.sizes for part in parts]),
        )
        ids = tuple(f"{row:07d}" for row in range(len(labels)))
        return Listing(
            name=name_of("hf-dataset", ids, labels, classes.names, pictures),
            classes=classes,
            ids=ids,
            labels=labels,
            images=pictures,
        )

    def _column(
        self, setting: str, schema: pa.Schema, features: dict[str, Any], kind: str, usual: tuple[str, ...]
    ) -> str:
        """The column that is asked for, the only one of its kind, or the one with a usual name."""
        given = self.image if setting == "image" else self.label
        if given:
            if given not in schema.names:
                raise DataError(
                    f"{self.root} has no column {given!r}; it has {', '.join(schema.names)}",
                    did_you_mean(given, schema.names),
                )
            return given
        told = [name for name in schema.names if features.get(name, {}).get("_type") == kind]
        likely = [name for name in usual if name in (told or schema.names)]
        chosen = likely[:1] or (told if len(told) == 1 else [])
        if not chosen:
            raise DataError(
                f"which column of {self.root} holds the {setting}s is not clear; it has {', '.join(schema.names)}",
                f"write hf-dataset({setting}=NAME):{self.root}",
            )
        return chosen[0]


@dataclass(frozen=True)
class _Part:
    """The pictures of one file: where their bytes lie in it (or in what it was unpacked to), and their labels."""

    file: Path
    labels: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray


def dataset_files(root: Path, split: str) -> list[Path]:
    """The Arrow or parquet files of a dataset, in the order of their names.

    Raises:
        DataError: there are none, or they belong to several splits and none is chosen.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise DataError(f"there is no file or folder {root}", relative_hint(root))
    folder = root / split if split and (root / split).is_dir() else root
    found = sorted(p for p in (*folder.glob("*.arrow"), *folder.glob("*.parquet")) if not p.name.startswith("cache-"))
    if not found and (folder / "data").is_dir():  # as on the hub
        found = sorted((folder / "data").glob("*.parquet"))
    if not found:
        inside = sorted(p.name for p in root.iterdir() if p.is_dir() and list(p.glob("*.arrow")))
        if inside:
            raise DataError(
                f"{root} holds several splits: {', '.join(inside)}" + (f", and none called {split!r}" if split else ""),
                did_you_mean(split, inside) or f"write hf-dataset(split={inside[0]}):{root}",
            )
        raise DataError(f"{root} holds no .arrow or .parquet file", HuggingFaceDataset.obtain)
    splits = sorted({p.name.partition("-")[0] for p in found if "-of-" in p.name} - {"data"})
    if folder == root and split:
        chosen = [p for p in found if p.name.partition("-")[0].partition(".")[0] == split]
        if not chosen:
            raise DataError(
                f"{root} has no split {split!r}", did_you_mean(split, splits) or f"it has {', '.join(splits) or 'none'}"
            )
        return chosen
    if len(splits) > 1:
        raise DataError(
            f"{root} holds several splits: {', '.join(splits)}", f"write hf-dataset(split={splits[0]}):{root}"
        )
    return found


def _schema(file: Path) -> pa.Schema:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if file.suffix == ".parquet":
            return pq.read_schema(file)
        with pa.memory_map(str(file)) as source:
            return _batches(source)[0]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read: {error}", "copy it again: it is incomplete") from error


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What the ``datasets`` package wrote about each column; nothing where it did not write the files."""
    said = (schema.metadata or {}).get(b"huggingface")
    found: dict[str, Any] = json.loads(said)["info"]["features"] if said else {}
    return {name: feature for name, feature in found.items() if isinstance(feature, dict)}


def _batches(source: pa.MemoryMappedFile) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema and batches of an Arrow file, as a stream (which ``datasets`` writes) or with an index at its end."""
    import pyarrow as pa

    source.seek(0)
    if source.read(6) == b"ARROW1":
        file = pa.ipc.open_file(source)
        return file.schema, (file.get_batch(k) for k in range(file.num_record_batches))
    source.seek(0)
    stream = pa.ipc.open_stream(source)
    return stream.schema, iter(stream)


def _part(file: Path, image: str, label: str) -> _Part:
    import pyarrow as pa

    try:
        return _unpacked(file, image, label) if file.suffix == ".parquet" else _mapped(file, image, label)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read: {error}", "copy it again: it is incomplete") from error


def _mapped(file: Path, image: str, label: str) -> _Part:
    """Where the pictures lie in an Arrow file: buffers of a mapped file are stretches of it."""
    import pyarrow as pa

    labels, offsets, sizes = ([np.empty(0, np.int64)] for _ in range(3))
    row = 0
    with pa.memory_map(str(file)) as source:
        size = source.size()
        begin = source.read_buffer(1).address
        for batch in _batches(source)[1]:
            ends, data = _bytes(batch.column(image), file, row)
            offset = 0 if data is None else data.address - begin
            if not 0 <= offset <= size - int(ends[-1]):
                raise DataError(
                    f"{file} is compressed, so that its pictures cannot be read where they lie",
                    "write it again with dataset.save_to_disk, which does not compress",
                )
            labels.append(_labels(batch.column(label), file))
            offsets.append(offset + ends[:-1])
            sizes.append(np.diff(ends))
            row += len(batch)
    return _Part(file, np.concatenate(labels), np.concatenate(offsets), np.concatenate(sizes))


def _unpacked(file: Path, image: str, label: str) -> _Part:
    """Where the pictures of a parquet file lie in the Arrow file that it was unpacked to, once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = kept_file(UNPACKED, file, (REVISION, image, label))
    if kept is None:
        raise DataError(
            f"the pictures of {file} must be unpacked to be read, and {VARIABLE} is off",
            f"name a folder in {VARIABLE}, or give the .arrow files of dataset.save_to_disk",
        )

    def write(out: BinaryIO) -> None:
        with pq.ParquetFile(file) as table:
            columns = [image, label]
            schema = pa.schema([table.schema_arrow.field(name) for name in columns])
            with pa.ipc.new_stream(out, schema) as stream:
                for batch in table.iter_batches(_ROWS, columns=columns, use_threads=False):
                    stream.write_batch(batch.select(columns))

    if not kept.exists():
        with _alone(kept):  # the processes of one training all begin here
            if not kept.exists():
                _check_room(kept.parent, file)
                write_whole(kept, write)
    return _mapped(kept, image, label)


@contextmanager
def _alone(kept: Path) -> Iterator[None]:
    """Only one process at a time makes a file."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with open(kept.with_name(f".{kept.name}.lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check_room(folder: Path, file: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < RESERVE + file.stat().st_size:
        raise DataError(
            f"{file} must be unpacked to be read, and {folder} has {free / 1e9:.1f} GB free: too little for it and the "
            f"{RESERVE / 1e9:.0f} GB that are left to others",
            f"make room, name another folder in {VARIABLE}, or give the .arrow files of dataset.save_to_disk",
        )


def _bytes(column: pa.Array, file: Path, row: int) -> tuple[np.ndarray, pa.Buffer | None]:
    """Where the pictures of a column begin and end in its buffer: int64 [n + 1], and the buffer."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        column = column.flatten()[kind.get_field_index("bytes")]
        kind = column.type
    large = pa.types.is_large_binary(kind)
    if not (large or pa.types.is_binary(kind)):
        raise DataError(f"the pictures of {file} are {kind}, not bytes of picture files", HuggingFaceDataset.obtain)
    if column.null_count:
        first = row + int(np.argmax(np.asarray(column.is_null())))
        raise DataError(
            f"{file}: row {first} holds no picture, at most the path of one",
            "save the dataset with its pictures: dataset.save_to_disk embeds them",
        )
    _, ends, data = column.buffers()
    if not len(column):
        return np.zeros(1, np.int64), None
    all_ends = np.frombuffer(ends, np.int64 if large else np.int32)
    return all_ends[column.offset : column.offset + len(column) + 1].astype(np.int64), data


def _labels(column: pa.Array, file: Path) -> np.ndarray:
    import pyarrow as pa

    if not pa.types.is_integer(column.type) or column.null_count:
        what = "some rows have none" if column.null_count else f"they are {column.type}"
        raise DataError(
            f"the labels of {file} are not one whole number a row: {what}",
            "name the column with label=…, or turn texts into numbers with dataset.class_encode_column",
        )
    return np.asarray(column).astype(np.int64)


def _classes(names: list[str] | None, labels: np.ndarray) -> Classes:
    if not names:
        return Classes(tuple(str(k) for k in range(int(labels.max(initial=0)) + 1)))
    table, index = imagenet_classes(), index_of_wnid()
    if tuple(names) == table.names:
        return table
    if all(name in index for name in names):
        return Classes(tuple(table.names[index[name]] for name in names), tuple(names))
    return Classes(tuple(names))
