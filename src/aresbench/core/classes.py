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
        members: for a dataset whose classes are wider than those of the models it is meant for (ObjectNet's), the
            models' classes that count as each of its own, any number of them. A class without members is one that
            no model answers: its images are always wrong.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...] = ()
    members: tuple[Classes, ...] = ()

    def __post_init__(self) -> None:
        if self.ids and len(self.ids) != len(self.names):
            raise DataError(f"{len(self.names)} class names but {len(self.ids)} class ids")
        if self.members and len(self.members) != len(self.names):
            raise DataError(f"{len(self.names)} class names but members of {len(self.members)} classes")

    def __len__(self) -> int:
        return len(self.names)

    def hash(self) -> str:
        """Short hash of names and ids in order: part of a protocol's identity."""
        text = "\n".join(self.names) + "\0" + "\n".join(self.ids)
        text += "".join("\0" + member.hash() for member in self.members)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class ClassMap:
    """How a model's outputs answer a dataset's labels.

    Args:
        target: for each dataset class, the position of its logit *after* ``outputs`` is applied.
        outputs: for each position, the model outputs of which it takes the largest; an output that stands nowhere
            takes no part (a mask), and a position without outputs is below all others. Empty: the model's own
            outputs, all of them, in their order.
        rule: the name under which the map is recorded, e.g. ``identity``, ``full``, ``subset``.
    """

    target: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...] = ()
    rule: str = "identity"

    def describe(self) -> dict[str, object]:
        """The record that goes into a cell's key."""
        text = ",".join(map(str, self.target)) + "|" + ",".join("+".join(map(str, found)) for found in self.outputs)
        return {"rule": self.rule, "hash": hashlib.sha256(text.encode()).hexdigest()[:12]}


def _a_few(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:6])) + (" …" if len(names) > 6 else "")


def spellings(name: str) -> set[str]:
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
    if data.members:
        return _match_members(data, model, subset=subset)
    indices = _counterparts(data, model)
    if indices == list(range(len(model))):
        return ClassMap(tuple(indices))
    if subset:
        return ClassMap(tuple(range(len(indices))), tuple((k,) for k in indices), "subset")
    return ClassMap(tuple(indices), (), "full")


def _match_members(data: Classes, model: Classes, *, subset: bool) -> ClassMap:
    """Each class of the data takes the largest of its members' outputs; the others stay by themselves, or go."""
    everyone = Classes(
        tuple(name for member in data.members for name in member.names),
        tuple(key for member in data.members for key in member.ids),
    )
    found = iter(_counterparts(everyone, model))
    outputs = [tuple(next(found) for _ in range(len(member))) for member in data.members]
    if not subset:
        taken = {k for group in outputs for k in group}
        outputs += [(k,) for k in range(len(model)) if k not in taken]
    return ClassMap(tuple(range(len(data))), tuple(outputs), "subset" if subset else "full")


def _counterparts(data: Classes, model: Classes) -> list[int]:
    """For each class of the data, the model's output of that class; no output serves two."""
    if data.ids and model.ids:
        where = {wnid: [i] for i, wnid in enumerate(model.ids)}
        wanted = [{wnid} for wnid in data.ids]
    else:
        where = {}
        for i, name in enumerate(model.names):
            forms = spellings(name) | ({model.ids[i].lower()} if model.ids else set())
            for form in forms:
                where.setdefault(form, []).append(i)
        wanted = [spellings(name) | ({data.ids[k].lower()} if data.ids else set()) for k, name in enumerate(data.names)]
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
    return indices
