"""Class names: who is who among labels, matched by name and never by folder order alone."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from aresbench.core.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset or of a model's outputs, in index order.

    Args:
        names: one readable label text per class (``"tench, Tinca tinca"``: synonyms separated by commas).
        ids: one stable id per class where there is one (ImageNet wnids), else empty.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.ids and len(self.ids) != len(self.names):
            raise DataError(f"{len(self.names)} class names but {len(self.ids)} class ids")

    def __len__(self) -> int:
        return len(self.names)

    def hash(self) -> str:
        """Short hash of names and ids in order: part of a protocol's identity."""
        text = "\n".join(self.names) + "\0" + "\n".join(self.ids)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class ClassMap:
    """How a model's outputs answer a dataset's labels.

    Args:
        target: for each dataset class, the position of its logit *after* ``keep`` is applied.
        keep: the model outputs that take part (a mask), or empty for all of them.
        rule: the name under which the map is recorded, e.g. ``identity``, ``full``, ``subset``.
    """

    target: tuple[int, ...]
    keep: tuple[int, ...] = ()
    rule: str = "identity"

    def describe(self) -> dict[str, object]:
        """The record that goes into a cell's key."""
        text = ",".join(map(str, self.target)) + "|" + ",".join(map(str, self.keep))
        return {"rule": self.rule, "hash": hashlib.sha256(text.encode()).hexdigest()[:12]}


def _a_few(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:6])) + (" …" if len(names) > 6 else "")


def _forms(name: str) -> set[str]:
    """Spellings under which a label text is recognised: whole, and each comma-separated synonym."""
    clean = re.sub(r"[\s_\-]+", " ", name.strip().lower())
    return {clean} | {part.strip() for part in clean.split(",") if part.strip()}


def match_classes(data: Classes, model: Classes, *, subset: bool = False) -> ClassMap:
    """Match a dataset's classes to a model's outputs by id (wnid) or label text.

    Args:
        data: the dataset's classes.
        model: the model's classes, one per output.
        subset: restrict the model to the dataset's classes (a mask) instead of asking it to
            choose among all of its outputs.

    Raises:
        DataError: a class has no counterpart, or more than one.
    """
    if data.ids and model.ids:
        where = {wnid: [i] for i, wnid in enumerate(model.ids)}
        wanted = [{wnid} for wnid in data.ids]
    else:
        where = {}
        for i, name in enumerate(model.names):
            forms = _forms(name) | ({model.ids[i].lower()} if model.ids else set())
            for form in forms:
                where.setdefault(form, []).append(i)
        wanted = [_forms(name) | ({data.ids[k].lower()} if data.ids else set()) for k, name in enumerate(data.names)]
    indices: list[int] = []
    for k, forms in enumerate(wanted):
        whole = re.sub(r"[\s_\-]+", " ", data.names[k].strip().lower())
        hits = set(where.get(whole, ())) or {i for form in forms for i in where.get(form, ())}
        if len(hits) != 1:
            label = data.names[k]
            reason = "none of the model's classes" if not hits else f"{len(hits)} of the model's classes"
            raise DataError(
                f"class {label!r} of the data matches {reason}",
                did_you_mean(label, model.names) or f"name the classes as the model does: {_a_few(model.names)}",
            )
        indices.append(hits.pop())
    if len(set(indices)) != len(indices):
        twice = next(i for i in indices if indices.count(i) > 1)
        raise DataError(f"two classes of the data match the model's class {model.names[twice]!r}")
    if indices == list(range(len(model))):
        return ClassMap(tuple(indices), (), "identity")
    if subset:
        return ClassMap(tuple(range(len(indices))), tuple(indices), "subset")
    return ClassMap(tuple(indices), (), "full")
