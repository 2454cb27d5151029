"""What a bundle claims is checked on the model itself: every planted lie is found, and every honest row holds."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aresbench as ab
from aresbench.core.errors import DataError, StoreError
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine import evidence
from aresbench.engine.evidence import keep_breaks
from aresbench.engine.verify import Verified, verify
from aresbench.models.classifier import Classifier
from aresbench.models.load import load_model
from aresbench.store import Cell, Store, unpacked, write_bundle
from aresbench.store.exact import pack, unpack

N = 40
LADDER = "adversary(linf, [1/16, 1/8*], [apgd-ce(steps=8), square(queries=40)])"
SEVERAL = [
    "corruption(fog, 2) + adversary(linf, 1/8, pgd(steps=5))",
    "adversary(l2, [1, 2*], [apgd-ce(steps=8), fab(steps=5)])",
    "adversary(linf, search(1/32, doublings=2, bisections=3), pgd(steps=5))",
    "transfer(linf, 1/2, mim(steps=5), from=samples:digits-plain)",
    "corruption(fog, 2)",
]
Rows = list[dict[str, Any]]
Change = Callable[[Rows], None]


@pytest.fixture(scope="module")
def data() -> Any:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def model() -> Classifier:
    return load_model("samples:digits-robust").eval()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, model: Classifier, data: Any) -> Cell:
    """A ladder on digits, with the image of each break."""
    path = tmp_path_factory.mktemp("honest") / "runs"
    ab.evaluate(model, [ab.Task("digits", LADDER)], n=N, store=path, doctor=False)
    (cell,) = Store(path).cells()
    keep_breaks(cell, model, data)
    return cell


@pytest.fixture
def planted(honest: Cell, tmp_path: Path) -> Callable[..., Cell]:
    """The honest cell with rows changed by hand, through a bundle whose checksums are right."""

    def plant(**changes: Change) -> Cell:
        cell = Store(tmp_path / "planted").cell(honest.description)
        for table in ("images", "attempts", "breaks"):
            frame = getattr(honest, table)()
            rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
            changes.get(table, lambda rows: None)(rows)
            cell.write_rows([(table, row) for row in rows])
        write_bundle(tmp_path / "b.zip", [cell])
        target = Store(tmp_path / "received")
        target.merge(tmp_path / "b.zip")
        return target.cells()[0]

    return plant


def _row(rows: Rows, **wanted: Any) -> dict[str, Any]:
    return next(row for row in rows if all(row[k] == v for k, v in wanted.items()))


def _told(found: Verified, what: str) -> list[tuple[str, str]]:
    return [(finding.id, finding.message) for finding in found.findings if finding.what == what]


def test_everything_that_was_measured_holds(honest: Cell, model: Classifier, data: Any) -> None:
    found = verify(honest, model, data)
    assert found.findings == [] and found.notes == [] and found.sound
    claimed = honest.images()["breaking_budget"]
    broken = int((claimed.notna() & (claimed != "0")).sum())
    assert 5 < broken < N - 5, "the case must have breaks and images that stand"
    assert (found.images, found.clean, found.claims, found.holds, found.unpictured) == (N, N, broken, broken, 0)
    assert found.resisted == int(claimed.isna().sum())


def test_images_made_again_are_those_that_were_found(honest: Cell) -> None:
    """The distance that was recorded when the break was found is that of the image, to the bit."""
    attempts = honest.attempts().set_index(["id", "attack", "eps"])["distance"]
    data = load_dataset("digits")
    preprocessing = load_model("samples:digits-robust").preprocessing
    for row in honest.breaks().to_dict("records"):
        x, _, _ = load_images(data, [data.ids.index(row["id"])], preprocessing)
        image = unpack(row["levels"], row["rest"], row["height"], row["width"])
        far = float(np.abs(image - x[0].numpy()).max())
        assert far == attempts[row["id"], row["attack"], row["eps"]]


def test_a_search_beside_other_attacks_ends_where_it_ended(tmp_path: Path, model: Classifier, data: Any) -> None:
    """It stops inside the smallest budget; run again without knowing that, it would go on to a nearer break."""
    tasks = [ab.Task("digits", "adversary(l2, [3, 4*], [fgsm, fab(steps=10)])")]
    ab.evaluate(model, tasks, n=24, store=tmp_path / "runs", doctor=False)
    (cell,) = Store(tmp_path / "runs").cells()
    keep_breaks(cell, model, data)
    attempts = cell.attempts().set_index(["id", "attack", "eps"])["distance"]
    searched = [row for row in cell.breaks().to_dict("records") if row["eps"] == ""]
    assert len(searched) > 5
    for row in searched:
        x, _, _ = load_images(data, [data.ids.index(row["id"])], model.preprocessing)
        change = unpack(row["levels"], row["rest"], row["height"], row["width"]) - x[0].numpy()
        far = np.linalg.norm(change.astype(np.float64))
        assert far == pytest.approx(attempts[row["id"], row["attack"], ""], rel=1e-6)


def test_each_kind_of_threat_holds(tmp_path: Path, model: Classifier, data: Any) -> None:
    ab.evaluate(model, [ab.Task("digits", t) for t in SEVERAL], n=24, store=tmp_path / "runs", doctor=False)
    claims = []
    for cell in Store(tmp_path / "runs").cells():
        kept = keep_breaks(cell, model, data)
        found = verify(cell, model, data)
        assert kept.lost == [] and found.sound and found.notes == [] and found.unpictured == 0, found
        assert kept.made == found.claims == found.holds
        claims.append(found.claims)
    assert sum(c > 0 for c in claims) == 4


def test_a_row_edited_to_broken_is_found(planted: Any, honest: Cell, model: Classifier, data: Any) -> None:
    victim = honest.images().query("breaking_budget.isna()").iloc[0]["id"]

    def claim(rows: Rows) -> None:
        _row(rows, id=victim).update(breaking_budget="0.125", breaking_distance=0.12, broken_by="apgd-ce(steps=8)")

    found = verify(planted(images=claim), model, data)
    assert _told(found, "row") == [(victim, "the row says broken at 0.125, its attempts say it resisted")]
    assert found.unpictured == 1


def test_a_false_claim_with_an_attempt_and_an_image_is_found(
    planted: Any, honest: Cell, model: Classifier, data: Any
) -> None:
    victim = honest.images().query("breaking_budget.isna()").iloc[0]
    name, attack = victim["id"], "apgd-ce(steps=8)"
    other = honest.breaks().iloc[0].to_dict()

    def claim(rows: Rows) -> None:
        _row(rows, id=name).update(breaking_budget="0.125", breaking_distance=0.12, broken_by=attack)

    def attempt(rows: Rows) -> None:
        row = _row(rows, id=name, attack=attack, eps="0.125")
        row.update(verdict="broken", distance=0.12, adv_prediction=1)

    x, _, _ = load_images(data, [data.ids.index(name)], model.preprocessing)
    nudged = (x[0] + 0.01).clamp(0, 1).numpy()  # in the box and in the budget, and not wrong
    levels, rest = pack(nudged)

    def image(rows: Rows) -> None:
        where = {"position": victim["position"], "shard": victim["shard"], "attack": attack, "eps": "0.125"}
        rows.append({**other, **where, "id": name, "levels": levels, "rest": rest})

    found = verify(planted(images=claim, attempts=attempt, breaks=image), model, data)
    ((told, message),) = _told(found, "break")
    assert told == name and "claimed broken at 0.125: the model is not fooled: it says" in message
    assert [f.what for f in found.findings] == ["break"]
    assert found.holds == found.claims - 1
    # without the image nothing contradicts the rows: it is counted as what it is
    unpictured = verify(planted(images=claim, attempts=attempt), model, data)
    assert unpictured.claims == found.claims


def test_a_claim_without_an_image_is_counted_and_not_believed(
    planted: Any, honest: Cell, model: Classifier, data: Any
) -> None:
    found = verify(planted(breaks=list.clear), model, data)
    assert found.sound and found.holds == 0
    assert found.unpictured == found.claims == len(honest.breaks())


def test_swapped_images_are_found(planted: Any, honest: Cell, model: Classifier, data: Any) -> None:
    first, second = honest.breaks()["id"].iloc[:2]

    def swap(rows: Rows) -> None:
        a, b = _row(rows, id=first), _row(rows, id=second)
        for part in ("levels", "rest"):
            a[part], b[part] = b[part], a[part]

    found = verify(planted(breaks=swap), model, data)
    told = _told(found, "break")
    assert [name for name, _ in told] == [first, second]
    assert all("lies outside linf" in message for _, message in told)
    assert found.holds == found.claims - 2


def test_a_changed_model_is_named(honest: Cell, data: Any) -> None:
    other = load_model("samples:digits-robust").eval()
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    found = verify(honest, other, data)
    ((_, message),) = _told(found, "model")
    assert "another model" in message and honest.description["identity"]["model"]["fingerprint"] in message
    assert found.holds == found.claims, "its breaks are still judged on the model at hand"


def test_another_model_fails_claims_too(honest: Cell, data: Any) -> None:
    found = verify(honest, load_model("samples:digits-plain").eval(), data)
    assert _told(found, "model") and not found.sound


@pytest.mark.parametrize(
    ("change", "what", "words"),
    [
        ({"prediction": 11}, "clean", "the row says class 11"),
        ({"correct": False, "breaking_budget": "0"}, "clean", "wrong; the model says"),
        ({"label": 77}, "row", "its label is class 77"),
        ({"breaking_budget": "0.0625"}, "break", "lies outside linf 0.0625"),
        ({"breaking_budget": None}, "row", "and its own image breaks at linf 0.125"),
        ({"breaking_budget": "0.5"}, "row", "the row says broken at 0.5"),
        ({"breaking_budget": "0"}, "row", "right and an error at once"),
    ],
)
def test_each_lie_in_a_row_is_found(
    change: dict[str, Any], what: str, words: str, planted: Any, honest: Cell, model: Classifier, data: Any
) -> None:
    victim = honest.images().query("breaking_budget == '0.125'").iloc[0]["id"]
    found = verify(planted(images=lambda rows: _row(rows, id=victim).update(change)), model, data)
    assert not found.sound
    assert any(name == victim and words in message for name, message in _told(found, what)), found.findings


@pytest.mark.parametrize(
    ("value", "words"),
    [(1.5, "leaves [0, 1]"), (float("nan"), "leaves [0, 1]"), (-1e-3, "leaves [0, 1]")],
)
def test_an_image_outside_the_box_proves_nothing(
    value: float, words: str, planted: Any, honest: Cell, model: Classifier, data: Any
) -> None:
    victim = honest.breaks().iloc[0]
    image = unpack(victim["levels"], victim["rest"], victim["height"], victim["width"]).copy()
    image[0, 0, 0] = value
    levels, rest = pack(image)
    found = verify(planted(breaks=lambda rows: rows[0].update(levels=levels, rest=rest)), model, data)
    ((name, message),) = _told(found, "break")
    assert name == victim["id"] and words in message


@pytest.mark.parametrize("change", [{"levels": b"123"}, {"height": 16, "width": 64}, {"rest": b"12345"}])
def test_an_image_of_another_size_proves_nothing(
    change: dict[str, Any], planted: Any, honest: Cell, model: Classifier, data: Any
) -> None:
    found = verify(planted(breaks=lambda rows: rows[0].update(change)), model, data)
    assert [name for name, _ in _told(found, "break")] == [honest.breaks()["id"].iloc[0]]


def test_another_wrong_class_and_another_original_are_noted(
    planted: Any, honest: Cell, model: Classifier, data: Any
) -> None:
    name = honest.breaks().iloc[0]["id"]
    found = verify(
        planted(
            images=lambda rows: _row(rows, id=name).update(adv_prediction=77),
            breaks=lambda rows: rows[0].update(origin="000000000000"),
        ),
        model,
        data,
    )
    assert found.sound and [(n.what, n.id) for n in found.notes] == [("data", name), ("break", name)]


def test_other_data_and_another_protocol_are_named(honest: Cell, model: Classifier, data: Any) -> None:
    half = verify(honest, model, data[[data.ids.index(i) for i in honest.images()["id"][:20]]])
    assert len(_told(half, "data")) == N - 20 and half.clean == 20
    with pytest.raises(DataError, match="none of the 40 images"):
        verify(honest, model, data[[k for k, i in enumerate(data.ids) if i not in set(honest.images()["id"])]])
    assert model.preprocessing is not None
    other = copy.copy(model)
    other.preprocessing = dataclasses.replace(model.preprocessing, interpolation="nearest")
    found = verify(honest, other, data)
    assert any("interpolation is nearest here" in message for _, message in _told(found, "protocol"))


def test_the_first_images_only(honest: Cell, model: Classifier, data: Any) -> None:
    found = verify(honest, model, data, n=10)
    assert (found.images, found.clean) == (10, 10) and found.claims < 10 and found.sound


def test_float_noise_explains_a_few_verdicts_and_not_many(
    honest: Cell, model: Classifier, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aresbench.engine.verify.NEAR", 1e9)  # every difference is then said to be noise
    found = verify(honest, load_model("samples:digits-plain").eval(), data)
    assert found.noise > 1
    assert any("explains a few and not so many" in message for _, message in _told(found, "clean"))


def test_images_are_not_made_by_another_model(honest: Cell, planted: Any, data: Any) -> None:
    cell = planted(breaks=list.clear)
    with pytest.raises(StoreError, match=r"model\.fingerprint is .* here"):
        keep_breaks(cell, load_model("samples:digits-plain").eval(), data)
    assert len(cell.breaks()) == 0


def test_images_cut_short_go_on_where_they_stopped(
    planted: Any, honest: Cell, model: Classifier, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = planted(breaks=list.clear)
    monkeypatch.setattr("aresbench.engine.restage.WINDOW", 8)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_breaks(cell, model, data, advance=stop)
    there = len(cell.breaks())
    assert 0 < there <= 8
    kept = keep_breaks(cell, model, data)
    assert (kept.there, kept.made) == (there, len(honest.breaks()) - there)
    assert cell.breaks().equals(honest.breaks())


def test_what_does_not_come_out_again_is_listed(
    planted: Any, honest: Cell, model: Classifier, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = planted(breaks=list.clear)
    monkeypatch.setattr(evidence, "within", lambda distance, rung: False)
    kept = keep_breaks(cell, model, data)
    assert kept.made == 0 and len(kept.lost) == len(honest.breaks())
    assert "run again, the attempt came out as" in kept.lost[0][1]


def test_images_survive_the_journey(honest: Cell, tmp_path: Path) -> None:
    write_bundle(tmp_path / "b.zip", [honest])
    with unpacked(tmp_path / "b.zip") as folder:
        assert Store(folder).cells()[0].breaks().equals(honest.breaks())
