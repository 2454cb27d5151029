"""An ONNX graph as a torch module: converted, with gradients, or asked through onnxruntime, with scores alone."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aresbench.core.errors import ModelError

CLOSE = 1e-3  # of the largest logit: more than float noise between two engines


class NoGradient(ModelError, NotImplementedError):
    """A model that answers and cannot be differentiated was asked for a gradient."""


@dataclass
class Graph:
    """A graph ready to be asked.

    Args:
        module: images [N, 3, H, W] → logits.
        size: (height, width) of its input; None: not fixed.
        outputs: number of logits; None: not fixed.
        notes: what a reader of results must know.
    """

    module: nn.Module
    size: tuple[int, int] | None
    outputs: int | None
    notes: list[str] = field(default_factory=list)


class Runtime(nn.Module):
    """A graph in onnxruntime, on the CPU. It gives no gradient, and says so when one is asked for.

    Args:
        path: the file.
        one: the graph takes a single image at a time.
    """

    def __init__(self, path: Path, one: bool) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self._one = one

    def __deepcopy__(self, memo: dict[int, Any]) -> Runtime:
        """A copy that shares the session, which has no state of its own."""
        other = copy.copy(self)
        memo[id(self)] = other
        return other

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of normalised images [N, 3, H, W]."""
        answers = self.ask(x.detach().cpu().numpy().astype(np.float32))
        logits = torch.from_numpy(answers).to(x.device)
        return _Refuse.apply(logits, x) if torch.is_grad_enabled() and x.requires_grad else logits

    def ask(self, x: np.ndarray) -> np.ndarray:
        """The graph's first output for float32 images [N, 3, H, W]."""
        parts = [x[i : i + 1] for i in range(len(x))] if self._one else [x]
        return np.concatenate(
            [self._session.run([self._output], {self._input: np.ascontiguousarray(p)})[0] for p in parts]
        )


class _Refuse(torch.autograd.Function):
    """The logits themselves; an error of our own where their gradient is asked for."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, x: Tensor) -> Tensor:
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NoGradient(
            "this ONNX model runs in onnxruntime and gives no gradient",
            "attack it with scores or labels only (square, nes, hopskipjump, rays …), or by transfer from another",
        )


def open_graph(path: Path, engine: str, size: object) -> Graph:
    """Read an ONNX file.

    Args:
        path: the file.
        engine: ``torch``, ``runtime``, or ``auto``: torch where it gives the runtime's logits.
        size: input size in pixels where the graph leaves it open; None: not given.

    Raises:
        ModelError: no file, no ONNX graph, not one image in and one list of logits out, no library, or a graph that
            cannot be converted where ``engine`` insists on it.
    """
    for library in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(library) is None:
            raise ModelError(f"the library {library} is needed for ONNX models", 'pip install "aresbench[onnx]"')
    proto = _read(path)
    batch, wanted = _input(path, proto)
    found = _pixels(path, wanted, size)
    try:
        runtime = Runtime(path, one=batch == 1)
        probe = np.random.default_rng(0).random((2, 3, *(found or (224, 224))), dtype=np.float32)
        expected = runtime.ask(probe)
    except ModelError:
        raise
    except Exception as error:  # the runtime's errors are of many kinds
        raise ModelError(
            f"{path} does not run: {_line(error)}", "check it with onnx.checker; name its input size"
        ) from None
    if expected.ndim != 2 or len(expected) != 2:
        raise ModelError(
            f"{path} returns {list(expected.shape)} for 2 images where logits [2, classes] belong",
            "export the part of the model that returns the logits alone",
        )
    notes: list[str] = []
    module: nn.Module = runtime
    if engine != "runtime":
        converted, reason = _convert(proto, probe, expected)
        if converted is not None:
            module = converted
        elif engine == "torch":
            raise ModelError(f"{path} cannot be converted to torch: {reason}", "engine=runtime gives scores alone")
        else:
            notes.append(f"no gradient: it runs in onnxruntime, because {reason}")
    else:
        notes.append("no gradient: it runs in onnxruntime, as asked for")
    return Graph(module, found, expected.shape[1], notes)


def _read(path: Path) -> Any:
    import onnx

    if not path.is_file():
        raise ModelError(f"there is no file {path}", f"the path is relative to {Path.cwd()}")
    try:
        proto = onnx.load(str(path))
        onnx.checker.check_model(proto)
    except Exception as error:
        raise ModelError(
            f"{path} is no ONNX model, or is damaged: {_line(error)}", "download or export it again"
        ) from None
    return proto


def _input(path: Path, proto: Any) -> tuple[int | None, list[int | None]]:
    """The size of a batch and of an image, None where the graph leaves them open."""
    constants = {one.name for one in proto.graph.initializer}
    inputs = [one for one in proto.graph.input if one.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        raise ModelError(f"{path} has {len(inputs)} inputs ({names}), not one image", "export it with the image alone")
    kind = inputs[0].type.tensor_type
    shape = [dim.dim_value or None for dim in kind.shape.dim]
    if kind.elem_type != 1 or len(shape) != 4 or shape[1] not in (3, None):
        raise ModelError(
            f"{path} does not take float32 images [N, 3, H, W] (its input has the shape {shape})",
            "export it so that it takes RGB in [0,1] (or normalised), channels first",
        )
    if shape[0] not in (1, None):
        raise ModelError(f"{path} takes batches of {shape[0]} only", "export it with a batch of any size")
    return shape[0], shape[2:]


def _pixels(path: Path, shape: list[int | None], size: object) -> tuple[int, int] | None:
    """The input size: the graph's, or the one that is given."""
    if size is not None and not isinstance(size, int):
        raise ModelError(f"size={size!r}", "give the input size in pixels, for example size=224")
    height, width = shape
    if height and width:
        if size is not None and (size, size) != (height, width):
            raise ModelError(f"{path} takes {height}×{width}, not {size}×{size}", "leave size out")
        return height, width
    return None if size is None else (size, size)


def _convert(proto: Any, probe: np.ndarray, expected: np.ndarray) -> tuple[nn.Module | None, str]:
    """The graph in torch, if it gives the runtime's logits and a gradient; else why not."""
    try:
        import onnx2torch
    except ImportError:
        return None, "the library onnx2torch is not installed"
    try:
        module = onnx2torch.convert(proto).eval()
        x = torch.from_numpy(probe).requires_grad_(True)
        with torch.enable_grad():
            logits = module(x)
            (gradient,) = torch.autograd.grad(logits.sum(), x)
    except Exception as error:  # unknown operators fail in many ways
        return None, _line(error)
    off = float(np.abs(logits.detach().numpy() - expected).max())
    if logits.shape != expected.shape or not off <= CLOSE * max(1.0, float(np.abs(expected).max())):
        return None, f"the converted graph's logits differ by {off:.2g}"
    if not torch.isfinite(gradient).all() or not gradient.any():
        return None, "the converted graph has no gradient"
    return module, ""


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
