"""ONNX graphs: converted where that gives the same logits, asked through onnxruntime where it does not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import aresbench as ab
from aresbench.core.errors import ModelError, SpecError
from aresbench.models import onnx_graph
from aresbench.models.load import load_model
from aresbench.models.onnx_graph import NoGradient, Runtime

NORMAL = "mean=[0.5, 0.4, 0.3]&std=[0.2, 0.3, 0.25]"


@pytest.fixture
def exported(small: nn.Module, tmp_path: Path) -> Callable[..., Path]:
    """Write the SmallCNN of these tests, or another module, as an ONNX file."""

    def export(
        module: nn.Module | None = None, name: str = "small.onnx", batch: int | str = "n", size: int = 32
    ) -> Path:
        dynamic = {"x": {0: "n"}, "logits": {0: "n"}} if batch == "n" else None
        torch.onnx.export(
            small.eval() if module is None else module.eval(),
            (torch.rand(1, 3, size, size),),
            str(tmp_path / name),
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes=dynamic,
            dynamo=False,
        )
        return tmp_path / name

    return export


pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("engine", ["auto", "torch", "runtime"])
def test_logits_are_the_originals(exported: Any, small: nn.Module, images: torch.Tensor, engine: str) -> None:
    path = exported()
    model = load_model(f"onnx:{path}?{NORMAL}&engine={engine}")
    original = ab.Classifier(small.eval(), [0.5, 0.4, 0.3], [0.2, 0.3, 0.25])
    assert torch.allclose(model(images), original(images), atol=1e-4)
    assert model.num_classes == 10 and model.preprocessing is not None and model.preprocessing.size == (32, 32)
    assert model.name.startswith("onnx:") and not model.training
    assert isinstance(model.module, Runtime) == (engine == "runtime")


def test_gradients_of_the_converted_graph_are_the_originals(
    exported: Any, small: nn.Module, images: torch.Tensor
) -> None:
    model = load_model(f"onnx:{exported()}")
    found = []
    for net in (model, small.eval()):
        x = images.clone().requires_grad_(True)
        found.append(torch.autograd.grad(net(x)[:, 3].sum(), x)[0])
    assert torch.allclose(*found, atol=1e-4) and found[0].abs().max() > 1e-3


def test_without_a_gradient_gradient_attacks_are_refused_and_score_attacks_run(
    exported: Any, images: torch.Tensor
) -> None:
    model = load_model(f"onnx:{exported()}?engine=runtime")
    assert "no gradient" in model.card["notes"][-1]
    y = model(images).argmax(1)
    with pytest.raises(NoGradient, match="gives no gradient") as caught:
        ab.attack(model, images, y, "pgd(steps=2)", "linf:4/255")
    assert "square" in caught.value.remedy
    for attack in ("square(queries=20)", "rays(queries=20)"):
        ab.attack(model, images, y, attack, "linf:8/255")
    x = images.requires_grad_(True)
    assert model(x).requires_grad, "so that nobody takes it for a model whose gradient is zero"


def test_the_doctor_says_that_there_is_no_gradient(exported: Any) -> None:
    from aresbench.engine.doctor import examine

    model = load_model(f"onnx:{exported()}?engine=runtime", classes=[str(i) for i in range(10)])
    flags = examine(model, ab.load_dataset("digits"))
    found = [flag for flag in flags if flag.name == "no-gradient"]
    assert len(found) == 1 and "onnxruntime" in found[0].message


def test_a_graph_that_cannot_be_converted_falls_back_and_says_why(
    exported: Any, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported()
    import onnx2torch

    def fails(proto: object) -> nn.Module:
        raise NotImplementedError("Converter is not implemented (Strange)")

    monkeypatch.setattr(onnx2torch, "convert", fails)
    model = load_model(f"onnx:{path}")
    assert isinstance(model.module, Runtime) and "Strange" in model.card["notes"][-1]
    with pytest.raises(ModelError, match=r"cannot be converted to torch: .*Strange"):
        load_model(f"onnx:{path}?engine=torch")


def test_a_conversion_with_other_logits_is_not_believed(
    exported: Any, small: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported()
    import onnx2torch

    class Off(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return small.eval()(x) * 1.01

    monkeypatch.setattr(onnx2torch, "convert", lambda proto: Off())
    model = load_model(f"onnx:{path}")
    assert isinstance(model.module, Runtime) and "logits differ" in model.card["notes"][-1]


def test_a_graph_for_single_images_takes_batches(exported: Any, small: nn.Module, images: torch.Tensor) -> None:
    path = exported(batch=1)
    model = load_model(f"onnx:{path}?engine=runtime")
    assert torch.allclose(model(images), small.eval()(images), atol=1e-4)


def test_a_copy_shares_the_session_and_fingerprints_tell_files_apart(exported: Any, images: torch.Tensor) -> None:
    model = load_model(f"onnx:{exported()}?engine=runtime")
    assert torch.equal(copy.deepcopy(model)(images), model(images))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        other = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    prints = {load_model(f"onnx:{exported(other, 'other.onnx')}?engine=runtime").fingerprint, model.fingerprint}
    assert len(prints) == 2 and load_model(f"onnx:{exported()}?engine=runtime").fingerprint == model.fingerprint


def test_what_is_no_classifier_is_refused(exported: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        load_model(f"onnx:{tmp_path}/nothing.onnx")
    (tmp_path / "page.onnx").write_text("<!doctype html><html></html>")
    with pytest.raises(ModelError, match="is no ONNX model, or is damaged"):
        load_model(f"onnx:{tmp_path}/page.onnx")
    whole = exported().read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="is no ONNX model, or is damaged"):
        load_model(f"onnx:{tmp_path}/half.onnx")
    with pytest.raises(ModelError, match=r"returns \[2, 3, 32, 32\].* where logits"):
        load_model(f"onnx:{exported(nn.Conv2d(3, 3, 1), 'dense.onnx')}")
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"])],
        "two",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 8, 8]) for n in "ab"],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 3, 8, 8])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(tmp_path / "two.onnx"))
    with pytest.raises(ModelError, match=r"has 2 inputs \(a, b\)"):
        load_model(f"onnx:{tmp_path}/two.onnx")


def test_options_are_checked(exported: Any) -> None:
    path = exported()
    with pytest.raises(SpecError, match="engine='fast'"):
        load_model(f"onnx:{path}?engine=fast")
    with pytest.raises(ModelError, match="takes 32×32, not 64×64"):
        load_model(f"onnx:{path}?size=64")
    with pytest.raises(ModelError, match="10 logits, and 9 classes"):
        load_model(f"onnx:{path}?engine=runtime", classes=[str(i) for i in range(9)])(torch.rand(1, 3, 32, 32))


def test_a_file_without_a_scheme_is_recognised(exported: Any) -> None:
    path = exported()
    assert load_model(str(path)).name == load_model(f"onnx:{path}").name


def test_without_the_library_the_extra_is_named(exported: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported()
    monkeypatch.setattr(onnx_graph.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="onnx is needed") as caught:
        load_model(f"onnx:{path}")
    assert 'pip install "aresbench[onnx]"' in caught.value.remedy


def test_the_runtime_is_asked_with_what_it_was_given(exported: Any, images: torch.Tensor) -> None:
    runtime = Runtime(exported(), one=False)
    assert np.allclose(runtime.ask(images.numpy()), runtime(images).numpy())
