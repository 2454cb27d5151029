"""Corruptions, filters, and adversaries that start from what they leave."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import aresbench as ab
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset


@pytest.fixture
def setting():
    model = ab.load_model("samples:digits-plain").eval()
    data = load_dataset("digits")[:40]
    x, _, _ = load_images(data, range(40), model.preprocessing)
    return model, data, x, torch.tensor(data.labels)


def right(model, x, y):
    with torch.no_grad():
        return (model(x).argmax(1) == y).tolist()


def test_a_filter_curve_is_what_filtering_by_hand_gives(setting, tmp_path):
    model, _, x, y = setting
    tasks = ab.tasks("digits", "lowpass([12, 4, 2])", "highpass([2, 6])")
    results = ab.evaluate(model, tasks, n=40, store=tmp_path, doctor=False)
    assert results.tasks == ["lowpass 12", "lowpass 4", "lowpass 2", "highpass 2", "highpass 6"]
    means = {}
    for reading in results:
        name, radius = reading.task["filter"], reading.task["radius"]
        assert reading.kind == "filter"
        assert reading.correct.tolist() == right(model, ab.filtered(x, name, radius), y)
        means[name, radius] = reading.correct.mean()
    assert means["lowpass", 12] > means["lowpass", 2]


def test_an_adversary_starts_from_the_corrupted_image(setting, tmp_path):
    model, data, x, y = setting
    text = "corruption(gaussian_noise, 5) + adversary(linf, [1/255, 8/255*], pgd(steps=5), bound=none)"
    results = ab.evaluate(model, [ab.Task("digits", text)], n=40, store=tmp_path, doctor=False)
    noisy = ab.corrupt(x, "gaussian_noise", 5, seed=0, ids=list(data.ids))
    images = results.images()
    assert images["correct"].tolist() == right(model, noisy, y)
    out = ab.attack(model, noisy, y, "pgd(steps=5)", "linf:8/255", seed=0, ids=list(data.ids))
    broken = images["breaking_budget"].notna() & (images["breaking_budget"] != "0")
    assert 0 < broken.sum() < 40
    assert np.mean(broken.to_numpy() == np.asarray(out.broken & torch.tensor(images["correct"].to_numpy()))) > 0.95
    assert not results.readings[0].plain_adversary
