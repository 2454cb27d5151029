"""A classifier wraps a module, normalises, and never changes it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from aresbench.core.classes import Classes
from aresbench.core.errors import ModelError
from aresbench.core.preprocessing import Preprocessing
from aresbench.models.classifier import UNDECLARED, Classifier


class Scaled(nn.Module):
    """Two of these share every tensor and compute different things."""

    def __init__(self, scale: float, act: nn.Module) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.fc.weight.data.fill_(0.5)
        self.fc.bias.data.zero_()
        self.scale, self.act = scale, act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.fc(x.mean((2, 3)) * self.scale))


def test_normalises_and_leaves_the_module_alone(small: nn.Module, images: torch.Tensor) -> None:
    before = copy.deepcopy(small.state_dict())
    keys, flags = list(small.__dict__), [p.requires_grad for p in small.parameters()]
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    classifier = Classifier(small, mean, std, classes=10)
    assert small.training and classifier.training, "wrapping must not change the mode"
    small.eval()
    assert not Classifier(small).training
    expected = small((images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])
    torch.testing.assert_close(classifier(images), expected)
    assert all(torch.equal(before[k], v) for k, v in small.state_dict().items())
    assert list(small.__dict__) == keys and [p.requires_grad for p in small.parameters()] == flags
    assert classifier.card["mean"] == mean and classifier.card["notes"] == []


def test_without_mean_and_std_the_image_goes_in_as_it_is_and_that_is_recorded(small: nn.Module) -> None:
    classifier = Classifier(small.eval())
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(classifier(x), small(x))
    assert classifier.card["notes"] == [UNDECLARED]
    assert classifier.name == "SmallCNN" and classifier.num_classes is None and classifier.preprocessing is None


def test_classes_and_sizes_are_read(small: nn.Module) -> None:
    named = Classifier(small, classes=list("abcdefghij"), preprocessing=32)
    assert named.classes == Classes(tuple("abcdefghij")) and named.num_classes == 10
    assert named.preprocessing == Preprocessing((32, 32), resize=32)
    assert Classifier(small, preprocessing=(32, 48)).preprocessing == Preprocessing((32, 48), squash=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": 0.5}, "mean is given without std"),
        ({"std": 0.5}, "std is given without mean"),
        ({"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}, r"divide mean and std by 255"),
        ({"mean": 0.5, "std": 0.0}, "std must be positive"),
        ({"mean": [0.5, 0.5], "std": [0.5, 0.5, 0.5]}, "2 channels and std 3"),
        ({"classes": "cat"}, "one text"),
        ({"classes": 1}, "at least two classes"),
    ],
)
def test_nonsense_is_refused(small: nn.Module, arguments: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Classifier(small, **arguments)


def test_only_modules_are_wrapped(small: nn.Module) -> None:
    with pytest.raises(ModelError, match="function is not a torch module"):
        Classifier(lambda x: x)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"make one first: ReLU\(\)"):
        Classifier(nn.ReLU)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="Classifier already"):
        Classifier(Classifier(small))


def test_wrong_class_count_is_named(small: nn.Module, images: torch.Tensor) -> None:
    with pytest.raises(ModelError, match="returns 10 logits, and 9 classes are declared"):
        Classifier(small.eval(), classes=list("abcdefghi"))(images)
    small.num_classes = 10
    with pytest.raises(ModelError, match="9 class names for a module with 10 outputs"):
        Classifier(small, classes=list("abcdefghi"))


def test_outputs_that_are_no_logits_are_named(images: torch.Tensor) -> None:
    with pytest.raises(ModelError, match=r"returns \[4, 3, 32, 32\] where logits"):
        Classifier(nn.Identity())(images)


def test_fingerprint_is_stable_and_sees_every_change(small: nn.Module) -> None:
    first = Classifier(small, 0.5, 0.5).fingerprint
    assert len(first) == 16 and first == Classifier(copy.deepcopy(small).eval(), 0.5, 0.5, name="other").fingerprint
    assert first != Classifier(small, 0.5, 0.25).fingerprint
    assert first != Classifier(small).fingerprint
    laid_out = copy.deepcopy(small).to(memory_format=torch.channels_last)
    assert first == Classifier(laid_out, 0.5, 0.5).fingerprint, "memory layout is not the weights"
    classifier = Classifier(small, 0.5, 0.5)
    small.features[0][1].running_mean.data[0] += 1e-3
    assert first != classifier.fingerprint, "a changed buffer, seen by the same classifier"


def test_fingerprint_tells_apart_what_shares_all_weights() -> None:
    variants = [Scaled(1.0, nn.ReLU()), Scaled(2.0, nn.ReLU()), Scaled(1.0, nn.Tanh())]
    assert len({Classifier(v).fingerprint for v in variants}) == 3
    strides = [nn.Sequential(nn.Conv2d(3, 4, 3, stride=s), nn.AdaptiveAvgPool2d(1), nn.Flatten()) for s in (1, 2)]
    strides[1].load_state_dict(strides[0].state_dict())
    assert len({Classifier(s).fingerprint for s in strides}) == 2


def test_fingerprint_reads_program_text() -> None:
    prints = []
    for operation in ("x.mean((2, 3))", "x.amax((2, 3))"):
        scope: dict = {"nn": nn, "__name__": "__main__"}  # as in a bare interpreter: no source text
        exec(f"class Pool(nn.Module):\n    def forward(self, x):\n        return {operation}\n", scope)
        prints.append(Classifier(scope["Pool"]()).fingerprint)
    assert prints[0] != prints[1]


def test_named_keeps_everything_but_name_and_source(small: nn.Module) -> None:
    first = Classifier(small, 0.5, 0.5, classes=10)
    second = first.named("mine", "def make(): ...")
    assert second.name == "mine" and first.name == "SmallCNN"
    assert second.module is first.module and second.fingerprint != first.fingerprint
