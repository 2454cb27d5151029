"""One number of two models, and the numbers over many corruptions that two models share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aresbench.metrics import Score, paired_difference
from aresbench.metrics.baselines import CORRUPTIONS, EXTRAS
from aresbench.metrics.corruption_error import mce_difference, mean_corruption_error, missing_conditions
from aresbench.metrics.resample import bootstrap_mean
from aresbench.report.corruptions import BASELINE, correct_rows, doses, modes, shares, unlike_alexnet
from aresbench.report.reading import Reading, common_ids
from aresbench.report.words import plain

Match = tuple[Reading, Reading]


@dataclass(frozen=True)
class Pair:
    """One number of two models, on the images that both have.

    Args:
        dataset, task, measure: what was measured.
        first, second: each model's score on the common images.
        difference: first − second, paired by image; its interval resamples images in pairs.
        p_value: exact McNemar test (both right equally often); ``None`` where the number is no share of verdicts.
        only_first: images on which only the first model is right.
        only_second: images on which only the second one is.
    """

    dataset: str
    task: str
    measure: str
    first: Score
    second: Score
    difference: Score
    p_value: float | None = None
    only_first: int | None = None
    only_second: int | None = None

    @property
    def decided(self) -> bool:
        """The interval of the difference leaves zero out."""
        return self.difference.low > 0 or self.difference.high < 0

    @property
    def points(self) -> str:
        """The difference in percentage points: ``+12.3 [+8.0, +16.7]``."""
        d = self.difference
        return f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"

    def __str__(self) -> str:
        what = f"{self.dataset} · {self.task} · {self.measure}"
        return f"{what}: {plain(self.first)} vs {plain(self.second)}, {self.points} points"


def mean_pairs(matches: Sequence[Match]) -> list[Pair]:
    """Mean accuracy over the corruption tasks that two models share, and mCE where all of the benchmark is there.

    Each mode has numbers of its own; an image counts with all of its conditions together.
    """
    pairs = []
    for home in dict.fromkeys(one.home for one, _ in matches):
        here = [match for match in matches if match[0].home == home]
        for mode in modes(one for one, _ in here):
            pairs += _of_mode(home, mode, here)
    return pairs


def _of_mode(home: str, mode: str, matches: Sequence[Match]) -> list[Pair]:
    """The extras take no part: they belong to no mean of the benchmark."""
    first, second = (doses([match[side] for match in matches], mode) for side in (0, 1))
    shared = [key for key in first if key in second and key[0] not in EXTRAS]
    if len(shared) < 2:
        return []
    a, b = ({key: side[key] for key in shared} for side in (first, second))
    every = [*a.values(), *b.values()]
    ids = common_ids(every)
    if not len(ids):
        return []
    task = f"{len(shared)} corruption tasks ({mode})"
    means = shares(list(a.values()), ids), shares(list(b.values()), ids)
    scores = [bootstrap_mean(part, (0.0, 1.0)) for part in means]
    pairs = [Pair(home, task, "mean accuracy", scores[0], scores[1], paired_difference(*means))]
    a, b = ({key: r for key, r in side.items() if key[0] in CORRUPTIONS} for side in (a, b))
    if missing_conditions(correct_rows(a, ids)) or any(map(unlike_alexnet, every)):
        return pairs
    rows = correct_rows(a, ids), correct_rows(b, ids)
    errors = [mean_corruption_error(part, BASELINE) for part in rows]
    label = f"mCE ↓ ({BASELINE})"
    pairs.append(Pair(home, task, label, errors[0], errors[1], mce_difference(*rows, BASELINE)))
    clean = next((match for match in matches if match[0].kind == "clean"), None)
    if clean is not None and len(both := common_ids([*every, *clean])) == len(ids):
        untouched = (clean[0].correct.reindex(both).to_numpy(bool), clean[1].correct.reindex(both).to_numpy(bool))
        rows = correct_rows(a, both), correct_rows(b, both)
        errors = [mean_corruption_error(part, BASELINE, own) for part, own in zip(rows, untouched, strict=True)]
        gap = mce_difference(*rows, BASELINE, untouched)
        pairs.append(Pair(home, task, f"relative {label}", errors[0], errors[1], gap))
    return pairs


def mode_gap(a: Sequence[Reading], b: Sequence[Reading]) -> str:
    """Says so where two models have corruptions on the same data in different modes alone; empty otherwise."""
    for home in dict.fromkeys(r.home for r in a):
        mine, theirs = (modes(r for r in side if r.home == home) for side in (a, b))
        if mine and theirs and not set(mine) & set(theirs):
            return (
                f"corruptions of {home} were measured in different modes ({', '.join(mine)} and {', '.join(theirs)}), "
                "which are different protocols"
            )
    return ""
