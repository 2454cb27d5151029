"""What a model's outputs mean: class names from a file, a checkpoint or an option."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aresbench.core.classes import Classes
from aresbench.core.errors import ModelError

_WNID = re.compile(r"n\d{8}")


def imagenet_classes() -> Classes:
    """ImageNet's 1,000 classes in output order, from the tables inside timm; nothing is downloaded."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return Classes(tuple(info.label_descriptions()), tuple(info.label_names()))


def read_labels(path: str | Path) -> Classes:
    """Class names from a text file (one a line, in output order) or a JSON file (see ``as_classes``).

    Raises:
        ModelError: the file is missing, empty or no list of labels.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ModelError(f"there is no file of class names at {file}", "one name a line, in output order; or JSON")
    text = file.read_text("utf-8")
    if file.suffix.lower() != ".json":
        return as_classes([line.strip() for line in text.strip().splitlines()], str(file))
    try:
        return as_classes(json.loads(text), str(file))
    except json.JSONDecodeError as error:
        raise ModelError(f"{file} is not JSON: {error}") from None


def as_classes(value: Any, where: str) -> Classes:
    """Class names in output order from a list, from index → name or from name → index.

    Names that are all ImageNet wnids become ids, with their readable names beside them.

    Args:
        value: what was found.
        where: named in errors.

    Raises:
        ModelError: it is none of the three, or the indices have gaps.
    """
    if isinstance(value, Mapping):
        value = _in_order(value, where)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ModelError(f"{where} holds no class names", "give a list in output order, or a map from index to name")
    names = tuple(map(str, value))
    if any(not name for name in names):
        raise ModelError(f"{where}: class {names.index('')} has no name")
    if not all(_WNID.fullmatch(name) for name in names):
        return Classes(names)
    known = imagenet_classes()
    readable = dict(zip(known.ids, known.names, strict=True))
    return Classes(tuple(readable.get(name, name) for name in names), names)


def _in_order(table: Mapping[Any, Any], where: str) -> list[Any]:
    """The names of a map between indices and names, whichever way it goes."""
    try:
        by_index = {int(k): v for k, v in table.items()}
    except (TypeError, ValueError):
        try:
            by_index = {int(v): k for k, v in table.items()}
        except (TypeError, ValueError):
            raise ModelError(f"{where} maps neither indices to names nor names to indices") from None
    if sorted(by_index) != list(range(len(table))):
        raise ModelError(f"{where}: the class indices are not 0 to {len(table) - 1}, each once")
    return [by_index[i] for i in range(len(table))]
