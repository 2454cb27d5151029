"""ImageNet's 1,000 classes by wnid and name, from a table that ships with the package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from aresbench.core.classes import Classes


@cache
def imagenet_classes() -> Classes:
    """ImageNet's classes in the order of its class indices (sorted wnids), names as comma-separated synonyms."""
    text = files("aresbench.data").joinpath("imagenet_classes.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines()]
    return Classes(names=tuple(name for _, name in rows), ids=tuple(wnid for wnid, _ in rows))


@cache
def index_of_wnid() -> dict[str, int]:
    """wnid → class index."""
    return {wnid: i for i, wnid in enumerate(imagenet_classes().ids)}
