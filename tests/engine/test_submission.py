"""Submitted images: what holds lowers the worst case and nothing else, what does not is told why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aresbench as ab
from aresbench.core.errors import DataError, SpecError
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine.evidence import keep_breaks
from aresbench.engine.submission import submit
from aresbench.engine.verify import verify
from aresbench.models.load import load_model
from aresbench.report.best_known import best_known
from aresbench.report.columns import robust_at
from aresbench.report.reading import Reading
from aresbench.report.summary import summarise
from aresbench.store import Store

N = 30
BUDGET = "linf:1/8"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A weak measurement of a model (FGSM), and images that a stronger attack (APGD) made."""
    path = tmp_path_factory.mktemp("scene") / "runs"
    model, data = load_model("samples:digits-robust").eval(), load_dataset("digits")
    tasks = [ab.Task("digits", "clean"), ab.Task("digits", "adversary(linf, 1/8, fgsm)")]
    ab.evaluate(model, tasks, n=N, store=path, doctor=False)
    view = data.take(N)
    x, _, _ = load_images(view, range(N), model.preprocessing)
    made = ab.attack(model, x, torch.tensor(view.labels), "apgd-ce(steps=20)", BUDGET, ids=view.ids)
    return {"path": path, "model": model, "data": data, "ids": list(view.ids), "x": x, "made": made}


@pytest.fixture
def store(scene: dict[str, Any], tmp_path: Path) -> Store:
    target = Store(tmp_path / "runs")
    target.merge(scene["path"])
    return target


def _file(path: Path, x: Any, ids: list[str]) -> Path:
    np.savez(path, x_adv=np.asarray(x), ids=np.array(ids))
    return path


def _submit(scene: dict[str, Any], store: Store, file: Path, **changes: Any) -> Any:
    options = {"budget": BUDGET, "name": "me", **changes}
    budget = options.pop("budget")
    return submit(file, scene["model"], scene["data"], budget, store=store, **options)


def _readings(store: Store) -> list[Reading]:
    return [Reading(cell) for cell in store.cells()]


def test_better_images_lower_the_worst_case_and_are_named(scene: dict[str, Any], store: Store, tmp_path: Path) -> None:
    before = best_known(_readings(store), "linf", "0.125")
    assert before is not None and before.submitted == {} and before.score == before.measured
    broken = scene["made"].broken
    found = _submit(scene, store, _file(tmp_path / "a.npz", scene["made"].x_adv, scene["ids"]))
    assert found.accepted == [i for i, b in zip(scene["ids"], broken.tolist(), strict=True) if b]
    assert len(found.rejected) == N - len(found.accepted) and 0 < len(found.new) < len(found.accepted)
    after = best_known(_readings(store), "linf", "0.125")
    assert after is not None
    assert after.measured == before.measured and after.submitted == {"me": len(found.new)}
    assert N * (before.score.value - after.score.value) == pytest.approx(len(found.new))
    score, _ = robust_at(_readings(store), "linf", "0.125")
    assert score is not None and score.value == after.score.value, "worst-case tables take them in"
    assert summarise(store.cells()).models == ("samples:digits-robust",)


def test_a_part_of_the_images_leaves_the_others_as_they_are(
    scene: dict[str, Any], store: Store, tmp_path: Path
) -> None:
    before = best_known(_readings(store), "linf", "0.125")
    broken = scene["made"].broken.nonzero().squeeze(1).tolist()[:3]
    file = _file(tmp_path / "a.npz", scene["made"].x_adv[broken], [scene["ids"][k] for k in broken])
    found = _submit(scene, store, file)
    after = best_known(_readings(store), "linf", "0.125")
    assert before is not None and after is not None
    assert after.score.n == N and found.cell is not None and len(found.cell.images()) == 3
    assert after.submitted["me"] == len(found.new)


def test_what_was_entered_can_be_verified(scene: dict[str, Any], store: Store, tmp_path: Path) -> None:
    found = _submit(scene, store, _file(tmp_path / "a.npz", scene["made"].x_adv, scene["ids"]))
    checked = verify(found.cell, scene["model"], scene["data"])
    assert checked.sound and checked.holds == checked.claims == len(found.accepted)
    assert keep_breaks(found.cell, scene["model"], scene["data"]).there == len(found.accepted)


def test_twice_changes_nothing_and_nothing_is_new(scene: dict[str, Any], store: Store, tmp_path: Path) -> None:
    file = _file(tmp_path / "a.npz", scene["made"].x_adv, scene["ids"])
    first = _submit(scene, store, file)
    rows = first.cell.images()
    again = _submit(scene, store, file)
    assert again.accepted == first.accepted and again.new == []
    assert again.cell.key == first.cell.key and again.cell.images().equals(rows)
    assert _submit(scene, store, file, name="other").new == []


def test_each_image_that_does_not_hold_is_told_why(scene: dict[str, Any], store: Store, tmp_path: Path) -> None:
    broken = scene["made"].broken.nonzero().squeeze(1).tolist()
    outside, beyond, nan, twice = (broken[k] for k in range(4))
    x = scene["made"].x_adv.clone()
    x[outside, 0, 0, 0] = 1.01
    original = scene["x"][beyond, 0, 0, 0]
    x[beyond, 0, 0, 0] = original + 0.2 if original < 0.5 else original - 0.2
    x[nan, 1, 1, 1] = float("nan")
    stands = next(k for k in range(N) if not scene["made"].broken[k] and scene["made"].correct[k])
    wrong = [k for k in range(N) if not scene["made"].correct[k]]
    rows = [outside, beyond, nan, twice, twice, stands, *wrong]
    ids = [scene["ids"][k] for k in rows]
    found = _submit(scene, store, _file(tmp_path / "a.npz", torch.cat([x[rows], x[:1]]), [*ids, "nobody"]))
    told = dict(found.rejected)
    assert found.accepted == [scene["ids"][twice]]
    assert "leaves [0, 1]" in told[scene["ids"][outside]] and "leaves [0, 1]" in told[scene["ids"][nan]]
    assert "outside linf 0.125: at a distance of 0.2" in told[scene["ids"][beyond]]
    assert "the model is not fooled: it says" in told[scene["ids"][stands]]
    assert "twice" in told[scene["ids"][twice]] and "no image of this id" in told["nobody"]
    assert wrong and all("wrong without any attack" in told[scene["ids"][k]] for k in wrong)


def test_8_bit_images_are_welcome(scene: dict[str, Any], store: Store, tmp_path: Path) -> None:
    low = (scene["x"] - 0.125).clamp(0, 1)
    high = (scene["x"] + 0.125).clamp(0, 1)
    inside = torch.minimum(torch.maximum(scene["made"].x_adv, low), high)
    levels = torch.where(inside >= scene["x"], (inside * 255).floor(), (inside * 255).ceil()).to(torch.uint8)
    found = _submit(scene, store, _file(tmp_path / "a.npz", levels.numpy(), scene["ids"]))
    assert len(found.accepted) > 3
    attempts = found.cell.attempts().query("verdict == 'broken'")
    assert attempts["survives_rounding"].all()
    assert all(rest == b"" for rest in found.cell.breaks()["rest"])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_adv": np.zeros((2, 3, 32, 32), np.float64), "ids": ["a", "b"]}, "float64"),
        ({"x_adv": np.zeros((2, 32, 32, 3), np.uint8), "ids": ["a", "b"]}, r"\[2, 32, 32, 3\]"),
        ({"x_adv": np.zeros((2, 3, 32, 32), np.uint8), "ids": ["a"]}, "must be 2 texts"),
        ({"x_adv": np.zeros((2, 3, 32, 32), np.uint8), "ids": [1, 2]}, "must be 2 texts"),
        ({"x_adv": np.zeros((2, 3, 32, 32), np.uint8)}, "no array 'ids'"),
        ({"x_adv": np.zeros((1, 3, 8, 8), np.uint8), "ids": ["digits/00491"]}, "3 × 8 × 8; the model sees 3 × 32 × 32"),
        ({"x_adv": np.zeros((0, 3, 32, 32), np.uint8), "ids": np.array([], dtype="U4")}, "no images"),
        ({"x_adv": np.array([{}], dtype=object), "ids": ["a"]}, "cannot be read"),
        ({"x_adv": np.zeros((1, 3, 32, 32), np.uint8), "ids": ["a"]}, "none of the"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    arrays: dict[str, Any], words: str, scene: dict[str, Any], store: Store, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **{key: np.asarray(value) for key, value in arrays.items()})
    cells = len(store.cells())
    with pytest.raises(DataError, match=words):
        _submit(scene, store, tmp_path / "a.npz")
    assert len(store.cells()) == cells


def test_a_torn_file_a_strange_name_and_two_budgets_are_refused(
    scene: dict[str, Any], store: Store, tmp_path: Path
) -> None:
    file = _file(tmp_path / "a.npz", scene["made"].x_adv, scene["ids"])
    (tmp_path / "torn.npz").write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be read"):
        _submit(scene, store, tmp_path / "torn.npz")
    for name in ("", "a b", "../x", "a)"):
        with pytest.raises(SpecError, match="no name"):
            _submit(scene, store, file, name=name)
    with pytest.raises(SpecError, match="more than one budget"):
        _submit(scene, store, file, budget="linf:[1/8,1/4]")


def test_best_known_stays_with_one_model(scene: dict[str, Any], store: Store) -> None:
    ab.evaluate("samples:digits-plain", [ab.Task("digits", "adversary(linf, 1/8, fgsm)")], n=N, store=store,
                doctor=False)  # fmt: skip
    with pytest.raises(ValueError, match="2 models"):
        best_known(_readings(store), "linf", "0.125")
    assert best_known(_readings(store)[:0], "linf", "0.125") is None


def test_autoattacks_own_number_stands_beside(scene: dict[str, Any], store: Store, tmp_path: Path) -> None:
    ab.evaluate(scene["model"], [ab.Task("digits", "adversary(linf, 1/2, autoattack)")], n=6, store=store, doctor=False)
    found = best_known(_readings(store), "linf", "0.5")
    assert found is not None and found.autoattack is not None
    assert found.score.n == found.autoattack.n == 6 and found.score.value <= found.autoattack.value
    weak = best_known(_readings(store), "linf", "0.125")
    assert weak is not None and weak.autoattack is None and weak.score.n == N
