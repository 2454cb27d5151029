"""The documentation's example: its bundle travels with the repository, and is what its suite asks."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from aresbench.core.suite import Suite, load_suite
from aresbench.report.reading import Reading
from aresbench.store import Store

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "scripts" / "example_site.zip"
PHOTOGRAPHS = 20


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite(str(ROOT / "scripts" / "example_site.toml"))


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> list[Reading]:
    store = Store(tmp_path_factory.mktemp("example"))
    store.merge(BUNDLE)
    return [Reading(cell) for cell in store.cells()]


def test_the_bundle_is_small_and_names_no_folder_of_the_machine() -> None:
    assert BUNDLE.stat().st_size < 3e6
    with zipfile.ZipFile(BUNDLE) as file:
        texts = [file.read(name).decode() for name in file.namelist() if name.endswith(".json")]
    assert any("scripts/example_site.toml" in text for text in texts)
    for text in texts:
        for folder in (" /", '"/', "home/", "tmp/", ":\\\\"):
            assert folder not in text, text


def test_the_bundle_holds_the_suites_adversaries_for_every_model(suite: Suite, readings: list[Reading]) -> None:
    asked = {
        (data.dataset, data.name, model)
        for data in suite.tasks
        for model in suite.models
        if data.threat.kind == "adversary" and ("digits" in model) == (data.dataset == "digits")
    }
    # A transfer from each model of the run is a cell for each of them, under one task of the suite.
    assert {(r.dataset, r.name.partition(" from ")[0], r.model) for r in readings} == asked
    for reading in readings:
        wanted = next(t.n for t in suite.tasks if t.dataset == reading.dataset) or PHOTOGRAPHS
        assert len(reading.images) == wanted, reading.name
