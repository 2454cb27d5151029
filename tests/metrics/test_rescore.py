"""Rows re-scored under another protocol, against scoring the logits themselves."""

from __future__ import annotations

import numpy as np
import pytest

from aresbench.core.errors import ProtocolMismatch
from aresbench.metrics import (
    ce_of_errors,
    error_baseline,
    masked,
    mce_of_errors,
    objectnet_protocols,
    rebased,
    unmasked,
    wilson,
)
from aresbench.metrics.rescore import UNKNOWN

MASK = list(range(0, 60, 3))  # 20 of 60 outputs


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(0).standard_normal((800, 60))


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).choice(MASK, 800)


@pytest.fixture(scope="module")
def good(logits, labels):
    """Logits of a model that is right about half of the time."""
    return logits + 2.5 * (np.arange(60) == labels[:, None])


def top5(logits):
    return np.argsort(-logits, axis=1)[:, :5]


def test_a_mask_afterwards_is_a_mask_before(good, labels):
    verdicts = masked(top5(good), labels, MASK)
    choice = np.array(MASK)[good[:, MASK].argmax(axis=1)]
    assert 0 < (~verdicts.known).sum() < 400
    assert np.array_equal(verdicts.correct[verdicts.known], (choice == labels)[verdicts.known])
    assert not verdicts.correct[~verdicts.known].any()
    # Exactly those are unknown whose five best outputs all lie outside.
    assert np.array_equal(verdicts.known, np.isin(top5(good), MASK).any(axis=1))


def test_what_is_unknown_widens_the_interval_or_is_refused(good, labels):
    verdicts = masked(list(map(list, top5(good))), labels, MASK)  # as lists, as an archive hands them
    unknown, right = int((~verdicts.known).sum()), int(verdicts.correct.sum())
    with pytest.raises(ProtocolMismatch, match=f"{unknown} of 800"):
        verdicts.score()
    score = verdicts.score(most_unknown=1)
    truth = (np.array(MASK)[good[:, MASK].argmax(axis=1)] == labels).mean()
    assert score.low <= truth <= score.high
    assert score.value == right / 800
    assert (score.low, score.high) == (wilson(right, 800)[0], wilson(right + unknown, 800)[1])
    assert score.flags == (UNKNOWN,)
    whole = masked(top5(good), labels, range(60)).score()
    assert whole.value == (good.argmax(axis=1) == labels).mean()
    assert whole.flags == ()


def test_images_of_other_classes_are_refused(good):
    with pytest.raises(ValueError, match="outside the mask"):
        masked(top5(good), np.ones(800, dtype=int), MASK)


def test_without_a_mask_the_largest_of_all_logits_decides(good, labels):
    classes = np.searchsorted(MASK, labels)
    verdicts = unmasked(good.argmax(axis=1), classes, MASK)
    assert np.array_equal(verdicts.correct, good.argmax(axis=1) == labels)
    assert verdicts.known.all()
    assert verdicts.score().value < (good[:, MASK].argmax(axis=1) == classes).mean()
    with pytest.raises(ProtocolMismatch, match="1 rows"):
        unmasked([3, None], [1, 1], MASK)


def test_objectnets_three_protocols(good):
    """Four classes: of two outputs, of one, of one, and of none."""
    outputs = [(0, 3), (6,), (9,), ()]
    labels = np.random.default_rng(2).integers(0, 4, 800)
    groups = np.stack([good[:, list(group)].max(axis=1) for group in outputs[:3]], axis=1)
    restricted, whole = groups.argmax(axis=1), good.argmax(axis=1)
    answer = {output: k for k, group in enumerate(outputs) for output in group}
    right = np.array([answer.get(int(choice), -1) == label for choice, label in zip(whole, labels, strict=True)])
    overlap = labels < 3
    scores = objectnet_protocols(whole, labels, outputs, restricted)
    assert scores["official"].value == pytest.approx(right[overlap].mean())
    assert scores["sublist"].value == pytest.approx((restricted == labels)[overlap].mean())
    assert scores["all-images"].value == pytest.approx(right.sum() / 800)
    assert [score.n for score in scores.values()] == [overlap.sum(), overlap.sum(), 800]
    assert scores["sublist"].value > scores["official"].value > scores["all-images"].value
    # Rows of the overlapping classes alone know the third only with the number of all images.
    alone = objectnet_protocols(whole[overlap], labels[overlap], outputs)
    assert alone["official"] == scores["official"]
    assert alone["sublist"].missing
    assert alone["all-images"].missing
    counted = objectnet_protocols(whole[overlap], labels[overlap], outputs, total=800)
    assert counted["all-images"] == scores["all-images"]
    with pytest.raises(ValueError, match="in all"):
        objectnet_protocols(whole, labels, outputs, total=10)


@pytest.mark.parametrize("clean", [None, 0.3])
def test_another_baseline_from_corruption_errors(clean):
    names = ("alexnet-50k", "alexnet-robustbench-5k")
    rng = np.random.default_rng(3)
    error = {name: float(rng.uniform(0.3, 0.8)) for name in error_baseline(names[0]).error}
    old, new = (ce_of_errors(error, name, clean) for name in names)
    there = rebased(old, *names, relative=clean is not None)
    assert there == pytest.approx(new)
    assert np.mean(list(there.values())) == pytest.approx(mce_of_errors(error, names[1], clean))
    assert np.mean(list(there.values())) != pytest.approx(mce_of_errors(error, names[0], clean), abs=1e-5)
    with pytest.raises(ProtocolMismatch, match="different corruptions"):
        rebased(old, "alexnet-50k", "alexnet-3dcc-5k")
    del old["fog"]
    with pytest.raises(ProtocolMismatch, match="fog"):
        rebased(old, *names)
