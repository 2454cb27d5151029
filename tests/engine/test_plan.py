"""What a plan finds on this machine: datasets whole, in part or not at all, and where they lie."""

from __future__ import annotations

from pathlib import Path

import pytest

import aresbench as ab
from aresbench.core.errors import ModelError, SpecError
from aresbench.core.suite import load_suite
from aresbench.engine import shelf
from aresbench.engine.plan import Plan, make_plan
from aresbench.store import Store

SUITE = load_suite("natural-shifts")


def thousand() -> ab.Classifier:
    """A network of ImageNet's classes that nothing is asked of."""
    from torch import nn

    names = ab.load_dataset("samples").classes
    return ab.Classifier(nn.Sequential(nn.AvgPool2d(28), nn.Flatten(), nn.Linear(192, 1000)), None, None, names, 224)


def planned(store: Path, **options: object) -> Plan:
    return make_plan(thousand(), SUITE, Store(store), **options)  # type: ignore[arg-type]


def test_what_is_there_in_part_is_left_out_by_name_or_taken_on_demand(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no task suits"):
        planned(tmp_path)
    plan = planned(tmp_path, partial=True)
    taken = {cell.task.dataset: cell.dataset.name for cell in plan.cells}
    assert taken["imagenet"].startswith("imagenet-part-") and taken["imagenet-v"].startswith("imagenet-v-part-")
    left_out = {s.task.dataset: s.reason for s in plan.skipped}
    assert {*taken, *left_out} == {task.dataset for task in SUITE.tasks}
    assert set(left_out) == {"imagenet-v2(variant=threshold-0.7)", "imagenet-v2(variant=top-images)"}
    assert "it has imagenetv2-matched-frequency" in left_out["imagenet-v2(variant=top-images)"]


def test_a_setting_in_the_spec_goes_before_the_wish(world: Path, tmp_path: Path) -> None:
    tasks = [ab.Task("imagenet(partial=false)", "clean"), ab.Task("imagenet-a", "clean"), ab.Task("samples", "clean")]
    plan = make_plan(thousand(), tasks, Store(tmp_path), partial=True)
    assert [cell.task.dataset for cell in plan.cells] == ["imagenet-a", "samples"]
    assert "say partial=True" in plan.skipped[0].reason


def test_a_dataset_that_cannot_be_read_is_tried_once_for_all_models(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(shelf, "load_dataset", lambda spec, *a, **k: (tried.append(spec), ab.load_dataset(spec))[1])
    tasks = [ab.Task("imagenet", "clean"), ab.Task("imagenet", "lowpass(40)"), ab.Task("samples", "clean")]
    plan = make_plan([thousand(), thousand()], tasks, Store(tmp_path))
    assert tried == ["imagenet", "samples"]
    assert [s.task.dataset for s in plan.skipped] == ["imagenet"] * 2, "once for each model"


def test_one_root_is_of_one_dataset(world: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="these tasks have 11: imagenet, imagenet-real") as caught:
        planned(tmp_path, root=world / "imagenet")
    assert "ARESBENCH_DATA" in caught.value.remedy
    tasks = [ab.Task(f"imagenet-c(corruption=fog, severity={k})", "clean") for k in (1, 2)]
    plan = make_plan(thousand(), tasks, Store(tmp_path), root=world / "imagenet-c", partial=True)
    assert len(plan.cells) == 2
    plan = planned(tmp_path, data="imagenet", root=world / "imagenet", partial=True)
    assert {cell.dataset.name for cell in plan.cells} == {plan.cells[0].dataset.name}


def test_cells_share_what_they_ask_for(tmp_path: Path) -> None:
    """The plan of ares-bench has thousands of cells of 50,000 images: lists of their own would fill the memory."""
    tasks = [*ab.tasks("samples", "clean", "lowpass([60, 10])"), ab.Task("samples", "lowpass(4)", n=5)]
    cells = make_plan(["samples:efficientnet-lite0", thousand()], tasks, Store(tmp_path), n=7).cells
    assert len({id(cell.dataset) for cell in cells}) == 2
    assert {str(cell.missing) for cell in cells} == {"range(0, 7)", "range(0, 5)"}
    ab.evaluate("samples:efficientnet-lite0", tasks[:1], n=3, store=tmp_path, doctor=False)
    assert make_plan("samples:efficientnet-lite0", tasks[:1], Store(tmp_path), n=7).cells[0].missing == (3, 4, 5, 6)
