"""The picture cache: the same pixels as decoding, and never a wrong one, whatever happens to its files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aresbench.core.errors import DataError
from aresbench.core.preprocessing import Preprocessing
from aresbench.data import cache
from aresbench.data.base import Dataset, load_images, load_pictures
from aresbench.data.cache import PictureCache, cache_folder, clear_pictures, kept_pictures
from aresbench.data.load import load_dataset

SMALL = Preprocessing((32, 32), 36, "bilinear")
ROOM = 3 * 32 * 32


@pytest.fixture
def photos(tmp_path: Path, photographs: list[Path]) -> Path:
    """20 photographs in two classes, copies that a test may change."""
    for k, file in enumerate(photographs):
        (tmp_path / "photos" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "photos" / "ab"[k % 2])
    return tmp_path / "photos"


@pytest.fixture
def data(photos: Path) -> Dataset:
    return load_dataset(f"folder:{photos}")


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, decoding any picture is an error."""

    def forbid() -> None:
        def refuse(self: Dataset, i: int) -> Image.Image:
            raise AssertionError(f"picture {i} was decoded")

        monkeypatch.setattr(cache, "load_pictures", refuse)

    return forbid


def _equals(x: torch.Tensor, data: Dataset, places: list[int], preprocessing: Preprocessing = SMALL) -> bool:
    return torch.equal(x, load_pictures(data, places, preprocessing)[0])


def test_second_reading_is_the_same_and_decodes_nothing(
    tmp_path: Path, data: Dataset, no_decoding: Callable[[], None]
) -> None:
    places = [3, 0, 19, 7]
    x, kept, bad = PictureCache(tmp_path / "cache").load(data, places, SMALL)
    assert x.dtype == torch.uint8 and x.shape == (4, 3, 32, 32) and kept == places and bad == []
    assert torch.equal(x.float() / 255, load_images(data, places, SMALL)[0])
    no_decoding()
    again, kept, bad = PictureCache(tmp_path / "cache").load(data, places[::-1], SMALL)
    assert torch.equal(again, x.flip(0)) and kept == places[::-1] and bad == []


def test_partly_there(tmp_path: Path, data: Dataset) -> None:
    PictureCache(tmp_path).load(data, [1, 5], SMALL)
    x, kept, _ = PictureCache(tmp_path).load(data, [0, 1, 2, 5, 6], SMALL)
    assert kept == [0, 1, 2, 5, 6] and _equals(x, data, kept)


def test_views_share_the_pictures_of_their_dataset(
    tmp_path: Path, data: Dataset, no_decoding: Callable[[], None]
) -> None:
    expected = load_pictures(data, [11, 4], SMALL)[0]
    PictureCache(tmp_path).load(data, range(20), SMALL)
    no_decoding()
    x, _, _ = PictureCache(tmp_path).load(data[[11, 4]], [0, 1], SMALL)
    assert torch.equal(x, expected)


def test_protocols_are_kept_apart(tmp_path: Path, data: Dataset) -> None:
    pictures = PictureCache(tmp_path)
    for preprocessing in (SMALL, Preprocessing((32, 32), 36, "bicubic"), Preprocessing((32, 32), 32, "bilinear")):
        assert _equals(pictures.load(data, [0, 1], preprocessing)[0], data, [0, 1], preprocessing)
    assert len(kept_pictures(tmp_path)) == 3


def test_changed_file_is_decoded_anew(tmp_path: Path, data: Dataset) -> None:
    pictures = PictureCache(tmp_path / "cache")
    before, _, _ = pictures.load(data, [0, 1], SMALL)
    source = data.source(0)
    assert source is not None
    facts = source.stat()
    Image.open(source).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(source, quality=60)
    after, _, _ = pictures.load(data, [0, 1], SMALL)
    assert not torch.equal(before[0], after[0]) and _equals(after, data, [0, 1])
    # the time alone tells, too: a file of the same size may hold another picture
    os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert _head_differs(pictures, data)


def _head_differs(pictures: PictureCache, data: Dataset) -> bool:
    volume, head = pictures._volume(data, SMALL), cache._head(data, 0)
    assert volume is not None and head is not None
    return not volume.read(int(data.positions[0]), head, np.empty((3, 32, 32), np.uint8))


@pytest.mark.parametrize("name", ["pictures.u8", "entries.bin"])
@pytest.mark.parametrize("place", [0, 13, 19])
def test_damaged_entry_is_decoded_anew(tmp_path: Path, data: Dataset, name: str, place: int) -> None:
    """One bit turned in the pixels or in the entry: as a torn write, or a disk that forgets."""
    PictureCache(tmp_path).load(data, range(20), SMALL)
    (file,) = tmp_path.glob(f"*/{name}")
    damaged = bytearray(file.read_bytes())
    size = len(damaged) // 20
    for byte in (0, size // 2, size - 1 if name == "pictures.u8" else 24):
        damaged[place * size + byte] ^= 1
        file.write_bytes(damaged)
        x, kept, _ = PictureCache(tmp_path).load(data, range(20), SMALL)
        assert kept == list(range(20)) and _equals(x, data, kept)
        damaged = bytearray(file.read_bytes())


def test_entry_without_its_pixels_is_decoded_anew(tmp_path: Path, data: Dataset) -> None:
    """After a crash of the machine the entries may be on the disk, and the pixels not."""
    PictureCache(tmp_path).load(data, range(20), SMALL)
    (file,) = tmp_path.glob("*/pictures.u8")
    file.write_bytes(bytes(20 * ROOM))
    assert _equals(PictureCache(tmp_path).load(data, range(20), SMALL)[0], data, list(range(20)))
    file.write_bytes(b"")
    assert _equals(PictureCache(tmp_path).load(data, range(20), SMALL)[0], data, list(range(20)))


def test_other_picture_at_the_same_place(tmp_path: Path, photos: Path) -> None:
    """Two datasets of one name whose places mean other pictures (of the same size and time) do not mix."""
    data = load_dataset(f"folder:{photos}")
    PictureCache(tmp_path / "cache").load(data, range(20), SMALL)
    turned = data[::-1]
    turned.__dict__["positions"] = data.positions
    for k in range(20):
        source = data.source(k)
        assert source is not None
        os.utime(source, ns=(0, 0))
    places = list(range(20))
    assert _equals(PictureCache(tmp_path / "cache").load(turned, places, SMALL)[0], turned, places)


def test_unreadable_pictures(tmp_path: Path, data: Dataset) -> None:
    pictures = PictureCache(tmp_path / "cache")
    pictures.load(data, [0], SMALL)
    broken, missing = data.source(2), data.source(4)
    assert broken is not None and missing is not None
    broken.write_bytes(broken.read_bytes()[:200])
    missing.unlink()
    for _ in range(2):
        with pytest.raises(DataError, match="cannot be read"):
            pictures.load(data, [0, 1, 2, 3], SMALL)
        x, kept, bad = pictures.load(data, [0, 1, 2, 3, 4, 5], SMALL, "skip")
        assert kept == [0, 1, 3, 5] and _equals(x, data, kept)
        assert [name for name, _ in bad] == [data.ids[2], data.ids[4]] and "missing" in bad[1][1]
        x, kept, bad = pictures.load(data, [2, 4], SMALL, "skip")
        assert x.shape == (0, 3, 32, 32) and kept == [] and len(bad) == 2


def test_a_file_that_was_kept_and_is_gone_is_named(tmp_path: Path, data: Dataset) -> None:
    pictures = PictureCache(tmp_path / "cache")
    pictures.load(data, [0], SMALL)
    source = data.source(0)
    assert source is not None
    source.unlink()
    with pytest.raises(DataError, match="missing"):
        pictures.load(data, [0], SMALL)


def test_arrays_and_native_sizes_are_not_kept(tmp_path: Path, data: Dataset) -> None:
    digits = load_dataset("digits")
    x, kept, _ = PictureCache(tmp_path).load(digits, [0, 1], SMALL)
    assert kept == [0, 1] and _equals(x, digits, [0, 1])
    x, kept, _ = PictureCache(tmp_path).load(data, [0, 1], None)
    assert x.shape == (2, 3, 64, 96) and PictureCache(tmp_path).needed(data, None) == 0
    assert list(tmp_path.glob("*/pictures.u8")) == []


def test_own_way_of_reading_has_its_own_place(tmp_path: Path, data: Dataset) -> None:
    """A dataset that cuts its pictures in another way does not get those of before it was changed."""

    class Cut(type(data)):  # type: ignore[misc]
        def picture(self, i: int) -> Image.Image:
            return super().picture(i).crop((1, 1, 60, 60))

    cut = Cut(data.root)  # type: ignore[attr-defined]
    assert cut.name == data.name
    PictureCache(tmp_path).load(data, [0], SMALL)
    assert _equals(PictureCache(tmp_path).load(cut, [0], SMALL)[0], cut, [0])


def test_read_ahead(tmp_path: Path, data: Dataset, no_decoding: Callable[[], None]) -> None:
    pictures = PictureCache(tmp_path)
    expected = load_pictures(data, [0, 1, 2], SMALL)[0]
    pictures.read_ahead(data, [0, 1, 2], SMALL)
    assert pictures._next is not None
    pictures._next[1].result()
    no_decoding()
    assert torch.equal(pictures.load(data, [0, 1, 2], SMALL)[0], expected)


def test_read_ahead_of_something_else(tmp_path: Path, data: Dataset) -> None:
    """What was begun is given only to who asks for just that; an error of it is not lost."""
    pictures = PictureCache(tmp_path / "cache")
    pictures.read_ahead(data, [0, 1], SMALL)
    assert _equals(pictures.load(data, [2, 3], SMALL)[0], data, [2, 3])
    pictures.read_ahead(data, [0, 1], SMALL)
    assert _equals(pictures.load(data[[5, 6]], [0, 1], SMALL)[0], data, [5, 6])
    source = data.source(4)
    assert source is not None
    source.unlink()
    pictures.read_ahead(data, [4], SMALL)
    with pytest.raises(DataError, match="missing"):
        pictures.load(data, [4], SMALL)


# -- where the cache cannot be used ------------------------------------------------------------


def test_folder_that_cannot_be_made(tmp_path: Path, data: Dataset) -> None:
    (tmp_path / "file").write_text("")
    pictures = PictureCache(tmp_path / "file" / "cache")
    for _ in range(2):
        assert _equals(pictures.load(data, [0, 1], SMALL)[0], data, [0, 1])
    assert pictures.load(data, [0], Preprocessing((16, 16), 16))[0].shape == (1, 3, 16, 16)
    (note,) = pictures.notes
    assert "Not a directory" in note and "ARESBENCH_CACHE" in note
    assert pictures.needed(data, SMALL) == 0


def test_full_disk(tmp_path: Path, photos: Path) -> None:
    """A process that may write 10,000 bytes in a file keeps three pictures, reads all, and says so once."""
    program = f"""
import resource
from aresbench.core.preprocessing import Preprocessing
from aresbench.data.base import load_pictures
from aresbench.data.cache import PictureCache
from aresbench.data.load import load_dataset
data = load_dataset("folder:{photos}")
small = Preprocessing((32, 32), 36, "bilinear")
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
pictures = PictureCache("{tmp_path / "cache"}")
for _ in range(2):
    assert load_pictures(data, range(20), small)[0].equal(pictures.load(data, range(20), small)[0])
assert len(pictures.notes) == 1, pictures.notes
print(pictures.notes[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "not kept" in done.stdout
    assert kept_pictures(tmp_path / "cache")[0].pictures == 3
    data = load_dataset(f"folder:{photos}")
    places = list(range(20))
    assert _equals(PictureCache(tmp_path / "cache").load(data, places, SMALL)[0], data, places)


def test_room_is_left_on_the_disk(tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(cache, "RESERVE", 2 * free)
    pictures = PictureCache(tmp_path)
    assert _equals(pictures.load(data, [0, 1], SMALL)[0], data, [0, 1])
    assert "full" in pictures.notes[0] and kept_pictures(tmp_path)[0].pictures == 0


def test_folder_that_can_only_be_read(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch, no_decoding: Callable[[], None]
) -> None:
    """Somebody else's cache is read all the same. (Permissions mean nothing to root, so they are refused by hand.)"""
    PictureCache(tmp_path).load(data, [0, 1], SMALL)
    expected = load_pictures(data, [0, 1, 2], SMALL)[0]

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    pictures = PictureCache(tmp_path)
    assert torch.equal(pictures.load(data, [0, 1, 2], SMALL)[0], expected)
    assert "Permission denied" in pictures.notes[0] and kept_pictures(tmp_path)[0].pictures == 2
    no_decoding()
    assert torch.equal(pictures.load(data, [0, 1], SMALL)[0], expected[:2])


def test_switched_off(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARESBENCH_CACHE", "off")
    pictures = PictureCache()
    assert _equals(pictures.load(data, [0], SMALL)[0], data, [0])
    assert pictures.folder is None and pictures.notes == [] and pictures.needed(data, SMALL) == 0


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARESBENCH_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "pictures"
    monkeypatch.delenv("ARESBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "aresbench" / "pictures"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "aresbench" / "pictures"


# -- size and clearing -------------------------------------------------------------------------


def test_size_is_known_before(tmp_path: Path, data: Dataset) -> None:
    pictures = PictureCache(tmp_path / "cache")
    assert pictures.needed(data, SMALL) == 20 * ROOM and not (tmp_path / "cache").exists()
    pictures.load(data, [2, 9], SMALL)
    assert pictures.needed(data, SMALL) == 18 * ROOM and pictures.needed(data[:3], SMALL) == 2 * ROOM
    assert PictureCache(tmp_path / "cache").needed(data, SMALL) == 18 * ROOM
    (kept,) = kept_pictures(tmp_path / "cache")
    assert kept.dataset == data.name and kept.pictures == 2 and kept.preprocessing == SMALL.describe()


def test_a_place_takes_room_when_it_is_written(tmp_path: Path, data: Dataset) -> None:
    large = Preprocessing((224, 224), 224)
    last = int(np.argmax(data.positions))
    PictureCache(tmp_path).load(data, [last], large)
    (file,) = tmp_path.glob("*/pictures.u8")
    assert file.stat().st_size == 20 * 3 * 224 * 224
    assert kept_pictures(tmp_path)[0].bytes < 3 * 3 * 224 * 224


def test_clear(tmp_path: Path, data: Dataset) -> None:
    samples = load_dataset("samples")
    pictures = PictureCache(tmp_path)
    pictures.load(data, [0], SMALL)
    pictures.load(samples, [0], SMALL)
    (tmp_path / "mine.txt").write_text("not the cache's")
    assert [kept.dataset for kept in clear_pictures(tmp_path, "samples")] == ["samples"]
    assert [kept.dataset for kept in kept_pictures(tmp_path)] == [data.name]
    clear_pictures(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "photos") == ["mine.txt"]
    # a process that has it open goes on
    assert _equals(pictures.load(data, [0, 1], SMALL)[0], data, [0, 1])
    assert clear_pictures(tmp_path / "nowhere") == []


# -- several processes -------------------------------------------------------------------------

WRITER = """
import random, sys
from aresbench.core.preprocessing import Preprocessing
from aresbench.data.base import load_pictures
from aresbench.data.cache import PictureCache, _head
from aresbench.data.load import load_dataset
data = load_dataset("folder:" + sys.argv[1])
small = Preprocessing((32, 32), 36, "bilinear")
true = load_pictures(data, range(20), small)[0]
print("ready", flush=True)
sys.stdin.readline()
for turn in range(int(sys.argv[3])):
    pictures = PictureCache(sys.argv[2])
    places = random.Random(turn).sample(range(20), 7)
    volume = pictures._volume(data, small)
    # as if each had just been decoded here
    pictures._keep(volume, data, [(k, _head(data, k), true[k].numpy()) for k in places])
    x, kept, bad = pictures.load(data, places, small)
    assert x.equal(true[places]) and kept == places
print("done", flush=True)
"""


def _writer(photos: Path, folder: Path, turns: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", WRITER, str(photos), str(folder), str(turns)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_several_processes_write_and_read_at_once(tmp_path: Path, photos: Path) -> None:
    writers = [_writer(photos, tmp_path / "cache", 40) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        out, _ = writer.communicate("go\n", timeout=60)
        assert writer.returncode == 0 and "done" in out
    data = load_dataset(f"folder:{photos}")
    assert _equals(PictureCache(tmp_path / "cache").load(data, range(20), SMALL)[0], data, list(range(20)))


def test_killed_at_any_moment(tmp_path: Path, photos: Path) -> None:
    data = load_dataset(f"folder:{photos}")
    writer = _writer(photos, tmp_path / "cache", 1_000_000)
    assert writer.stdin is not None and writer.stdout is not None and writer.stdout.readline() == "ready\n"
    writer.stdin.write("go\n")
    writer.stdin.flush()
    time.sleep(0.3)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    x, kept, _ = PictureCache(tmp_path / "cache").load(data, range(20), SMALL)
    assert kept == list(range(20)) and _equals(x, data, kept)
