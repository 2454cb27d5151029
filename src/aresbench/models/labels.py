"""What a model's outputs mean: class names from a file, a checkpoint or an option."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aresbench.core.classes import Classes, spellings
from aresbench.core.errors import ModelError

# The classes of CIFAR-10 and CIFAR-100 in output order, by the names that their data give them.
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100 = (
    *("apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy"),
    *("bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee"),
    *("clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant"),
    *("flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower"),
    *("leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom"),
    *("oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate"),
    *("poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark"),
    *("shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower"),
    *("sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor", "train", "trout", "tulip"),
    *("turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm"),
)
_WNID = re.compile(r"n\d{8}")


def imagenet_classes() -> Classes:
    """ImageNet's 1,000 classes in output order, from the tables inside timm; nothing is downloaded."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return Classes(tuple(info.label_descriptions()), tuple(info.label_names()))


# What torchvision calls the second of two classes that share a name in ImageNet's list.
OTHER_NAMES = {"crane bird": "n02012849", "maillot tank suit": "n03710721"}


def recognised(names: Sequence[str]) -> Classes:
    """Class names with their wnids where every one of them is a class of ImageNet, else the names alone.

    Names are compared as ``match_classes`` does. Two classes of ImageNet may share a name (crane, the bird and the
    machine): the one that no other output can mean is taken, and two outputs of the same name only where all
    thousand stand in ImageNet's order.
    """
    known = imagenet_classes()
    where: dict[str, set[int]] = {}
    for i, label in enumerate(known.names):
        for form in spellings(label):
            where.setdefault(form, set()).add(i)
    where |= {name: {known.ids.index(wnid)} for name, wnid in OTHER_NAMES.items()}
    may = [_meanings(name, where, known.names) for name in names]
    if len(may) == len(known) and all(i in found for i, found in enumerate(may)):
        return Classes(tuple(names), known.ids)
    settled: dict[int, int] = {}
    while fresh := {i: k for k, found in enumerate(may) if len(found) == 1 for i in found if i not in settled}:
        settled |= fresh
        may = [found if len(found) == 1 else found - settled.keys() for found in may]
    if len(settled) != len(may) or any(len(found) != 1 for found in may):
        return Classes(tuple(names))
    return Classes(tuple(names), tuple(known.ids[found.pop()] for found in may))


def _meanings(name: str, where: Mapping[str, set[int]], labels: Sequence[str]) -> set[int]:
    """The classes that a label text may mean: by the whole of it, else by any of its synonyms.

    Case decides only between classes that differ in nothing else (Cardigan, the dog; cardigan, the jacket).
    """
    whole = max(spellings(name), key=len)
    found = set(where.get(whole) or set().union(*(where.get(form, set()) for form in spellings(name))))
    return {i for i in found if name.strip() in labels[i].split(", ")} or found


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
