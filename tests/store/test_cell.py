"""What goes into a cell comes out of it, once, in order, with its types."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aresbench.core.errors import StoreError
from aresbench.store import Cell, Store, index, journal, schema

Make = Callable[..., dict[str, Any]]


def parquet(cell: Cell) -> list[str]:
    return sorted(path.name for path in cell.folder.glob("*.parquet"))


def journals(cell: Cell) -> list[Path]:
    return sorted(cell.folder.glob("journal-*"))


@pytest.mark.parametrize("sealed", [False, True])
def test_types_survive_with_what_is_missing(cell: Cell, image: Make, attempt: Make, sealed: bool) -> None:
    cell.append("images", [image(0, breaking_budget="1/255", breaking_distance=0.1 + 0.2, broken_by="pgd(steps=20)")])
    cell.append("images", [image(1, margin=float("nan"))])
    cell.append("attempts", [attempt(0, first_step=3, verdict="broken", distance=np.float32(0.1)), attempt(1)])
    if sealed:
        cell.seal()
    images, attempts = cell.images(), cell.attempts()
    assert images["breaking_budget"].tolist() == ["1/255", None]
    assert images["breaking_distance"][0] == 0.1 + 0.2
    assert np.isnan(images["breaking_distance"][1]) and np.isnan(images["margin"][1])
    assert images["adv_prediction"].dtype == pd.Int32Dtype() and images["adv_prediction"].isna().all()
    assert images["top5"][0] == [0, 1, 2, 3, 4]
    assert images["correct"].dtype == bool
    assert attempts["first_step"].dtype == pd.Int32Dtype()
    assert attempts["first_step"][0] == 3 and attempts["first_step"][1] is pd.NA
    assert attempts["distance"][0] == float(np.float32(0.1))
    assert attempts["pinned"].tolist() == [True, True]


def test_files_from_before_a_column_was_added_read_as_not_known(attempt: Make) -> None:
    rows = schema.to_table("attempts", [attempt(0, verdict="broken", survives_rounding=True), attempt(1)])
    old = schema.from_bytes("attempts", schema.to_bytes(rows.drop_columns(["survives_rounding"])))
    assert old.schema == schema.SCHEMAS["attempts"]
    both = schema.to_frame(schema.union("attempts", [old, rows]))
    assert both["survives_rounding"].fillna(False).tolist() == [True, False]  # what is known stays
    assert schema.to_frame(old)["survives_rounding"].isna().all()
    with pytest.raises(ValueError, match="verdict"):
        schema.from_bytes("attempts", schema.to_bytes(rows.drop_columns(["verdict"])))


def test_an_empty_cell_has_empty_tables_with_their_columns(cell: Cell) -> None:
    assert len(cell.images()) == len(cell.attempts()) == len(cell.examples()) == 0
    assert "breaking_budget" in cell.images() and "first_step" in cell.attempts()
    assert cell.flags() == [] and cell.provenance() == [] and cell.result() is None
    cell.seal()
    cell.append("images", [])
    assert os.listdir(cell.folder) == ["cell.json"]


def test_sealing_makes_one_file_a_shard_and_drops_the_journal(cell: Cell, image: Make) -> None:
    cell.append("images", [image(i) for i in range(70)])
    before = cell.images()
    cell.seal()
    assert [name[:12] for name in parquet(cell)] == ["images-00000", "images-00001", "images-00002"]
    assert journals(cell) == []
    pd.testing.assert_frame_equal(cell.images(), before)


def test_sealing_some_shards_keeps_the_rest_journalled(cell: Cell, image: Make) -> None:
    cell.append("images", [image(i) for i in range(70)])
    cell.seal([1])
    assert [name[:12] for name in parquet(cell)] == ["images-00001"]
    assert len(journals(cell)) == 1
    cell.append("images", [image(70)])
    assert cell.images()["position"].tolist() == list(range(71))
    cell.seal()
    assert len(parquet(cell)) == 3 and journals(cell) == []
    assert cell.images()["position"].tolist() == list(range(71))


def test_equal_rows_make_equal_files_whatever_their_order(store: Store, image: Make, description: Make) -> None:
    names = []
    for number, order in enumerate([range(40), reversed(range(40))]):
        cell = store.cell(description(f"model {number}"))
        for i in order:
            cell.append("images", [image(i)])
        cell.seal()
        names.append(parquet(cell))
    assert names[0] == names[1]


def test_budgets_come_in_order_of_size(cell: Cell, attempt: Make) -> None:
    texts = ["4/255", "", "1/2/255", "1/255", "0.5"]
    cell.append("attempts", [attempt(i, eps=text) for i in (1, 0) for text in texts])
    assert cell.attempts()["eps"].tolist() == ["", "1/2/255", "1/255", "4/255", "0.5"] * 2
    assert cell.attempts()["position"].tolist() == [0] * 5 + [1] * 5


def test_the_same_attempt_counts_once_and_another_start_is_another(cell: Cell, attempt: Make) -> None:
    cell.append("attempts", [attempt(0), attempt(0), attempt(0, start="warm"), attempt(0, attack="fgsm")])
    cell.seal()
    cell.append("attempts", [attempt(0)])
    assert len(cell.attempts()) == 3


def test_where_rows_disagree_the_stronger_evidence_stays_whole(tmp_path: Path, image: Make, description: Make) -> None:
    rows = [
        image(0, breaking_budget=None),
        image(0, breaking_budget="4/255", breaking_distance=0.01, broken_by="a"),
        image(0, breaking_budget="1/2/255", breaking_distance=0.0019, broken_by="b"),
        image(0, breaking_budget="1/2/255", breaking_distance=0.0018, broken_by="c"),
    ]
    for number, order in enumerate(itertools.permutations(rows)):
        cell = Store(tmp_path / str(number)).cell(description())
        for row in order:
            cell.append("images", [row])
            cell.seal()
        assert cell.images()["broken_by"].tolist() == ["c"]


def test_a_clean_error_and_a_broken_verdict_win(cell: Cell, image: Make, attempt: Make) -> None:
    cell.append("images", [image(0, correct=True), image(0, correct=False, prediction=7)])
    cell.append("attempts", [attempt(0, verdict=v) for v in ("resisted", "broken", "unconfirmed")])
    assert cell.images()["prediction"].tolist() == [7]
    assert cell.attempts()["verdict"].tolist() == ["broken"]


budgets = st.lists(st.sampled_from([None, "0", "1/255", "4/255", "1/16/255"]), min_size=1, max_size=6)


@given(budgets)
def test_a_union_is_the_element_wise_minimum(texts: list[str | None]) -> None:
    base = {"id": "a", "position": 0, "shard": 0, "label": 0, "prediction": 0, "top5": [0], "margin": 0.0}
    base |= {"confidence": 1.0, "correct": True}
    tables = [schema.to_table("images", [base | {"breaking_budget": text}]) for text in texts]
    order = [None, "4/255", "1/255", "1/16/255", "0"]
    kept = schema.union("images", tables)["breaking_budget"].to_pylist()
    assert kept == [max(texts, key=order.index)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corect": True}, "did you mean 'correct'"),
        ({"label": "seven"}, "do not fit"),
        ({"label": 2**40}, "do not fit"),
        ({"margin": None}, "need a value in column 'margin'"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_they_are_written(
    cell: Cell, image: Make, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        cell.append("images", [image(0), image(1, **change)])
    assert journals(cell) == []


def test_unknown_words_and_kinds_are_refused(cell: Cell, attempt: Make) -> None:
    with pytest.raises(StoreError, match="'won' is no verdict"):
        cell.append("attempts", [attempt(0, verdict="won")])
    with pytest.raises(StoreError, match="'hot' is no start"):
        cell.append("attempts", [attempt(0, start="hot")])
    with pytest.raises(StoreError, match="cannot be appended"):
        cell.append("examples", [attempt(0)])


def test_examples_flags_and_provenance_are_kept_once(cell: Cell) -> None:
    picture = {"id": "a", "label": 1, "prediction": 1, "clean_png": b"\x89PNG\x00"}
    cell.add_examples([picture, picture | {"id": "b", "adv_prediction": 2, "changed_png": b"x", "eps": "1/255"}])
    cell.add_examples([picture])
    examples = cell.examples()
    assert examples["id"].tolist() == ["a", "b"]
    assert examples["changed_png"].tolist() == [None, b"x"] and examples["clean_png"][0] == b"\x89PNG\x00"
    info = {"name": "n", "level": "info", "about": "model", "message": "m", "remedy": "r", "evidence": {"k": 1}}
    cell.add_flags([info])
    cell.add_flags([info, info | {"level": "error"}])
    assert [flag["level"] for flag in cell.flags()] == ["error", "info"]
    cell.add_provenance({"torch": "2"})
    cell.add_provenance({"torch": "2"})
    assert cell.provenance() == [{"torch": "2"}]
    with pytest.raises(StoreError, match="no flag"):
        cell.add_flags([info | {"level": "bad"}])
    with pytest.raises(StoreError, match="cannot be stored"):
        cell.add_provenance({"value": float("nan")})


def test_a_result_goes_stale_when_rows_or_flags_are_added(cell: Cell, image: Make) -> None:
    cell.append("images", [image(0)])
    cell.write_result({"accuracy": 0.5})
    assert cell.result() == {"accuracy": 0.5}
    cell.add_provenance({"torch": "2"})
    assert cell.result() == {"accuracy": 0.5}
    state = cell.state()
    cell.append("images", [image(1)])
    assert cell.result() is None
    cell.write_result({"accuracy": 0.5}, state)  # derived from rows read before the last one came
    assert cell.result() is None


def test_a_torn_last_line_is_dropped_and_the_rest_kept(cell: Cell, image: Make, store: Store) -> None:
    cell.append("images", [image(i) for i in range(3)])
    cell.close()
    path = journals(cell)[0]
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        if cut in (ends[0], ends[1] + 1, ends[2] - 1, len(whole)):
            assert len(cell.images()) == sum(end <= cut for end in ends)
    path.write_bytes(whole[:-5])
    assert store.status().torn == 1
    cell.seal()
    assert cell.images()["position"].tolist() == [0, 1] and journals(cell) == []


def test_damaged_files_are_named(cell: Cell, image: Make) -> None:
    cell.append("images", [image(0)])
    cell.seal()
    path = cell.folder / parquet(cell)[0]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StoreError, match=rf"{path.name} is damaged(.|\n)*delete it"):
        cell.images()


def test_the_index_changes_nothing_but_the_time(
    cell: Cell, image: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(index, "WORTHWHILE", 3)
    place = tmp_path / "runs" / "index" / f"{cell.key}-images.parquet"
    cell.append("images", [image(i, breaking_budget="1/255") for i in range(150)])
    cell.seal()
    before = cell.images()
    assert place.is_file()
    pd.testing.assert_frame_equal(cell.images(), before)
    cell.append("images", [image(150), image(0, breaking_budget="0")])  # later rows are seen beside the index
    cell.seal()
    assert len(cell.images()) == 151 and cell.images()["breaking_budget"][0] == "0"
    read = []
    monkeypatch.setattr("aresbench.store.cell.read_sealed", lambda path: read.append(path) or path.read_bytes())
    cell.images()
    assert len(read) == 2  # the sealed files the index does not know
    for damage in (b"", place.read_bytes()[:-9], b"PAR1"):
        place.write_bytes(damage)
        assert len(cell.images()) == 151
    removed = cell.folder / parquet(cell)[-1]  # an index that knows files which are gone must not speak for them
    removed.unlink()
    assert len(cell.images()) < 151
    shutil.rmtree(place.parent)
    place.parent.write_text("in the way")  # an index that cannot be written is done without
    assert len(cell.images()) < 151


def test_a_child_process_gets_a_journal_of_its_own(cell: Cell, image: Make) -> None:
    cell.append("images", [image(0)])
    child = os.fork()
    if child == 0:
        try:
            cell.append("images", [image(1)])
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(journals(cell)) == 2
    cell.append("images", [image(2)])
    assert cell.images()["position"].tolist() == [0, 1, 2]
    cell.seal()
    assert cell.images()["position"].tolist() == [0, 1, 2] and journals(cell) == []


def test_another_cells_open_journal_is_left_alone(cell: Cell, image: Make) -> None:
    other = Cell(cell.folder)
    cell.append("images", [image(0)])
    other.append("images", [image(1)])
    other.seal()
    assert len(journals(cell)) == 1
    cell.append("images", [image(2)])
    assert other.images()["position"].tolist() == [0, 1, 2]
    cell.close()
    other.seal()
    assert journals(cell) == [] and len(other.images()) == 3


def test_a_removed_journal_is_noticed(cell: Cell, image: Make) -> None:
    cell.append("images", [image(0)])
    journals(cell)[0].unlink()
    with pytest.raises(StoreError, match="removed"):
        cell.append("images", [image(1)])


@pytest.mark.parametrize("shards", [None, [0]])
@pytest.mark.parametrize("look", ["read", "merge", "status"])
def test_a_journal_sealed_between_two_looks_is_read_from_where_it_went(
    cell: Cell, image: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, look: str, shards: list[int] | None
) -> None:
    store, copy = Store(tmp_path / "runs"), Store(tmp_path / "copy")
    really_read = journal.read_rows
    pending = [True]

    def seal_just_before(path: Path) -> object:
        if pending:
            pending.clear()
            cell.seal(shards)
            assert not path.exists()
        return really_read(path)

    cell.append("images", [image(i) for i in range(70)])
    monkeypatch.setattr("aresbench.store.cell.read_rows", seal_just_before)
    monkeypatch.setattr("aresbench.store.archive.read_rows", seal_just_before)
    if look == "status":
        assert store.status().cells == 1
    elif look == "merge":
        copy.merge(store.path)
        assert copy.cells()[0].images()["position"].tolist() == list(range(70))
    else:
        assert Cell(cell.folder).images()["position"].tolist() == list(range(70))
    assert not pending
