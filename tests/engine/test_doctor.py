"""Each finding of the doctor fires on a planted fault and stays quiet on honest models."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aresbench.core.errors import DataError
from aresbench.data.load import load_dataset
from aresbench.engine.doctor import _permuted, examine
from aresbench.engine.evaluate import evaluate
from aresbench.models.classifier import Classifier
from aresbench.models.load import load_model

DIGITS = [str(k) for k in range(10)]


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits")[:100]


def names(model, data):
    return {flag.name: flag for flag in examine(model, data)}


def planted(plain, forward, **options):
    """The plain digits model with something wrong around it."""

    class Planted(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = plain

        def forward(self, x):
            return forward(self.net, x)

    options.setdefault("classes", DIGITS)
    return Classifier(Planted().eval(), preprocessing=plain.preprocessing, name="planted", **options)


@pytest.mark.parametrize("name", ["samples:digits-plain", "samples:digits-robust", "samples:efficientnet-lite0"])
def test_quiet_on_honest_models(name):
    model = load_model(name).eval()
    data = load_dataset("samples" if "lite" in name else "digits")
    assert examine(model, data) == []


NOISE = torch.Generator().manual_seed(0)

PLANTED = {
    "softmax-outputs": lambda net, x: net(x).softmax(1),
    "expects-0-255": lambda net, x: net(x / 255),
    "not-deterministic": lambda net, x: net(x + 0.2 * torch.rand(x.shape, generator=NOISE)),
    "depends-on-the-batch": lambda net, x: net(x) + 3 * (net(x) - net(x).mean(0)) if len(x) > 1 else -net(x),
    "no-gradient": lambda net, x: net(x.detach()),
    "zero-gradient": lambda net, x: net((x * 255).round() / 255),
    "nan-gradient": lambda net, x: net(x) + (x - x.detach()).pow(2).sum((1, 2, 3)).sqrt()[:, None],
    "not-finite": lambda net, x: torch.where(torch.arange(len(x))[:, None] == 0, torch.nan, net(x)),
    "labels-look-permuted": lambda net, x: net(x)[:, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]],
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name, plain, data):
    found = names(planted(plain, PLANTED[name]), data)
    assert name in found, sorted(found)
    flag = found[name]
    assert flag.level in ("error", "warning")
    assert flag.message
    assert flag.remedy


def test_normalisation_left_out_is_found(data):
    """A model that was fed normalised images before the wrapper, and is not told mean and std now."""
    plain = load_model("samples:digits-plain").eval()
    mean, std = torch.tensor((0.485, 0.456, 0.406))[:, None, None], torch.tensor((0.229, 0.224, 0.225))[:, None, None]
    # Undo ImageNet's normalisation, and collapse on images that were not normalised.
    model = planted(plain, lambda net, x: net((x * std + mean).clamp(0, 1)) * (1 + 0 * x.sum()))
    found = names(model, data)
    assert "normalisation-missing" in found


def test_train_mode_is_mentioned_and_put_back(data):
    model = load_model("samples:digits-plain").train()
    assert names(model, data)["train-mode"].level == "info"
    assert model.training


def test_published_accuracy_is_compared(plain, data):
    same = planted(plain, lambda net, x: net(x), published={"digits top1": 0.99})
    assert "not-as-published" not in names(same, data)
    worse = planted(plain, lambda net, x: net(x.flip(3)), published={"digits top1": 0.99})
    assert names(worse, data)["not-as-published"].level == "error"


def test_classes_that_cannot_be_matched_are_refused(plain, data):
    with pytest.raises(DataError, match="matches none"):
        examine(planted(plain, lambda net, x: net(x), classes=[f"class {k}" for k in range(10)]), data)


def test_what_attacks_ran_into_is_flagged_in_the_cell(plain, tmp_path):
    model = planted(plain, lambda net, x: net((x * 255).round() / 255))
    results = evaluate(
        model, [_task("adversary(linf, 0.1, pgd(steps=5))")], n=20, store=tmp_path / "runs", doctor=False
    )
    flags = {f["name"]: f for f in results.readings[0].cell.flags()}
    assert flags["zero-gradients"]["evidence"]["share"] > 0.9


def _task(threat):
    import aresbench as ab

    return ab.Task("digits", threat)


def test_guesses_do_not_look_permuted():
    """The best renaming of twenty guesses among four classes is right on half of them, by chance."""
    y = torch.arange(4).repeat(5)
    for seed in range(32):
        logits = torch.rand(20, 4, generator=torch.Generator().manual_seed(seed))
        assert _permuted(logits, y, logits.argmax(1) == y, "abcd") == [], seed
    (flag,) = _permuted(torch.eye(4)[y.roll(1)], y, torch.zeros(20, dtype=torch.bool), "abcd")
    assert "b → a" in flag.message
