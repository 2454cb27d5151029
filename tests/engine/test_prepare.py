"""Preparing a model merges batch norm without changing a logit, and leaves the user's model as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import aresbench as ab
from aresbench.core.classes import ClassMap
from aresbench.core.errors import ModelError
from aresbench.engine.prepare import prepared


def snapshot(model):
    return (
        {k: v.clone() for k, v in model.state_dict().items()},
        [m.training for m in model.modules()],
        [(p.requires_grad, p.grad, p.stride()) for p in model.parameters()],
    )


def assert_untouched(model, before):
    state, training, parameters = before
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == training
    now = [(p.requires_grad, p.grad, p.stride()) for p in model.parameters()]
    assert [p[0] for p in now] == [p[0] for p in parameters]
    assert all(a[1] is b[1] for a, b in zip(now, parameters, strict=True))
    assert [p[2] for p in now] == [p[2] for p in parameters], "the layout of the user's own weights changed"


def test_batch_norm_is_merged_and_the_logits_stay(plain, digits):
    x = digits[0][:16]
    with prepared(plain, x) as model:
        assert model.merged == 3
        assert not any(isinstance(m, nn.BatchNorm2d) for m in model.search.modules())
        torch.testing.assert_close(model(model.place(x)).float(), model.confirm(x), rtol=1e-4, atol=1e-4)


def test_timm_batch_norm_with_activation_is_merged_too():
    timm = pytest.importorskip("timm")
    net = timm.create_model("tf_efficientnet_lite0", num_classes=7).eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 2)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wanted = net(x)
    with prepared(net, x) as model:
        assert model.merged == 49
        torch.testing.assert_close(model(model.place(x)), wanted, rtol=1e-3, atol=1e-4)


class Reused(nn.Module):
    """The convolution's output also goes round the batch norm: merging would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_var.fill_(4.0)

    def forward(self, x):
        z = self.conv(x)
        return (self.norm(z) + z).mean((2, 3))


def test_a_merge_that_would_change_the_logits_is_undone():
    net = Reused().eval()
    x = torch.rand(2, 3, 8, 8)
    with prepared(net, x) as model:
        assert model.merged == 0
        torch.testing.assert_close(model(x), net(x))


def test_small_logits_do_not_hide_a_wrong_merge():
    net = nn.Sequential(Reused(), Faint()).eval()
    x = torch.rand(2, 3, 8, 8)
    with prepared(net, x) as model:
        assert model.merged == 0
        torch.testing.assert_close(model(x), net(x), rtol=1e-4, atol=0)


class Faint(nn.Module):
    def forward(self, x):
        return x * 1e-6


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    "norm",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
    ],
)
def test_a_convolution_whose_weight_is_computed_is_left_alone(norm):
    net = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)).eval()
    x = torch.rand(2, 3, 8, 8)
    with prepared(net, x) as model:
        assert model.merged == 0
        torch.testing.assert_close(model(x), net(x))


@pytest.mark.parametrize("training", [True, False])
def test_the_model_comes_back_as_it_was(training, plain, digits):
    net = copy.deepcopy(plain).train(training)
    next(net.parameters()).requires_grad_(False)
    net.module.head.weight.grad = torch.ones_like(net.module.head.weight)
    before = snapshot(net)

    def fail_inside():
        with prepared(net, digits[0][:2]) as model:
            images = model.place(digits[0][:2]).requires_grad_(True)
            model(images).sum().backward()
            raise RuntimeError("user's own")

    with pytest.raises(RuntimeError, match="user's own"):
        fail_inside()
    assert_untouched(net, before)


class Uncopiable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 4 * 4, 3)
        self.stream = (k for k in range(3))  # a generator cannot be copied

    def forward(self, x):
        return self.layer(x.flatten(1))


def test_a_model_that_cannot_be_copied_is_used_as_it_is_and_put_back():
    net = Uncopiable()
    before = snapshot(net)
    with prepared(net, torch.rand(2, 3, 4, 4)) as model:
        assert not any(p.requires_grad for p in model.search.parameters())
        assert not net.training
    assert_untouched(net, before)


def test_a_model_that_fails_on_its_first_images_is_put_back():
    net = Uncopiable()
    before = snapshot(net)
    with (
        pytest.raises(ModelError, match=r"Uncopiable fails on images of shape \[2, 3, 5, 5\]"),
        prepared(net, torch.rand(2, 3, 5, 5)),
    ):
        pass
    assert_untouched(net, before)


class Draws(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) + 0.01 * torch.randn(len(x), 3)


def test_getting_ready_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    with prepared(Draws(), torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))):
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_the_class_map_keeps_the_outputs_that_take_part(plain, digits):
    x = digits[0][:4]
    with prepared(plain, x, class_map=ClassMap((0, 1), ((7,), (3,)), "subset")) as model:
        assert model(model.place(x)).shape == (4, 2)
        torch.testing.assert_close(model.confirm(x), plain(x).detach()[:, [7, 3]])


def test_a_model_that_nobody_attacks_is_not_copied(plain, digits):
    x = digits[0][:4]
    with prepared(plain, x, attacked=False) as model:
        assert model.search is plain
        assert all(p.requires_grad for p in plain.parameters())
        unattacked = model.confirm(x)
    with prepared(plain, x) as model:
        assert model.search is not plain
        assert torch.equal(model.confirm(x), unattacked)


class Windows(nn.Module):
    """Cuts images into windows, as Swin does, and cannot cut none at all."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3 * 32 * 32, 10)

    def forward(self, x):
        return self.last(x.reshape(len(x), 4, 3, 16, -1).flatten(1))


def test_no_images_are_answered_without_the_model(tmp_path):
    net = Windows().eval()
    with pytest.raises(RuntimeError, match="0 elements"):
        net(torch.empty(0, 3, 32, 32))
    with prepared(net, torch.rand(2, 3, 32, 32)) as model:
        assert model(torch.empty(0, 3, 32, 32)).shape == model.confirm(torch.empty(0, 3, 32, 32)).shape == (0, 10)
        assert [len(part) for part in model.judge(torch.empty(0, 3, 32, 32))] == [0, 0]
    data = ab.load_dataset("digits")
    classifier = ab.Classifier(net, classes=data.classes, preprocessing=32)
    task = ab.Task("digits", "adversary(linf, 1/25500, pgd(steps=2))")  # breaks nothing: no break is rounded
    assert not ab.evaluate(classifier, [task], n=40, store=tmp_path, doctor=False).failed
