"""Programs that torch.export has saved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aresbench.core.errors import ModelError
from aresbench.models.sources.base import Source

if TYPE_CHECKING:
    from aresbench.models.classifier import Classifier


class ExportedSource(Source):
    """A program saved by torch.export: ``exported:/path/model.pt2``.

    It gives gradients, and needs none of the code that made it. Export it in eval mode, for batches of any size. The
    file says nothing of its normalisation and classes: give ``mean``, ``std`` and ``classes`` (a text or JSON
    file) unless it takes images in [0,1]. The input size is the program's, or ``size``. An archive that holds
    more than tensors and arithmetic on them is refused, since reading it could run code.
    """

    example: ClassVar[str] = "exported:./model.pt2?mean=[0.485, 0.456, 0.406]&std=[0.229, 0.224, 0.225]"
    quick: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("mean", "std", "classes", "size")

    def names(self) -> list[str]:
        """Nothing: the names are the user's."""
        return []

    def load(self, rest: str, options: Mapping[str, Any]) -> Classifier:
        """Check the archive, then let torch read it, and try it on noise."""
        from aresbench.models.classifier import Classifier
        from aresbench.models.exported_program import load
        from aresbench.models.labels import read_labels
        from aresbench.models.sources.python import short_name

        size = options.get("size")
        if size is not None and not isinstance(size, int):
            raise ModelError(f"size={size!r}", "give the input size in pixels, for example size=224")
        path = Path(rest).expanduser()
        module, pixels, outputs = load(path, size)
        classes = options.get("classes")
        return Classifier(
            module,
            options.get("mean"),
            options.get("std"),
            read_labels(classes) if isinstance(classes, str) else outputs if classes is None else classes,
            pixels,
            f"exported:{short_name(rest)}",
            card={"architecture": path.stem, "family": "exported"},
            source=hashlib.sha256(path.read_bytes()).hexdigest(),
        ).eval()
