"""Models made by the user's own Python code."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aresbench.core.errors import AresError, ModelError, SpecError
from aresbench.core.registry import find, load_file
from aresbench.models.sources.base import Source

if TYPE_CHECKING:
    from aresbench.models.classifier import Classifier

_SOURCE = "__aresbench_source__"


class PythonSource(Source):
    """Your own code: ``./file.py:factory`` or ``package.module:factory``.

    ``factory()`` returns a ``Classifier``, which says everything about itself, or a plain module; the
    latter receives images in [0,1] as they are unless ``mean`` and ``std`` are given. The program text is
    part of the fingerprint.
    """

    example: ClassVar[str] = "./mine.py:make"
    quick: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("mean", "std", "classes", "size")

    def names(self) -> list[str]:
        """Nothing: the names are the user's."""
        return []

    def load(self, rest: str, options: Mapping[str, Any]) -> Classifier:
        """Call the factory and wrap what it returns."""
        from aresbench.models.classifier import Classifier
        from aresbench.models.labels import read_labels

        made, source = make(rest)
        name = short_name(rest)
        if isinstance(made, Classifier):
            if options:
                raise SpecError(
                    f"{name} makes a Classifier, which says everything itself: {next(iter(options))!r} is too much",
                    "leave the option out, or set it in the factory",
                )
            return made.named(name, source).eval()
        classes = options.get("classes")
        return Classifier(
            made,
            options.get("mean"),
            options.get("std"),
            read_labels(classes) if isinstance(classes, str) else classes,
            options.get("size"),
            name,
            source=source,
        ).eval()


def make(spec: str) -> tuple[Any, str]:
    """What the factory at ``./file.py:factory`` or ``package.module:factory`` makes, and its program text.

    Raises:
        UnknownName: no such file, module or object.
        ModelError: the code fails, or returns neither a module nor a Classifier.
    """
    from torch import nn

    where, _, attribute = spec.rpartition(":")
    try:
        source = _fresh(Path(where)) if where.endswith(".py") else ""
        factory = find("models", spec)
    except AresError:
        raise
    except Exception as error:
        raise ModelError(f"{where} cannot be imported: {type(error).__name__}: {error}", "run it by itself") from error
    if not source:
        module = sys.modules.get(where)
        source = inspect.getsource(module) if module is not None and getattr(module, "__file__", None) else ""
    if isinstance(factory, nn.Module):
        return factory, source
    if not callable(factory):
        raise ModelError(
            f"{spec} is a {type(factory).__name__}, not a factory", f"write def {attribute}(): return model"
        )
    try:
        made = factory()
    except AresError:
        raise
    except Exception as error:
        raise ModelError(
            f"{short_name(spec)} fails: {attribute}() raises {type(error).__name__}: {error}",
            "a factory is called without arguments and returns a torch.nn.Module or an aresbench.Classifier",
        ) from error
    if not isinstance(made, nn.Module):
        raise ModelError(
            f"{short_name(spec)} returns a {type(made).__name__}, not a model",
            "return a torch.nn.Module or an aresbench.Classifier",
        )
    return made, source


def _fresh(path: Path) -> str:
    """Import a file (again, if it was edited since it was imported) and return its text."""
    try:
        module = load_file(path)
    except SpecError as error:
        raise ModelError(error.problem, error.remedy) from error
    text = path.expanduser().read_text("utf-8")
    if getattr(module, _SOURCE, text) != text:
        del sys.modules[module.__name__]
        module = load_file(path)
    setattr(module, _SOURCE, text)
    return text


def short_name(spec: str) -> str:
    """A spec without the machine's folders, as it stands in results.

    A path relative to the current folder stays as it is; any other keeps its last folder.
    """
    where, colon, attribute = spec.rpartition(":")
    path = Path(where if colon else spec)
    if not colon or where.endswith(".py"):
        full = path.expanduser()
        if full.is_absolute() or path != full:
            inside = full.is_relative_to(Path.cwd())
            path = full.relative_to(Path.cwd()) if inside else Path(*full.parts[-2:])
        return path.as_posix() + (f":{attribute}" if colon else "")
    return spec
