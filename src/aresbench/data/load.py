"""From a text such as ``samples`` or ``folder:/photos`` to a dataset."""

from __future__ import annotations

import inspect
import re
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
            ``imagenet-c(corruption=fog, severity=3):/data/imagenet-c``, ``./mine.py:MyDataset``.
        root: folder or file the dataset is read from; the same as writing it after the colon.
        options: the dataset's settings, as in ``load_dataset("digits", split="train")``.

    Raises:
        UnknownName: no dataset of that name (the nearest right one is named).
        DataError: files are missing or do not fit together.
        SpecError: the text cannot be read, or a setting does not exist or is given twice.
    """
    call, path = _split_path(spec.strip())
    if path is not None:
        if not path:
            raise SpecError(f"{spec!r} names no path", f"write {call}:/path")
        if root is not None:
            raise SpecError(f"{spec!r} names a path, and root={str(root)!r} is given too", "give one of them")
        root = path
    name, written = _settings(call)
    for key, text in written.items():
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
        asked = ", ".join(f"{key}=…" for key in required)
        raise SpecError(
            f"the dataset {name} needs {required[0]!r}",
            f"write {name}:/path" if required == ["root"] else f"write {name}({asked})",
        )
    dataset = factory(**options)
    if not isinstance(dataset, Dataset):
        raise DataError(f"{name} is not a dataset", "it must be a subclass of aresbench.data.base.Dataset")
    len(dataset)  # lists the images, so that missing files are reported here and not in the middle of a run
    return dataset


def dataset_name(spec: str) -> str:
    """The registered name in a spec: ``imagenet-c`` of ``imagenet-c(corruption=fog, severity=3):/data``."""
    return parse_call(_split_path(spec.strip())[0]).name


def takes(spec: str, setting: str) -> bool:
    """Does the dataset of a spec have a setting which the spec leaves open?

    Raises:
        UnknownName: no dataset of that name.
    """
    call = parse_call(_split_path(spec.strip())[0])
    return setting in inspect.signature(find("datasets", call.name)).parameters and setting not in call.kwargs


def _split_path(spec: str) -> tuple[str, str | None]:
    """``name(settings)`` and the path of a spec that gives one, as in ``imagenet-c(severity=3):/data``."""
    match = re.fullmatch(r"([\w.-]+)(\([^()]*\))?:(.*)", spec, re.DOTALL)
    if match is None or match[1] not in table("datasets"):
        return spec, None
    return match[1] + (match[2] or ""), match[3]


def _settings(text: str) -> tuple[str, dict[str, str]]:
    call = parse_call(text)
    if call.args:
        raise SpecError(f"{text!r}: settings of a dataset are written with their names", "write key=value")
    return call.name, call.kwargs
