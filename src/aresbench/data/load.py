"""From a text such as ``samples`` or ``folder:/photos`` to a dataset."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from aresbench.core.errors import DataError, SpecError, did_you_mean
from aresbench.core.registry import find, table
from aresbench.core.spec import parse_call, parse_value
from aresbench.data.base import Dataset


def load_dataset(spec: str, root: str | Path | None = None, **options: Any) -> Dataset:
    """Find a dataset by its name and list its images; none is decoded yet.

    Args:
        spec: ``digits``, ``digits(split=train)``, ``folder:/photos``, ``imagenet:/data/imagenet``,
            ``./mine.py:MyDataset``.
        root: folder or file the dataset is read from; the same as writing it after the colon.
        options: the dataset's settings, as in ``load_dataset("digits", split="train")``.

    Raises:
        UnknownName: no dataset of that name (the nearest right one is named).
        DataError: files are missing or do not fit together.
        SpecError: the text cannot be read, or a setting does not exist or is given twice.
    """
    scheme, colon, rest = spec.strip().partition(":")
    if colon and scheme in table("datasets"):
        if not rest:
            raise SpecError(f"{spec!r} names no path", f"write {scheme}:/path")
        if root is not None:
            raise SpecError(f"{spec!r} names a path, and root={str(root)!r} is given too", "give one of them")
        name, root = scheme, rest
    else:
        call = parse_call(spec)
        if call.args:
            raise SpecError(f"{spec!r}: settings of a dataset are written with their names", "write key=value")
        name = call.name
        for key, text in call.kwargs.items():
            if key in options or (key == "root" and root is not None):
                raise SpecError(f"{key!r} is given twice for {name}")
            options[key] = text if key == "root" else parse_value(text)
    factory = find("datasets", name)
    if root is not None:
        options["root"] = root
    allowed = inspect.signature(factory).parameters
    for key in options:
        if key not in allowed:
            settings = ", ".join(allowed) or "no settings"
            raise SpecError(
                f"the dataset {name} has no setting {key!r}", did_you_mean(key, allowed) or f"it takes {settings}"
            )
    required = [k for k, p in allowed.items() if p.default is inspect.Parameter.empty and k not in options]
    if required:
        raise SpecError(f"the dataset {name} needs {required[0]!r}", f"write {name}:/path")
    dataset = factory(**options)
    if not isinstance(dataset, Dataset):
        raise DataError(f"{name} is not a dataset", "it must be a subclass of aresbench.data.base.Dataset")
    len(dataset)  # lists the images, so that missing files are reported here and not in the middle of a run
    return dataset
