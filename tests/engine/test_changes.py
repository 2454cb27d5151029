"""Corruptions, filters, and adversaries that start from what they leave."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import aresbench as ab
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine import cell as cell_module
from aresbench.engine import pictures as pictures_module
from aresbench.engine import scratch as scratch_module


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


@pytest.fixture
def counted(monkeypatch):
    """How many images each change was applied to."""
    counts: dict[str, int] = {}
    original = pictures_module._change

    def counting(plan, x, ids):
        counts[str(plan.task.threat)] = counts.get(str(plan.task.threat), 0) + len(x)
        return original(plan, x, ids)

    monkeypatch.setattr(pictures_module, "_change", counting)
    return counts


TASKS = ("clean", "corruption(fog, [2, 5])", "lowpass(6)", "corruption(fog, 5) + adversary(linf, 4/255, fgsm)")


def test_models_share_what_a_corruption_made(counted, tmp_path):
    tasks = ab.tasks("digits", *TASKS)
    models = ["samples:digits-plain", "samples:digits-robust"]
    together = ab.evaluate(models, tasks, n=40, store=tmp_path / "together", doctor=False)
    assert counted["corruption(fog, 2)"] == counted["corruption(fog, 5)"] == 40
    assert counted["lowpass(6)"] == 80  # its results are no 8-bit images, and cheap
    assert "corruption(fog, 5) + adversary(linf, 4/255, fgsm)" not in counted  # the images were there already
    assert [(r.model, r.name) for r in together] == [(m, t.name) for m in models for t in tasks]
    apart = [ab.evaluate(m, tasks, n=40, store=tmp_path / "apart", doctor=False) for m in models]
    columns = ["model", "task", "id", "correct", "prediction", "margin", "breaking_budget"]
    one_by_one = pd.concat([results.images() for results in apart], ignore_index=True)
    pd.testing.assert_frame_equal(together.images()[columns], one_by_one[columns])


@pytest.mark.parametrize("way", ["no file can be made", "the disk is full", "a write is cut short"])
def test_without_room_images_are_changed_again(counted, tmp_path, monkeypatch, way):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    if way == "no file can be made":
        monkeypatch.setattr(scratch_module.tempfile, "TemporaryFile", full)
    else:
        monkeypatch.setattr(scratch_module.os, "pwrite", full if way == "the disk is full" else lambda *_: 1)
    tasks = ab.tasks("digits", "corruption(fog, 5)")
    models = ["samples:digits-plain", "samples:digits-robust"]
    results = ab.evaluate(models, tasks, n=40, store=tmp_path / "runs", doctor=False)
    assert counted["corruption(fog, 5)"] == 80
    assert len(results) == 2


def test_a_model_is_made_ready_once_a_cell(tmp_path, monkeypatch):
    opened = []
    original = cell_module.prepared

    def watching(*args, **kwargs):
        opened.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(cell_module, "prepared", watching)
    monkeypatch.setattr(cell_module, "WINDOW_VALUES", 1)  # windows of one shard
    results = ab.evaluate("samples:digits-plain", ab.tasks("digits", "clean"), n=100, store=tmp_path, doctor=False)
    assert len(results.images()) == 100
    assert len(opened) == 1


def test_what_a_corruption_lacks_is_said_before_the_run(setting, tmp_path, monkeypatch):
    model, *_ = setting
    monkeypatch.setattr("aresbench.corruptions.frost.PACKAGE", "no_such_textures")
    tasks = ab.tasks("digits", "corruption([frost, fog], [1, 2])")
    results = ab.evaluate(model, tasks, n=8, store=tmp_path, doctor=False)
    assert results.tasks == ["fog 1", "fog 2"]
    (skipped,) = results.skipped
    assert not skipped.failed
    assert skipped.task.name == "frost 1" and "aresbench[frost]" in skipped.reason


def test_a_suite_tells_of_data_that_are_missing_even_to_its_own_models(tmp_path):
    text = f"""
    models = ["samples:digits-plain"]
    [[tasks]]
    data = "digits"
    threats = ["clean"]
    [[tasks]]
    data = "samples"
    threats = ["clean"]
    [[tasks]]
    data = "imagenet:{tmp_path}/nowhere"
    threats = ["clean"]
    """
    suite = tmp_path / "mine.toml"
    suite.write_text(text)
    results = ab.evaluate(None, str(suite), n=8, store=tmp_path / "runs", doctor=False)
    assert [s.task.dataset for s in results.skipped] == [f"imagenet:{tmp_path}/nowhere"]
