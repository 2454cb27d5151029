"""Stored rows under another protocol: what can be known without asking the model again.

Two kinds of class numbers meet here: the model's *outputs*, and places among the dataset's *classes*. A class map that
masks or merges outputs fills a row's ``full_prediction``, which is an output; ``prediction``, ``label`` and ``top5``
are classes there. Where ``full_prediction`` is missing, they are outputs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aresbench.core.errors import ProtocolMismatch
from aresbench.metrics.baselines import error_baseline
from aresbench.metrics.score import Score, share, wilson

UNKNOWN = "some-images-unknown"
"""Flag: for some images the stored rows do not say; the interval holds for whatever they are."""


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Right or wrong under another protocol, as far as the rows say.

    Args:
        correct: [N] bool; False where not known.
        known: [N] bool.
    """

    correct: NDArray[np.bool_]
    known: NDArray[np.bool_]

    def score(self, most_unknown: float = 0.01, level: float = 0.95) -> Score:
        """Accuracy: the least it can be (what is unknown counts as wrong), in an interval that holds in any case.

        The interval reaches from Wilson's lower end of the least to the upper end of the most (all unknown right).

        Args:
            most_unknown: share of images that may be unknown.
            level: confidence.

        Raises:
            ProtocolMismatch: more are unknown.
        """
        n, right, unknown = self.known.size, int(self.correct.sum()), int((~self.known).sum())
        if unknown > most_unknown * n:
            raise ProtocolMismatch(
                f"for {unknown} of {n} images the stored rows do not say what another protocol would give",
                "evaluate under that protocol",
            )
        low, high = wilson(right, n, level)[0], wilson(right + unknown, n, level)[1]
        return Score(right / n if n else math.nan, n, low, high, flags=(UNKNOWN,) if unknown else ())


def masked(top5: Sequence[Sequence[int]] | NDArray[np.int64], label: ArrayLike, mask: Collection[int]) -> Verdicts:
    """Verdicts as if the model had chosen among ``mask`` alone, from rows in which it chose among all its outputs.

    The first of the top five that lies in the mask is the choice. Where none does, the choice is not known, nor, then,
    the verdict. Needs ``top5`` and ``label`` of rows without a mask, and the images of the masked classes only.

    Args:
        top5: [N, 5] outputs by falling logit.
        label: [N] the right output of each image; must lie in the mask.
        mask: the outputs that take part (ImageNet-A's or -R's 200).

    Raises:
        ValueError: a label outside the mask.
    """
    best, right = _lists(top5), np.asarray(label, dtype=np.int64)
    allowed = np.array(sorted(mask), dtype=np.int64)
    if not np.isin(right, allowed).all():
        raise ValueError("images of classes outside the mask: leave them out before re-scoring")
    inside = np.isin(best, allowed)
    known = np.asarray(inside.any(axis=1))
    choice = best[np.arange(len(best)), inside.argmax(axis=1)]
    return Verdicts(choice == right, known)  # an unknown choice stands outside the mask, and so is no label


def unmasked(full_prediction: ArrayLike, label: ArrayLike, outputs: Sequence[int | Collection[int]]) -> Verdicts:
    """Verdicts as if the model had chosen among all its outputs, from rows in which a mask restricted it.

    Exact. Right where the output with the largest logit of all is one of the label's. Needs ``full_prediction`` and
    ``label`` of the masked rows, and the class map: the outputs of each class.

    Args:
        full_prediction: [N] the output with the largest logit, before any mask.
        label: [N] class of each image.
        outputs: for each class, its output or outputs (ObjectNet's classes have several, or none: always wrong).

    Raises:
        ProtocolMismatch: rows without ``full_prediction``.
    """
    whole = np.asarray(full_prediction, dtype=np.float64)  # pandas hands NaN for None
    if np.isnan(whole).any():
        raise ProtocolMismatch(
            f"{int(np.isnan(whole).sum())} rows do not say what the model chose among all of its outputs",
            "where the protocol had no mask, take their prediction; else evaluate them again",
        )
    groups = [{entry} if isinstance(entry, (int, np.integer)) else set(entry) for entry in outputs]
    right = [int(choice) in groups[k] for choice, k in zip(whole, np.asarray(label, dtype=np.int64), strict=True)]
    correct = np.array(right, dtype=bool)
    return Verdicts(correct, np.ones(correct.shape, dtype=bool))


def objectnet_protocols(
    full_prediction: ArrayLike,
    label: ArrayLike,
    outputs: Sequence[Collection[int]],
    prediction: ArrayLike | None = None,
    total: int | None = None,
    level: float = 0.95,
) -> dict[str, Score]:
    """ObjectNet's three protocols from one set of rows; their names are those of the dataset's setting ``protocol``.

    ``official``: the model chooses among all its outputs; images of the classes that have outputs. ``sublist``: it
    chooses among those classes alone, each with the largest of its outputs. ``all-images``: as official, divided by the
    images of all classes.

    Args:
        full_prediction: [N] the output with the largest logit, before any mask; see ``unmasked``.
        label: [N] class of each image.
        outputs: for each class its outputs, empty where it has none.
        prediction: [N] class chosen under the mask, where the rows have it (rule ``subset``); without it ``sublist``
            is missing.
        total: number of images of all 313 classes, where the rows hold only those of classes with outputs; without it,
            and without rows of other classes, ``all-images`` is missing.
        level: confidence of Wilson's intervals.

    Raises:
        ProtocolMismatch: rows without ``full_prediction``.
        ValueError: ``total`` is smaller than the number of rows.
    """
    kinds = np.asarray(label, dtype=np.int64)
    answered = np.array([len(group) > 0 for group in outputs])[kinds]
    right = unmasked(full_prediction, kinds, outputs).correct
    everything = len(kinds) if total is None and not answered.all() else total
    if everything is not None and everything < len(kinds):
        raise ValueError(f"{everything} images in all, but {len(kinds)} rows")
    scores = {
        "official": share(int(right.sum()), int(answered.sum()), level=level),
        "sublist": share(0, 0, level=level),
        "all-images": share(int(right.sum()), everything, level=level) if everything else share(0, 0, level=level),
    }
    if prediction is not None:
        hits = (np.asarray(prediction) == kinds)[answered]
        scores["sublist"] = share(int(hits.sum()), hits.size, level=level)
    return scores


def rebased(ce: Mapping[str, float], old: str, new: str, *, relative: bool = False) -> dict[str, float]:
    """Corruption errors under another baseline: multiplied by the old reference's errors, divided by the new one's.

    Exact, for relative corruption errors too. Needs CE of every corruption: mCE alone cannot be converted, because it
    is their mean.

    Args:
        ce: corruption → CE under ``old``, of all of its corruptions.
        old: the baseline they were computed with.
        new: another, over the same corruptions.
        relative: are they relative CE?

    Raises:
        ProtocolMismatch: the baselines are of other corruptions, or some are missing.
    """
    ours, theirs = error_baseline(old), error_baseline(new)
    if set(ours.error) != set(theirs.error):
        raise ProtocolMismatch(f"{old} and {new} are baselines of different corruptions")
    lacking = [name for name in ours.error if name not in ce]
    if lacking:
        raise ProtocolMismatch(f"CE of {', '.join(lacking)} is missing", "CE of every corruption is needed")
    a, b = (ours.clean, theirs.clean) if relative else (0.0, 0.0)
    return {name: ce[name] * (ours.error[name] - a) / (theirs.error[name] - b) for name in theirs.error}


def _lists(top5: Sequence[Sequence[int]] | NDArray[np.int64]) -> NDArray[np.int64]:
    """[N, k] of lists of equal length, as pandas hands them too."""
    return np.array([np.asarray(row, dtype=np.int64) for row in top5], dtype=np.int64).reshape(len(top5), -1)
