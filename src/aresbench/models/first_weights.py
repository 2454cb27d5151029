"""The weights a training begins with: of another model, another size, or other classes."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from aresbench.core.classes import Classes, match_classes
from aresbench.core.errors import DataError, ModelError
from aresbench.models.classifier import Classifier
from aresbench.models.load import load_model
from aresbench.models.sources.timm import build, resolve
from aresbench.models.state_dicts import fill

# Tensors that depend on the size of the input; timm knows how to resize them.
_PLACES = re.compile(r"(pos_embed|relative_position_bias_table)$")


@dataclass(frozen=True)
class FirstWeights:
    """Tensors of a model that was trained before.

    Args:
        name: the model, as it was asked for.
        tensors: by the names of its module.
        classes: what its outputs mean, if it says so.
        statistics: mean and std of its inputs, if it says so.
        resized: were its position embeddings resized?
    """

    name: str
    tensors: dict[str, Tensor]
    classes: Classes | None
    statistics: tuple[Any, Any]
    resized: bool = False

    @classmethod
    def load(cls, spec: str, module: nn.Module) -> FirstWeights:
        """The weights called ``spec``, their position embeddings as large as those of ``module``.

        Raises:
            UnknownName, SpecError, ModelError: they cannot be found or read.
        """
        found: nn.Module
        if spec.startswith("timm:") and "?" not in spec:
            # Not through load_model: weights without a head are good to begin with.
            found = build(resolve(spec.removeprefix("timm:")), pretrained=True, headless=True)
            cfg: Any = found.pretrained_cfg
            classes, statistics = None, (list(cfg["mean"]), list(cfg["std"]))
        else:
            classifier = load_model(spec)
            found, classes = classifier.module, classifier.classes
            statistics = classifier.card["mean"], classifier.card["std"]
        tensors = dict(found.state_dict())
        own = module.state_dict()
        other = [k for k, v in tensors.items() if k in own and v.shape != own[k].shape and _PLACES.search(k)]
        adapt = vars(sys.modules[type(module).__module__]).get("checkpoint_filter_fn")
        if other and adapt is not None:
            tensors |= {k: v for k, v in adapt(dict(tensors), module).items() if k in other}
        return cls(spec, tensors, classes, statistics, bool(other))

    def into(self, classifier: Classifier, anew: str) -> list[str]:
        """Fill a classifier's module; what is worth knowing about it, in sentences.

        Args:
            classifier: with classes.
            anew: beginning of the names of a changed stem, which may have to begin anew; or empty.

        Raises:
            ModelError: these are the weights of another architecture.
        """
        assert classifier.classes is not None
        module = classifier.module
        own = module.state_dict()
        tensors = dict(self.tensors)
        notes = []
        if anew and not all(k in tensors and tensors[k].shape == v.shape for k, v in own.items() if k.startswith(anew)):
            tensors = {k: v for k, v in tensors.items() if not k.startswith(anew)}
            tensors |= {k: v for k, v in own.items() if k.startswith(anew)}
            notes.append(f"the convolutional stem begins anew: {self.name} has none")
        heads = heads_of(module, len(classifier.classes))
        outputs = next((len(tensors[f"{head}.weight"]) for head in heads if f"{head}.weight" in tensors), 0)
        rows, note = rows_of(classifier.classes, self.classes, outputs, self.name)
        notes += [note] if note else []
        for head in heads:
            for name in (f"{head}.weight", f"{head}.bias"):
                if name in own:
                    tensors[name] = _head(own[name], tensors.get(name), rows)
        try:
            fill(Path(self.name), module, tensors, classifier.name)
        except ModelError as error:
            raise ModelError(
                f"model.initial: {error.problem}", "name weights of model.architecture, with the same changes"
            ) from None
        if self.resized:
            notes.append(f"position embeddings of {self.name} were resized")
        mean, std = self.statistics
        if mean and (mean, std) != (classifier.card["mean"], classifier.card["std"]):
            notes.append(f"{self.name} was trained on images of another mean and std: {mean}, {std}")
        return notes


def _head(fresh: Tensor, old: Tensor | None, rows: Sequence[int | None]) -> Tensor:
    """The rows of a head that are known from ``old``, the others as they are in ``fresh``."""
    kept = [k for k, row in enumerate(rows) if row is not None]
    if old is None or not kept:
        return fresh
    if old.shape[1:] != fresh.shape[1:]:
        return old  # another architecture: the reader of the tensors says so
    mixed = fresh.clone()
    mixed[kept] = old[[row for row in rows if row is not None]].to(fresh.dtype)
    return mixed


def rows_of(classes: Classes, there: Classes | None, outputs: int, name: str) -> tuple[list[int | None], str]:
    """For each class, the output of the first weights that means it, or None; and a sentence about the rest.

    Outputs without names are those of ImageNet, or of a larger one, where the classes have wnids and the number of
    outputs is known; otherwise they stand for the classes in their order where there are as many.

    Args:
        classes: of the data.
        there: of the first weights, if they say so.
        outputs: number of outputs of the first weights; 0: they have no head.
        name: of the first weights.
    """
    n = len(classes)
    anew: list[int | None] = [None] * n
    if not outputs:
        return anew, f"the head begins anew: {name} has none"
    ids = there.ids if there is not None else _imagenet_ids(outputs) if classes.ids else ()
    if ids and classes.ids:
        where = {wnid: row for row, wnid in enumerate(ids)}
        rows = [where.get(wnid) for wnid in classes.ids]
        missing = [k for k, row in enumerate(rows) if row is None]
        lacking = [f"{classes.ids[k]} ({classes.names[k].partition(',')[0]})" for k in missing]
        if len(lacking) == n:
            return anew, f"the head begins anew: none of the {n} classes is among those of {name}"
        if lacking:
            return rows, f"{len(lacking)} of {n} classes begin anew, which {name} lacks: {', '.join(lacking)}"
        return rows, "" if rows == list(range(outputs)) else f"the head was picked from {outputs} classes of {name}"
    if there is not None:
        try:
            found = match_classes(classes, there).target
        except DataError as error:
            return anew, f"the head begins anew: {name} has other classes ({error.problem})"
        return list(found), "" if found == tuple(range(outputs)) else f"the head was picked by name from {name}"
    if outputs == n:
        return list(range(n)), f"{name} does not name its {n} outputs: they are taken to be the data's classes in order"
    return anew, f"the head begins anew: {name} has {outputs} outputs without names, the data have {n} classes"


def _imagenet_ids(outputs: int) -> tuple[str, ...]:
    """The wnids of ImageNet, or of one of its larger relatives, by their number; from the tables inside timm."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": outputs})
    return tuple(ImageNetInfo(subset).label_names()) if subset else ()


def heads_of(module: nn.Module, outputs: int) -> list[str]:
    """The names of the layers that give the logits."""
    cfg = getattr(module, "pretrained_cfg", None)  # timm's modules carry it
    told = cfg.get("classifier") if cfg else None
    if told:
        return [told] if isinstance(told, str) else list(told)
    layers = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d) and part.weight.shape[0] == outputs
    ]
    return layers[-1:]
