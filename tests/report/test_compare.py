from dataclasses import replace

import numpy as np
import pytest

from aresbench.core.errors import ProtocolMismatch, SpecError, StoreError
from aresbench.report.compare import compare
from aresbench.report.reading import read


def of(store, model, **wanted):
    cells = [c for c in store.cells() if c.description["identity"]["model"]["name"] == model]
    return [c for c in cells if all(c.description["identity"][k] == v for k, v in wanted.items())]


def test_pairs_are_on_the_same_images_with_the_exact_test(full_store):
    found = compare(of(full_store, "samples:digits-robust"), of(full_store, "samples:digits-plain"))
    pair = next(p for p in found.pairs if p.task == "clean")
    assert pair.difference.value == pytest.approx(pair.first.value - pair.second.value)
    assert pair.only_first - pair.only_second == pytest.approx(300 * pair.difference.value)
    worst = next(p for p in found.pairs if p.task.startswith("worst") and p.measure.endswith("32/255"))
    assert worst.decided and worst.difference.low > 0.5 and worst.p_value < 1e-9
    assert len(found.frame()) == len(found.pairs) and not found.only_first


def test_ids_are_paired_not_positions(maker):
    one, other = maker.models[:2]
    labels, right = np.zeros(40, dtype=int), np.arange(40) < 20
    maker.clean(one, labels, right)
    rows = maker.rows(labels, right)
    for row in rows:
        row["position"] = 39 - row["position"]
    cell = maker.store.cell(maker.describe(other, "clean", name="clean", kind="clean"))
    cell.append("images", rows[:30])
    (pair,) = compare(of(maker.store, one.model), of(maker.store, other.model)).pairs
    assert pair.difference.value == 0 and pair.difference.n == 30 and pair.only_first == pair.only_second == 0


def test_models_may_bring_their_own_preprocessing_and_the_note_says_so(full_store):
    found = compare(of(full_store, "samples:efficientnet-lite0"), of(full_store, "samples:efficientnet-lite1"))
    assert len(found.pairs) > 16 and "resize: 256 and 274" in found.notes[0] and len(found.notes) == 1
    found = compare(of(full_store, "samples:efficientnet-lite0"), of(full_store, "samples:efficientnet-lite2"))
    assert "224 and 299 pixels" in found.notes[1]


def test_another_seed_is_refused_by_name(maker):
    made = maker.models[0]
    for seed in (0, 1):
        maker.clean(replace(made, seed=seed), np.zeros(9, dtype=int), np.ones(9, dtype=bool))
    with pytest.raises(ProtocolMismatch, match="seed: 0 and 1"):
        compare(of(maker.store, made.model, seed=0), of(maker.store, made.model, seed=1))


def test_a_side_of_several_seeds_must_choose_one(maker):
    made = maker.models[0]
    for seed in (0, 1):
        maker.clean(replace(made, seed=seed), np.zeros(9, dtype=int), np.ones(9, dtype=bool))
    with pytest.raises(SpecError, match="seeds 0, 1"):
        compare(maker.store.cells(), of(maker.store, made.model, seed=1))


def test_the_same_weights_with_other_preprocessing_are_refused(maker):
    made = maker.models[0]
    for resize in (32, 36):
        maker.clean(replace(made, resize=resize), np.zeros(9, dtype=int), np.ones(9, dtype=bool))
    a, b = [[r] for r in read(maker.store.cells())]
    with pytest.raises(ProtocolMismatch, match=r"preprocessing\.resize"):
        compare(a, b)


def test_nothing_in_common_is_refused(full_store, maker):
    with pytest.raises(ProtocolMismatch, match="share no task"):
        compare(of(full_store, "samples:digits-plain"), of(full_store, "samples:efficientnet-lite0"))
    with pytest.raises(SpecError, match="holds 5 models"):
        compare(full_store.cells(), of(full_store, "samples:digits-plain"))
    with pytest.raises(StoreError, match="no measured image"):
        compare(maker.store.cells(), of(full_store, "samples:digits-plain"))
