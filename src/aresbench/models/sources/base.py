"""What a model source is: where classifiers come from, by the part of a spec after its scheme."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from aresbench.core.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    from aresbench.models.classifier import Classifier


class Source(ABC):
    """Base of all model sources. A new one is one file and one line in the registry.

    The module of a source must not import torch at its top, so that names can be listed at once.

    Class attributes are its card: ``example``, a spec that works; ``quick``, whether ``names`` answers
    without importing anything heavy; ``options``, the settings after ``?`` that it understands.
    """

    example: ClassVar[str]
    quick: ClassVar[bool]
    options: ClassVar[tuple[str, ...]]

    @abstractmethod
    def names(self) -> list[str]:
        """The models that can be named, without the scheme; empty where that depends on the user's files."""

    @abstractmethod
    def load(self, rest: str, options: Mapping[str, Any]) -> Classifier:
        """The classifier called ``rest``, in eval mode.

        Args:
            rest: the spec without its scheme and options.
            options: settings; only keys in ``self.options``.

        Raises:
            UnknownName: no such model (the nearest right one is named).
            ModelError: it is there and cannot be loaded.
        """


class KnownSource(Source):
    """Base of sources that can say what a model is without loading it; ``names`` are all it has."""

    @abstractmethod
    def about(self, name: str) -> tuple[str, dict[str, Any]]:
        """A model in one line, and its card: facts ready for JSON, ``family`` among them.

        Must not import torch.

        Raises:
            UnknownName: no such model (the nearest right one is named).
        """


def wants_weights(spec: str, options: Mapping[str, Any]) -> bool:
    """Is the model asked for with its weights, or with ``?pretrained=false`` for the architecture alone?

    Raises:
        SpecError: neither true nor false, or random weights are asked for together with a file.
    """
    pretrained = options.get("pretrained", True)
    if not isinstance(pretrained, bool):
        raise SpecError(f"pretrained={pretrained!r} is neither true nor false")
    if not pretrained and len(options) > 1:
        raise SpecError(f"{spec} is asked for a file and for random weights", "leave one of the two out")
    return pretrained


def check_options(source: Source, spec: str, options: Mapping[str, Any]) -> None:
    """Refuse settings the source does not know.

    Raises:
        SpecError: naming the first of them.
    """
    for key in options:
        if key not in source.options:
            known = ", ".join(source.options) or "none"
            raise SpecError(
                f"{spec} has no option {key!r}", did_you_mean(key, source.options) or f"options here: {known}"
            )
