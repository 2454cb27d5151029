"""Datasets that answer to a part of a model's classes, to several of them, or to several labels an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

import aresbench as ab
from aresbench.core.classes import Classes
from aresbench.core.errors import DataError, ModelError
from aresbench.core.preprocessing import Preprocessing
from aresbench.data.base import Dataset, Listing, load_images
from aresbench.data.digits import Digits
from aresbench.models.classifier import Classifier

NAMES = tuple("0123456789")


@dataclass(frozen=True, eq=False, repr=False)
class Some(Dataset):
    """The digits 7, 3 and 1 in this order, under either rule."""

    title: ClassVar[str] = "some"
    licence: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    obtain: ClassVar[str] = ""
    image_size: ClassVar[str] = ""
    parent: ClassVar[str] = "digits"

    wanted: tuple[str, ...] = ("7", "3", "1")
    rule: str = "subset"
    wide: bool = False
    several: bool = False

    @property
    def class_rule(self) -> str:
        return self.rule

    @property
    def standard(self) -> Classes:
        return Classes(NAMES)

    def read(self) -> Listing:
        listing = Digits().read()
        classes = Classes(self.wanted)
        if self.wide:  # two digits in one class, one in another, and a class that no model knows
            members = (Classes(("1", "3")), Classes(("7",)), Classes(()))
            classes = Classes(("small", "large", "strange"), members=members)
            group = {1: 0, 3: 0, 7: 1, 8: 2}
        else:
            group = {int(name): k for k, name in enumerate(self.wanted)}
        rows = [k for k, label in enumerate(listing.labels) if int(label) in group]
        labels = np.array([group[int(listing.labels[k])] for k in rows], dtype=np.int64)
        return replace(
            listing,
            name=f"some-{self.rule}-{self.wide}-{self.several}",
            classes=classes,
            ids=tuple(listing.ids[k] for k in rows),
            labels=labels,
            images=[listing.images[k] for k in rows],
            accepted=tuple((int(y), (int(y) + 1) % 3) for y in labels) if self.several else None,
        )


@pytest.fixture(scope="module")
def noisy():
    """The plain model on digits so grey that it errs, and all ten logits of it."""
    model = ab.load_model("samples:digits-plain").eval()
    return Classifier(_Tired(model), classes=NAMES, preprocessing=model.preprocessing, name="tired")


class _Tired(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("noise", torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(1)))

    def forward(self, x):
        return self.inner((x * 0.4 + 0.5 * self.noise).clamp(0, 1))


def logits_of(model, data):
    x, _, _ = load_images(data, range(len(data)), model.preprocessing)
    with torch.no_grad():
        return model(x)


def run(model, data, tmp_path, threat="clean"):
    tasks = [ab.Task(data.name, threat)]
    return ab.evaluate(model, tasks, data=data, store=tmp_path / "runs", doctor=False)


@pytest.mark.parametrize("rule", ["subset", "full"])
def test_a_mask_restricts_the_choice_and_only_it(noisy, tmp_path, rule):
    data = Some(rule=rule)
    logits, y = logits_of(noisy, data), torch.tensor(data.labels)
    images = run(noisy, data, tmp_path).images()
    digit = torch.tensor([7, 3, 1])
    free, masked = logits.argmax(1), logits[:, digit].argmax(1)
    assert (free != digit[masked]).any()
    if rule == "subset":
        assert images["prediction"].tolist() == masked.tolist()
        assert images["correct"].tolist() == (masked == y).tolist()
        assert images["full_prediction"].tolist() == free.tolist()
    else:
        assert images["prediction"].tolist() == free.tolist()
        assert images["correct"].tolist() == (free == digit[y]).tolist()
        assert images["full_prediction"].isna().all()


@pytest.mark.parametrize("rule", ["subset", "full"])
def test_several_outputs_stand_for_one_class(noisy, tmp_path, rule):
    data = Some(rule=rule, wide=True)
    logits, y = logits_of(noisy, data), torch.tensor(data.labels)
    images = run(noisy, data, tmp_path).images()
    small, large = logits[:, [1, 3]].amax(1), logits[:, 7]
    right = torch.where(y == 0, small > large, large > small) & (y != 2)
    if rule == "full":
        right &= torch.isin(logits.argmax(1), torch.tensor([1, 3, 7]))
    assert images["correct"].tolist() == right.tolist()
    assert 0 < right.sum() < len(y)
    assert images["full_prediction"].tolist() == logits.argmax(1).tolist()


def test_an_attack_meets_the_mask_too(noisy, tmp_path):
    data = Some()[:12]
    results = run(noisy, data, tmp_path, "adversary(linf, 1/2, pgd(steps=5))")
    images = results.images()
    assert set(images["adv_prediction"].dropna()) <= {0, 1, 2}
    assert images["breaking_budget"].notna().any()


def test_any_of_several_labels_is_right(noisy, tmp_path):
    data = Some(several=True)
    masked, y = logits_of(noisy, data)[:, [7, 3, 1]].argmax(1), torch.tensor(data.labels)
    images = run(noisy, data, tmp_path).images()
    right = (masked == y) | (masked == (y + 1) % 3)
    assert images["correct"].tolist() == right.tolist()
    assert ((images["margin"] > 0) == images["correct"]).all()
    assert (masked != y)[right].any()


def test_an_adversary_needs_one_label_an_image(noisy, tmp_path):
    with pytest.raises(ModelError, match="several labels count as right"):
        run(noisy, Some(several=True)[:4], tmp_path, "adversary(linf, 1/2, pgd)")


def test_a_model_without_class_names_follows_the_public_order(noisy, tmp_path):
    unnamed = Classifier(noisy.module, preprocessing=noisy.preprocessing, name="unnamed")
    data = Some()[:40]
    mine, named = (run(model, data, tmp_path / model.name).images() for model in (unnamed, noisy))
    assert mine["prediction"].tolist() == named["prediction"].tolist()


class Ready(Digits):
    """Digits said to be ready for models of 8 × 8 pixels."""

    ready_size: ClassVar[tuple[int, int]] = (8, 8)


def test_pictures_of_the_right_size_are_taken_as_they_are():
    resized = Preprocessing((8, 8), resize=9, interpolation="bilinear")
    assert Ready().prepared_by(resized) == Preprocessing((8, 8))
    assert Digits().prepared_by(resized) == resized
    assert Ready().prepared_by(Preprocessing((16, 16), resize=18)) == Preprocessing((16, 16), resize=18)
    assert Ready().prepared_by(None) is None


class Restricted(Digits):
    """Digits that nobody may sell."""

    terms: ClassVar[str] = "non-commercial"


def test_the_commercial_gate_leaves_data_out_by_name(noisy, tmp_path):
    tasks = [ab.Task("digits", "clean")]
    with pytest.raises(DataError, match="refused by the gate for commercial use: its terms forbid"):
        ab.evaluate(noisy, tasks, data=Restricted(), store=tmp_path, commercial=True)
    results = ab.evaluate(noisy, tasks, n=8, store=tmp_path, doctor=False, commercial=True)
    assert len(results.images()) == 8  # CC BY: with the authors named


def rescored(results, protocol):
    table = ab.rescore(results)
    return table[table["protocol"] == protocol].iloc[0]


def test_stored_rows_tell_the_other_rule(noisy, tmp_path):
    """The 1,000-way number of masked rows, and the masked number of 1,000-way rows, are those measured so."""
    masked, free = (run(noisy, Some(rule=rule), tmp_path) for rule in ("subset", "full"))
    accuracy = {name: r.images()["correct"].mean() for name, r in (("masked", masked), ("free", free))}
    assert accuracy["masked"] > accuracy["free"]
    found = rescored(masked, "among all of the model's classes")
    assert found["value"] == pytest.approx(accuracy["free"])
    assert found["measured"] == "among the data's classes"
    back = rescored(free, "among the data's classes")
    inside = free.images()["top5"].map(lambda top: bool({1, 3, 7} & set(top)))
    if inside.mean() >= 0.99:
        assert back["low"] <= accuracy["masked"] <= back["high"]
        assert back["value"] <= accuracy["masked"]
    else:
        assert np.isnan(back["value"]) and "do not say" in back["why"]


def test_rows_of_a_threat_that_searched_are_not_judged_anew(noisy, tmp_path):
    results = run(noisy, Some()[:4], tmp_path, "adversary(linf, 1/2, fgsm)")
    assert ab.rescore(results).empty


@dataclass(frozen=True, eq=False, repr=False)
class Household(Some):
    """Named as ObjectNet's datasets are."""

    protocol: str = "official"
    wide: bool = True

    def read(self) -> Listing:
        listing = super().read()
        if self.protocol != "all-images":  # without the class that no model answers
            rows = [k for k, y in enumerate(listing.labels) if y != 2]
            classes = Classes(listing.classes.names[:2], members=listing.classes.members[:2])
            images = [listing.images[k] for k in rows]
            ids = tuple(listing.ids[k] for k in rows)
            listing = replace(listing, classes=classes, ids=ids, labels=listing.labels[rows], images=images)
        return replace(listing, name=f"objectnet-{self.protocol}")


def test_objectnets_three_protocols_follow_from_one_another(noisy, tmp_path):
    rules = {"official": "full", "sublist": "subset", "all-images": "full"}
    measured = {name: run(noisy, Household(rule=rule, protocol=name), tmp_path) for name, rule in rules.items()}
    truth = {name: results.images()["correct"].mean() for name, results in measured.items()}
    assert truth["all-images"] < truth["official"] < truth["sublist"]
    told = {"official": ["official"], "sublist": ["sublist", "official"], "all-images": ["official", "all-images"]}
    for source, protocols in told.items():
        for protocol in rules:
            value = rescored(measured[source], protocol)["value"]
            if protocol in protocols:
                assert value == pytest.approx(truth[protocol]), (source, protocol)
            else:
                assert np.isnan(value), (source, protocol)
