"""ARES-Bench: how robust is an image classifier?

The front door. Importing it is instant: each name below is fetched from its room on first use, so
that nothing heavy (torch, numpy, pandas) is imported before it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name → (module, attribute). `report` is not here: the room `aresbench.report` is itself callable.
_DOORS: dict[str, tuple[str, str]] = {
    "AresError": ("aresbench.core.errors", "AresError"),
    "Bpda": ("aresbench.models.defences", "Bpda"),
    "Classifier": ("aresbench.models.classifier", "Classifier"),
    "Task": ("aresbench.core.suite", "Task"),
    "attack": ("aresbench.engine.attack", "attack"),
    "compare": ("aresbench.report.compare", "compare"),
    "corrupt": ("aresbench.corruptions.load", "corrupt"),
    "defend": ("aresbench.models.defences", "defend"),
    "evaluate": ("aresbench.engine.evaluate", "evaluate"),
    "filtered": ("aresbench.corruptions.load", "filtered"),
    "load_dataset": ("aresbench.data.load", "load_dataset"),
    "load_model": ("aresbench.models.load", "load_model"),
    "rescore": ("aresbench.report.rescore", "rescored_frame"),
    "skip_gradient": ("aresbench.models.surrogates", "skip_gradient"),
    "tasks": ("aresbench.core.suite", "tasks"),
    "train": ("aresbench.training.loop", "train"),
}
_ROOMS = ("report",)

__all__ = ["__version__", *_DOORS, *_ROOMS]

if TYPE_CHECKING:  # for editors and type checkers
    from aresbench.core.errors import AresError as AresError
    from aresbench.core.suite import Task as Task
    from aresbench.core.suite import tasks as tasks
    from aresbench.corruptions.load import corrupt as corrupt
    from aresbench.corruptions.load import filtered as filtered
    from aresbench.data.load import load_dataset as load_dataset
    from aresbench.engine.attack import attack as attack
    from aresbench.engine.evaluate import evaluate as evaluate
    from aresbench.models.classifier import Classifier as Classifier
    from aresbench.models.defences import Bpda as Bpda
    from aresbench.models.defences import defend as defend
    from aresbench.models.load import load_model as load_model
    from aresbench.models.surrogates import skip_gradient as skip_gradient
    from aresbench.report.compare import compare as compare
    from aresbench.report.rescore import rescored_frame as rescore  # noqa: F401
    from aresbench.training.loop import train as train


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        module, attribute = _DOORS[name]
        value = getattr(importlib.import_module(module), attribute)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f"aresbench.{name}")
    from aresbench.core.errors import did_you_mean

    hint = did_you_mean(name, __all__)
    raise AttributeError(f"module 'aresbench' has no attribute {name!r}" + (f"; {hint}" if hint else ""))


def __dir__() -> list[str]:
    return sorted(__all__)
