"""Models in the exchange format ONNX."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aresbench.core.errors import SpecError
from aresbench.models.sources.base import Source

if TYPE_CHECKING:
    from aresbench.models.classifier import Classifier

ENGINES = ("auto", "torch", "runtime")


class OnnxSource(Source):
    """A model in the exchange format ONNX: ``onnx:/path/model.onnx``.

    The graph is converted to torch, which gives gradients; where that is not possible, or its logits are not
    those of onnxruntime, onnxruntime answers, with scores alone, and attacks that need a gradient are refused.
    ``engine=torch`` or ``engine=runtime`` insists on one of them. Needs ``pip install "aresbench[onnx]"``.
    The file says nothing of its normalisation and classes: give ``mean``, ``std`` and ``classes`` (a text or
    JSON file) unless it takes images in [0,1]. The input size is the graph's, or ``size``.
    """

    example: ClassVar[str] = "onnx:./model.onnx?mean=[0.485, 0.456, 0.406]&std=[0.229, 0.224, 0.225]"
    quick: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("mean", "std", "classes", "size", "engine")

    def names(self) -> list[str]:
        """Nothing: the names are the user's."""
        return []

    def load(self, rest: str, options: Mapping[str, Any]) -> Classifier:
        """Check the graph, convert it, and compare both engines on noise."""
        from aresbench.models.classifier import Classifier
        from aresbench.models.labels import read_labels
        from aresbench.models.onnx_graph import open_graph
        from aresbench.models.sources.python import short_name

        engine = options.get("engine", "auto")
        if engine not in ENGINES:
            raise SpecError(f"engine={engine!r}", f"choose one of {', '.join(ENGINES)}")
        path = Path(rest).expanduser()
        graph = open_graph(path, engine, options.get("size"))
        classes = options.get("classes")
        return Classifier(
            graph.module,
            options.get("mean"),
            options.get("std"),
            read_labels(classes) if isinstance(classes, str) else graph.outputs if classes is None else classes,
            graph.size,
            f"onnx:{short_name(rest)}",
            card={"architecture": path.stem, "family": "onnx", "notes": graph.notes},
            source=hashlib.sha256(path.read_bytes()).hexdigest(),
        ).eval()
