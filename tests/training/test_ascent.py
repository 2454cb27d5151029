"""Training attacks: all steps for all images, nothing left behind in the model, nobody waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aresbench.attacks.load import make_attack
from aresbench.engine.ascent import Ascent, ascend, standing_still
from aresbench.models.architectures.small_cnn import SmallCNN
from aresbench.ops.random import Streams

N = 6


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(SmallCNN(), nn.Dropout(0.5)).train()
    made(torch.rand(32, 3, 32, 32))  # running statistics that are not the first ones
    return made


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.rand(N, 3, 32, 32, generator=draw), torch.arange(N)


def _ascend(model: nn.Module, spec: str, batch: tuple[Tensor, Tensor], batch_norm: str = "eval", **more: Any) -> Ascent:
    x, y = batch
    with standing_still(model, batch_norm):
        return ascend(
            model,
            make_attack(spec),
            x,
            y,
            norm="linf",
            eps=torch.full((N,), 0.1),
            streams=Streams(0, "training/0", [str(k) for k in range(N)]),
            num_classes=10,
            **more,
        )


@pytest.mark.parametrize(
    ("spec", "forwards", "backwards"),
    [
        ("fgsm", 1, 1),
        ("pgd(steps=1, rel_step=1.25)", 1, 1),
        ("pgd(steps=3)", 3, 3),
        ("pgd(steps=2, restarts=2)", 5, 5),  # the end of the first run is asked about as well
        ("bim(steps=3)", 3, 3),
        ("mim(steps=3)", 3, 3),
        ("apgd-ce(steps=2)", 2, 2),
    ],
)
def test_every_image_takes_every_step(
    spec: str, forwards: int, backwards: int, model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    x, _ = batch
    with torch.no_grad(), standing_still(model):
        wrong = (model(x).argmax(1) + 1) % 10  # every image is misclassified before the attack begins
    for labels in (wrong, (wrong + 9) % 10):
        found = _ascend(model, spec, (x, labels))
        assert found.forwards.tolist() == [forwards] * N
        assert found.backwards.tolist() == [backwards] * N
        assert ((found.x - x).abs().amax((1, 2, 3)) > 0.02).all()


def _left_behind(model: nn.Module) -> tuple[list[bool], dict[str, Tensor], list[Tensor | None], list[bool]]:
    return (
        [part.training for part in model.modules()],
        {name: buffer.clone() for name, buffer in model.named_buffers()},
        [parameter.grad for parameter in model.parameters()],
        [parameter.requires_grad for parameter in model.parameters()],
    )


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
@pytest.mark.parametrize("keep", ["last", "best"])
def test_an_attack_leaves_nothing_behind(
    batch_norm: str, keep: str, model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    next(iter(model.parameters())).requires_grad_(False)  # frozen by the user, and to stay so
    model[0].features[1].eval()  # type: ignore[index]
    modes, buffers, _, flags = _left_behind(model)
    _ascend(model, "pgd(steps=2)", batch, batch_norm, keep=keep)
    modes_now, buffers_now, grads, flags_now = _left_behind(model)
    assert modes_now == modes
    assert flags_now == flags
    assert grads == [None] * len(grads)
    assert buffers_now.keys() == buffers.keys()
    assert all(torch.equal(buffers_now[name], buffers[name]) for name in buffers)


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_an_error_inside_leaves_nothing_behind_either(batch_norm: str, model: nn.Module) -> None:
    modes, buffers, _, flags = _left_behind(model)

    def failing(images: Tensor) -> Tensor:
        assert not any(parameter.requires_grad for parameter in model.parameters())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), standing_still(model, batch_norm):
        failing(torch.zeros(0))
    modes_now, buffers_now, _, flags_now = _left_behind(model)
    assert (modes_now, flags_now) == (modes, flags)
    assert all(torch.equal(buffers_now[name], buffers[name]) for name in buffers)


def test_batch_norm_as_in_training_uses_the_batch(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    x, _ = batch
    learned = SmallCNN()
    learned.load_state_dict(model[0].state_dict())  # type: ignore[index]
    with torch.no_grad():
        own = learned.train()(x)
        running = model[0].eval()(x)  # type: ignore[index]
        model.train()
        with standing_still(model, "train"):
            seen = model(x)
        with standing_still(model, "eval"):
            usual = model(x)
    torch.testing.assert_close(seen, own)
    torch.testing.assert_close(usual, running)
    assert (seen - usual).abs().max() > 0.01


def test_the_best_iterate_is_chosen_image_by_image(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    """Steps too long for the ball, so that the last point of an image often is not its best."""
    x, y = batch
    visited: list[Tensor] = []
    spec = "pgd(steps=6, rel_step=1.9)"

    def watching(images: Tensor) -> Tensor:
        visited.append(images.detach().clone())
        logits: Tensor = model(images)
        return logits

    with standing_still(model):
        found = ascend(
            watching,
            make_attack(spec),
            x,
            y,
            norm="linf",
            eps=torch.full((N,), 0.1),
            streams=Streams(0, "training/0", [str(k) for k in range(N)]),
            num_classes=10,
            keep="best",
        )
        values = torch.stack([F.cross_entropy(model(images), y, reduction="none") for images in visited])
        kept = F.cross_entropy(model(found.x), y, reduction="none")
    assert found.forwards.tolist() == [7] * N  # one more than the last iterate needs
    assert len(values.argmax(0).unique()) > 1  # the best of different images lie at different steps
    torch.testing.assert_close(kept, values.amax(0))


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A process group of one; the names of the collective calls that were made."""
    dist.init_process_group("gloo", store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1)
    called: list[str] = []

    def spy(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return real(*args, **kwargs)

        return call

    words = ("reduce", "gather", "broadcast", "barrier", "scatter", "all_to_all", "send", "recv")
    for name in dir(dist):
        real = getattr(dist, name)
        if callable(real) and not isinstance(real, type) and any(word in name for word in words):
            monkeypatch.setattr(dist, name, spy(name, real))
    try:
        yield called
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_an_attack_asks_no_other_process(
    one_process: list[str], batch_norm: str, model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    """Neither by itself, nor by the hooks that DistributedDataParallel has hung on the parameters."""
    reduced: list[int] = []
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)

    def hook(state, bucket):  # type: ignore[no-untyped-def] # DistributedDataParallel reads annotations
        reduced.append(bucket.index())
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    wrapped.register_comm_hook(None, hook)
    one_process.clear()
    _ascend(model, "pgd(steps=2)", batch, batch_norm)
    assert one_process == []
    assert reduced == []
    assert all(parameter.grad is None for parameter in model.parameters())
    wrapped(batch[0]).sum().backward()  # the training pass is the one place where they speak
    assert reduced
    dist.all_reduce(torch.zeros(1))
    assert one_process == ["all_reduce"]


def test_synchronised_batch_norm_asks_no_other_process_in_the_attack(
    one_process: list[str], monkeypatch: pytest.MonkeyPatch, model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 2)  # as if another process were there to wait for
    joint = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for batch_norm in ("eval", "train"):
        _ascend(joint, "pgd(steps=2)", batch, batch_norm)
    assert one_process == []
    with pytest.raises(ValueError, match="GPU"):  # in training it would
        joint(batch[0])
