"""What every registered dataset must keep: a complete card, a call that can be read, and errors that help."""

from __future__ import annotations

import inspect
import shlex
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from aresbench.cli.main import main
from aresbench.core.errors import AresError, DataError, SpecError
from aresbench.core.registry import TABLES, card, find
from aresbench.core.spec import parse_call
from aresbench.data import fashion_mnist
from aresbench.data.base import Dataset
from aresbench.data.licence import REASONS
from aresbench.data.load import load_dataset

NAMES = tuple(TABLES["datasets"])
every_dataset = pytest.mark.parametrize("name", NAMES)
AT_HAND = ("samples", "digits")  # come with packages
YOURS = ("folder", "npz", "shards", "hf-dataset")  # need a path


def spec_of(name: str) -> str:
    """The dataset with those settings that have no default."""
    return str(card("datasets", name).facts.get("example", name))


@every_dataset
def test_the_card_is_complete(name: str) -> None:
    facts, factory = card("datasets", name).facts, find("datasets", name)
    for key in ("title", "licence", "obtain", "image_size"):
        assert isinstance(facts[key], str) and facts[key].strip(), key
    assert facts["citation"].strip() or name in YOURS
    assert facts["terms"] in REASONS
    assert facts.get("parent", "") in ("", *NAMES) and facts.get("parent") != name
    assert ("known" in facts) == ("known_source" in facts), "known answers say where they come from"
    for key, value in facts.items():
        assert getattr(factory, key) == value, f"{key} is not what the card says"


@every_dataset
def test_the_words_on_the_card_fit_each_other(name: str) -> None:
    facts = card("datasets", name).facts
    if "non-commercial" in facts["licence"]:
        assert facts["terms"] == "non-commercial"
    if facts["terms"] == "free":
        assert facts["licence"] in ("yours", "MIT", "CC0 1.0")
    assert len(facts["title"]) < 60


@every_dataset
def test_settings_without_a_default_are_in_the_example(name: str) -> None:
    call = parse_call(spec_of(name))
    settings = fields(find("datasets", name))
    assert call.name == name and set(call.kwargs) <= {f.name for f in settings}
    needed = {f.name for f in settings if f.default is MISSING}
    if name in YOURS:
        assert needed == {"root"}
    else:
        assert needed <= set(call.kwargs)


@every_dataset
def test_every_setting_is_explained(name: str) -> None:
    factory = find("datasets", name)
    explained = inspect.getdoc(factory) or ""
    for setting in fields(factory):
        assert f"{setting.name}: " in explained, f"the docstring does not explain {setting.name}"


@every_dataset
def test_show_tells_it_all(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "dataset", name]) == 0
    said = capsys.readouterr().out
    facts = card("datasets", name).facts
    for key in ("title", "licence", "terms", "obtain"):
        assert facts[key] in said
    line = next(line for line in said.splitlines() if line.strip().startswith("aresbench run"))
    assert shlex.split(line)[-1] == spec_of(name)


@pytest.fixture
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data folder, an empty cache, no network."""

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.delenv("ARESBENCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "no-debian")
    return tmp_path


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*AT_HAND, *YOURS)])
def test_who_lacks_the_files_is_told_where_to_get_them(name: str, nothing_here: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(spec_of(name))
    told = str(caught.value)
    sources = {card("datasets", one).facts["obtain"] for one in (name, "imagenet")}  # ReaL needs ImageNet's files too
    assert any(text in told for text in sources) or "download it where there is a network" in told
    assert "ARESBENCH_DATA" in told


def _empty(folder: Path) -> Path:
    return folder


def _strangers(folder: Path) -> Path:
    (folder / "holiday").mkdir()
    (folder / "holiday/beach.txt").write_text("no picture")
    return folder


def _missing(folder: Path) -> Path:
    return folder / "nowhere"


@pytest.mark.parametrize("made", [_empty, _strangers, _missing])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in AT_HAND])
def test_a_wrong_root_is_an_error_with_a_remedy(
    name: str, made: Callable[[Path], Path], nothing_here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = made(tmp_path_factory.mktemp("root"))
    with pytest.raises(DataError) as caught:
        load_dataset(spec_of(name), root=root)
    assert str(root) in str(caught.value), "the folder is named"
    if made is not _missing:
        assert caught.value.remedy


@pytest.mark.parametrize("name", YOURS)
def test_data_of_ones_own_need_a_path(name: str) -> None:
    with pytest.raises(SpecError, match="needs 'root'") as caught:
        load_dataset(name)
    assert f"{name}:/path" in caught.value.remedy


@every_dataset
def test_only_published_corruptions_bear_one(name: str) -> None:
    made: Any = find("datasets", name)
    settings = parse_call(spec_of(name)).kwargs
    if {"corruption", "severity"} <= {f.name for f in fields(made)}:
        data = made(settings["corruption"], int(settings["severity"]))
        assert data.corrupted_by == (settings["corruption"], int(settings["severity"]))
    else:
        data = made(**{"root": "/nowhere"} if name in YOURS else {})
        assert data.corrupted_by is None
    assert isinstance(data, Dataset) and data.class_rule in ("full", "subset")


def test_a_name_that_is_nearly_right() -> None:
    with pytest.raises(AresError, match="did you mean 'imagenet-c'"):
        load_dataset("imagenetc")
