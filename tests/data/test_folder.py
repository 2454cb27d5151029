"""Class-per-folder trees of a user's own pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from aresbench.core.errors import DataError
from aresbench.data.load import load_dataset


@pytest.fixture
def tree(tmp_path: Path, photographs: list[Path]) -> Path:
    """Two classes, one with a folder inside, and three pictures in each."""
    for k, where in enumerate(["dog", "dog", "dog", "cat", "cat", "cat/more"]):
        (tmp_path / where).mkdir(exist_ok=True)
        shutil.copy(photographs[k], tmp_path / where)
    return tmp_path


def test_classes_are_folders_and_ids_relative_paths(tree: Path) -> None:
    data = load_dataset(f"folder:{tree}")
    assert data.classes.names == ("cat", "dog") and data.classes.ids == ()
    assert set(data.ids) == {
        *("dog/00.jpg", "dog/01.jpg", "dog/02.jpg"),
        *("cat/03.jpg", "cat/04.jpg", "cat/more/05.jpg"),
    }
    assert [data.classes.names[y] for y in data.labels] == [i.split("/")[0] for i in data.ids]
    assert data.notes == ()
    assert str(tree) not in data.name and data.name.startswith("folder-")


def test_other_files_are_counted_and_hidden_ones_ignored(tree: Path) -> None:
    before = load_dataset("folder", root=tree)
    (tree / "dog/readme.txt").write_text("")
    (tree / "cat/more/clip.mp4").write_bytes(b"")
    (tree / "loose.jpg").write_bytes(b"")
    (tree / "dog/.thumb.jpg").write_bytes(b"")
    (tree / ".git").mkdir()
    (tree / "cat/.more").mkdir()
    after = load_dataset("folder", root=tree)
    assert (after.ids, after.name) == (before.ids, before.name)
    assert after.notes == ("3 files that are no pictures were ignored",)


def test_the_name_follows_the_contents(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    name = load_dataset(f"folder:{tree}").name
    moved = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(tree, moved)
    assert load_dataset(f"folder:{moved}").name == name
    # the same paths with other bytes: another severity of a corrupted dataset
    file = moved / "cat/03.jpg"
    pixels = bytearray(file.read_bytes())
    pixels[-100] ^= 1
    file.write_bytes(pixels)
    assert load_dataset(f"folder:{moved}").name != name


def test_wnid_folders_get_imagenets_names(tree: Path) -> None:
    (tree / "dog").rename(tree / "n02085620")
    (tree / "cat").rename(tree / "n01440764")
    data = load_dataset(f"folder:{tree}")
    assert data.classes.ids == ("n01440764", "n02085620")
    assert data.classes.names == ("tench, Tinca tinca", "Chihuahua")
    (tree / "n02085620").rename(tree / "pets")  # one folder that is no wnid: all are plain names
    assert load_dataset(f"folder:{tree}").classes.names == ("n01440764", "pets")


@pytest.mark.parametrize(
    "given",
    [
        ("classes.txt", "dog golden retriever\ncat tabby\n\nowl unused\n"),
        ("classes.txt", "dog\tgolden retriever\ncat\ttabby\n"),
        ("classes.json", json.dumps({"dog": "golden retriever", "cat": "tabby"})),
    ],
)
def test_names_may_be_given(tree: Path, given: tuple[str, str]) -> None:
    (tree / given[0]).write_text(given[1])
    data = load_dataset(f"folder:{tree}")
    assert data.classes.names == ("tabby", "golden retriever") and data.notes == ()


def test_wnids_may_be_given(tree: Path) -> None:
    (tree / "classes.json").write_text('{"dog": "n02085620", "cat": "n02123045"}')
    classes = load_dataset(f"folder:{tree}").classes
    assert classes.ids == ("n02123045", "n02085620") and classes.names[1] == "Chihuahua"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.txt", "dog pup\nkat tabby\n", "gives no name to the folder 'cat'"),
        ("classes.txt", "dog\ncat\n", "line 1: expected `folder name`"),
        ("classes.txt", "dog a\ndog b\n", "line 2: the folder 'dog' comes twice"),
        ("classes.txt", "dog pet\ncat pet\n", "gives the name 'pet' to two folders"),
        ("classes.json", "{", "cannot be read"),
        ("classes.json", '["cat", "dog"]', "no map from folder to name"),
        ("classes.json", '{"cat": 0, "dog": 1}', "no map from folder to name"),
    ],
)
def test_names_that_do_not_fit(tree: Path, name: str, text: str, message: str) -> None:
    (tree / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load_dataset(f"folder:{tree}")


def test_wrong_trees(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (tree / "classes.txt").write_text("cat a\ndog b\n")
    (tree / "classes.json").write_text("{}")
    with pytest.raises(DataError, match=r"both classes.txt and classes.json"):
        load_dataset(f"folder:{tree}")
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(DataError, match="holds no class folders"):
        load_dataset(f"folder:{empty}")
    shutil.copy(tree / "dog/00.jpg", empty)
    with pytest.raises(DataError, match="pictures but no class folders"):
        load_dataset(f"folder:{empty}")
    (empty / "cat").mkdir()
    with pytest.raises(DataError, match=r"the class folder .*cat holds no picture"):
        load_dataset(f"folder:{empty}")
    with pytest.raises(DataError, match="does not exist"):
        load_dataset(f"folder:{empty}/nowhere")


def test_a_link_back_to_a_folder_above_ends(tree: Path) -> None:
    (tree / "cat/more/loop").symlink_to(tree / "cat")
    assert len(load_dataset(f"folder:{tree}")) == 6
