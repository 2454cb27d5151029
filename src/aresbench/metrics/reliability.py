"""Can a robustness number be believed? Counts in, named verdicts out.

Each verdict asks one question about an attack that left images standing (Carlini et al. 2019, section 5;
Pintor et al. 2022, "Indicators of Attack Failure"). Where images are counted, the answer is doubtful if they are
more than chance allows should the true share be ``TOLERATED``: attacks that do their work miss a few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aresbench.metrics.binomial import pmf

TOLERATED = 0.05
"""Share of the images left standing that a good attack may still have missed."""
ALPHA = 0.01
"""A verdict speaks up where what was seen would happen less often than this under ``TOLERATED``."""
BLIND = 0.01
"""Share of gradients that may be zero or NaN."""
UNCONFIRMED = 0.005
"""Share of attempts that may fool the fast copy of a model alone: float noise."""

VERDICTS: dict[str, tuple[str, str]] = {
    "zero-gradients": (
        "Do gradients vanish?",
        "gradient attacks are blind there, robustness may be overestimated: attack with logits only as well (square)",
    ),
    "nan-gradients": (
        "Are gradients NaN or infinite?",
        "gradient attacks are blind there, robustness may be overestimated: attack with logits only as well (square)",
    ),
    "loss-does-not-rise": (
        "Do the attack's steps gain more than as many random points of the budget?",
        "the gradient points nowhere: look for steps, rounding or noise inside the model; attack with logits only "
        "(square) and through aresbench.Bpda",
    ),
    "large-eps-resisted": (
        "Does a very large budget, in which every image can become grey, break every image?",
        "no model is robust there, so the attack fails: its other budgets cannot be believed either",
    ),
    "logit-scale-matters": (
        "Does PGD on the margin, or on rescaled logits, break what the attacks left standing?",
        "the cross-entropy saturates or is flat: attack with apgd-dlr, apgd-t or pgd(loss=margin) as well",
    ),
    "black-box-beats-white-box": (
        "Do attacks that see no gradient break what gradients left standing?",
        "gradients mislead here: add square to the attacks, with many queries, and look for what masks the gradient",
    ),
    "transfer-beats-white-box": (
        "Do images found through a copy with a straight-through input layer, or on surrogates, break the model?",
        "something hides the gradient, often before the first layer: attack through aresbench.Bpda",
    ),
    "starts-disagree": (
        "Does the same attack with other random draws break what it left standing?",
        "the attack has not converged: give it more steps and restarts",
    ),
    "not-deterministic": (
        "Do two passes over the same images agree?",
        "a single draw is judged: quote robust accuracy over many draws for a randomised defence",
    ),
    "offers-rejected": (
        "Did an attack leave its budget?",
        "an attack that leaves its budget has a bug: report it to its author",
    ),
    "unconfirmed-breaks": (
        "Does the model itself confirm what fooled its fast copy?",
        "margins below float noise; they count as resisted. Many of them point to a non-deterministic model",
    ),
}
"""Every verdict: what it asks, and what to do where the answer is bad."""


@dataclass(frozen=True)
class Verdict:
    """The answer to one question about a number.

    Args:
        name: one of ``VERDICTS``.
        doubt: is there reason to doubt the number?
        message: what was seen, with its figures.
        evidence: the figures as plain data.
        level: ``warning``, ``error`` (an attack broke the rules) or ``info`` (good to know).
    """

    name: str
    doubt: bool
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    level: str = "warning"

    @property
    def question(self) -> str:
        """What was asked."""
        return VERDICTS[self.name][0]

    @property
    def remedy(self) -> str:
        """What to do about a doubt."""
        return VERDICTS[self.name][1]


def chance(count: int, n: int, tolerated: float = TOLERATED) -> float:
    """Probability of ``count`` or more of n images if each is one with probability ``tolerated`` (exact)."""
    if count <= 0 or n <= 0:
        return 1.0
    return min(1.0, float(pmf(n, tolerated)[count:].sum()))


def counted(name: str, count: int, n: int, what: str, **evidence: Any) -> Verdict:
    """A verdict on images that should hardly exist.

    Args:
        name: of the verdict.
        count: images that speak against the number.
        n: images looked at.
        what: the finding in words, with ``{count} of {n}`` where the figures belong.
        evidence: further figures.
    """
    p = chance(count, n)
    likelihood = f"p = {p:.1g}" if p >= 1e-6 else "p < 1e-6"
    message = f"{what.format(count=count, n=n)} ({likelihood} if a good attack may miss {TOLERATED:.0%})"
    return Verdict(name, p < ALPHA, message, {"count": count, "n": n, "p": p, **evidence})


def blind_gradients(zero: ArrayLike, nan: ArrayLike, backwards: ArrayLike) -> list[Verdict]:
    """Shares of gradients that were zero everywhere, or not finite, over all attempts.

    Args:
        zero, nan: [N] how many of an attempt's gradients were.
        backwards: [N] its backward passes.
    """
    passes = max(1, int(np.sum(backwards)))
    verdicts = []
    for name, values, words in (
        ("zero-gradients", zero, "were zero everywhere"),
        ("nan-gradients", nan, "held NaN or infinity"),
    ):
        count = int(np.sum(values))
        share = count / passes
        evidence = {"share": share, "count": count, "n": passes, "limit": BLIND}
        verdicts.append(Verdict(name, share > BLIND, f"{share:.0%} of all gradients {words}", evidence))
    return verdicts


def rule_breaks(rejected: ArrayLike, verdict: Sequence[str]) -> list[Verdict]:
    """Offers outside the budget, and breaks that the model itself did not confirm.

    Args:
        rejected: [N] offers of an attempt that lay outside.
        verdict: [N] ``broken``, ``resisted``, ``unconfirmed`` …
    """
    outside, n = int(np.sum(rejected)), len(verdict)
    unsure = sum(v == "unconfirmed" for v in verdict)
    few = unsure <= UNCONFIRMED * n
    return [
        Verdict(
            "offers-rejected",
            outside > 0,
            f"{outside} candidates lay outside the budget or the box and were not counted",
            {"count": outside},
            "error",
        ),
        Verdict(
            "unconfirmed-breaks",
            unsure > 0,
            f"{unsure} of {n} attempts fooled the fast copy of the model but not the model itself",
            {"count": unsure, "n": n, "share": unsure / max(1, n), "limit": UNCONFIRMED},
            "info" if few else "warning",
        ),
    ]


def black_box(
    image: Sequence[str], eps: Sequence[str], blind: ArrayLike, broken: ArrayLike
) -> tuple[int, int, str] | None:
    """How many images attacks without gradients broke at a budget where every gradient attack had failed.

    Only images that both kinds attacked inside that budget count. Returns (broken, n, budget) of the budget that
    speaks loudest against the gradients, ``None`` where no image saw both kinds.

    Args:
        image, eps: [N] id and budget of each attempt; attempts at any distance (``""``) say nothing here.
        blind: [N] bool, the attack sees no gradient.
        broken: [N] bool, the attempt broke its image.
    """
    seen: dict[str, dict[str, list[bool | None]]] = {}
    columns = zip(image, eps, np.asarray(blind, bool), np.asarray(broken, bool), strict=True)
    for one, size, without, won in columns:
        if size:
            pair = seen.setdefault(size, {}).setdefault(one, [None, None])
            pair[int(without)] = bool(won) or bool(pair[int(without)])
    found = []
    for size, images in seen.items():
        tried = [pair[1] for pair in images.values() if pair[0] is False and pair[1] is not None]
        if tried:
            found.append((sum(tried), len(tried), size))
    return min(found, key=lambda f: (chance(f[0], f[1]), -f[1])) if found else None


def rises(at_start: ArrayLike, attack: ArrayLike, random: ArrayLike) -> np.ndarray:
    """[N] bool: did the attack take an image further than it was, and further than random points of the budget?

    Args:
        at_start: [N] lead of the best wrong class over the true one, in logits, at the image itself.
        attack: [N] the largest lead among the points that the attack asked about.
        random: [N] the largest lead among as many random points.
    """
    start, found, luck = (np.asarray(v, np.float64) for v in (at_start, attack, random))
    return found > np.maximum(start, luck)


def repeatable(first: ArrayLike, second: ArrayLike) -> Verdict:
    """Do two passes over the same images agree up to float noise?

    Args:
        first, second: [N, K] logits.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    known = np.isfinite(a) & np.isfinite(b)
    change = float(np.abs(np.where(known, a - b, 0.0)).max(initial=0.0))
    size = float(np.abs(np.where(known, a, 0.0)).max(initial=0.0))
    flipped = int((a.argmax(1) != b.argmax(1)).sum()) if len(a) else 0
    return Verdict(
        "not-deterministic",
        change > 1e-5 * max(1.0, size),
        f"two passes over the same {len(a)} images differ by up to {change:.2g}; {flipped} change class",
        {"largest_change": change, "largest_logit": size, "flipped": flipped, "n": len(a)},
    )
