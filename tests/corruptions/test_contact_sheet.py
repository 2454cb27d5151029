"""The contact sheet in the documentation shows every corruption there is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from aresbench.core.registry import TABLES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("contact_sheet", ROOT / "scripts/contact_sheet.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_corruption_has_its_row_and_every_tile_its_picture(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "SIDE", 64)  # faster
    rows = script.rows()
    assert [name for name, _ in rows] == ["clean", *(name for name, _ in rows[1:])]
    assert {name for name, _ in rows[1:]} == set(TABLES["corruptions"])
    assert [len(tiles) for _, tiles in rows] == [1] + [5] * (len(rows) - 1)
    page = np.array(script.sheet(20)).astype(int)
    assert page.shape == ((len(rows) + 1) // 2 * 43 + 20, 2 * (5 * 23 + 6), 3)
    column = page[:, 3:23].std((1, 2)) > 1  # where the leftmost tiles and their titles are
    assert column.mean() > 0.6


def test_sheet_in_the_documentation_is_of_today(script: ModuleType) -> None:
    """A new corruption needs a new sheet: python scripts/contact_sheet.py"""
    file = script.SHEET
    assert file.stat().st_size < 600_000
    count = len(TABLES["corruptions"]) + 1
    width = 2 * (5 * (script.TILE + script.GAP) + 2 * script.GAP)
    height = (count + 1) // 2 * (script.TILE + script.LINE + script.GAP) + script.LINE
    assert Image.open(file).size == (width, height)
    assert "images/corruptions.jpg" in (ROOT / "docs/explanation/corruption-modes.md").read_text()
