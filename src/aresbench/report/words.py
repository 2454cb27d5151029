"""Numbers and names as people read them, and the words that explain them."""

from __future__ import annotations

import math
from typing import Any

from aresbench.metrics import Score

MISSING = "–"

TITLE = "How robust is this model?"

DEFINITIONS = (
    ("Clean accuracy", "The share of images that the model gets right as they are."),
    (
        "Robust accuracy, accuracy under attack",
        "The share of images that are right on the clean image and stay right under the worst confirmed offer of every "
        "attack within the budget. It is an upper bound on the model's true robustness: an attack that was not tried, "
        "or a longer one, can only lower it.",
    ),
    (
        "Budget ε",
        "How far an attack may change the image. L∞ 4/255: no colour value of any pixel by more than 4 of its 255 "
        "steps. L2: the length of the whole change, with colours running from 0 to 1. Budgets are exact fractions.",
    ),
    (
        "Pinned budget",
        "A budget that is quoted as a number: attacked from the start with the full schedule unless the image had "
        "already broken within it. Budgets between pins are searched per image, cheap bounds first.",
    ),
    (
        "Breaking budget",
        "The smallest budget at which an image broke: 0 where the model was wrong without an attack. The curve over ε "
        "is the share of images whose breaking budget is larger, and so it can never rise.",
    ),
    (
        "Attack success rate",
        "Of the images that are right untouched, the share that broke within the budget. Lower is better, and models "
        "that are right on different images have different denominators: compare them by robust accuracy.",
    ),
    (
        "∪, all norms together",
        "The share of images right under every one of several budgets: one that breaks under any norm is lost, one "
        "that is wrong untouched is lost once.",
    ),
    (
        "In 8 bits",
        "Accuracy when only those breaks count that are still breaks within the budget once their image is rounded to "
        "256 levels, as a file stores it. Attacks did not look for such breaks, so it is an upper bound too.",
    ),
    (
        "Median breaking distance",
        "Half of the images broke at this distance or nearer (0 for one that is wrong untouched); ∞ where more than "
        "half never broke. It is the smallest confirmed distance found, never less than the true one.",
    ),
    (
        "Area",
        "The area under the accuracy curve over its whole range of budgets, over that of a perfect model: the mean "
        "accuracy under attack over the ladder, clean accuracy included.",
    ),
    (
        "Corruption, severity",
        "A change that happens without ill will (noise, blur, weather, compression) in a dose from 1, mild, to 5. The "
        "mean over corruptions counts every corruption and severity the same.",
    ),
    (
        "Mode of a corruption",
        "memory: the picture at the model's size, corrupted, rounded to 8 bits. disk: the same, saved as JPEG, as "
        "ImageNet-C was made. imagecorruptions: that package's variants. Files of a published set: the pictures "
        "themselves. They are different protocols with different numbers.",
    ),
    (
        "mCE, relative mCE ↓",
        "Mean corruption error: a model's errors on each of the fifteen corruptions of ImageNet-C, summed over the "
        "five severities and divided by AlexNet's, then averaged; 100 % is as bad as AlexNet, lower is better. "
        "Relative: how much errors grow from the clean images, over AlexNet's growth. AlexNet's errors on all 50,000 "
        "published images (alexnet-50k) and on RobustBench's 5,000 are different baselines.",
    ),
    (
        "Natural shift, drop",
        "Photographs of the same classes gathered elsewhere or otherwise. The drop is the accuracy on the parent "
        "dataset less that on the shift, under one class rule.",
    ),
    (
        "Effective robustness, baseline",
        "Accuracy on the shift less what ordinary models of the same accuracy on the parent reach, by a named line "
        "through many models. Within the scatter of those models (the band) it is no finding.",
    ),
    (
        "ECE, RMS calibration error, AURRA",
        "Is a model right as often as it is sure? ECE ↓ and RMS ↓ are gaps between confidence and accuracy; chance "
        "alone makes them larger on few images. AURRA is the mean accuracy when the surest images are answered first.",
    ),
    (
        "95 % interval, n",
        "What the number could be for other images of the same kind: Wilson's interval for shares, resampling of "
        "images for means and areas. n is the number of images. It says nothing about attacks that were not tried. The "
        "band of a curve is wider: it holds the whole curve at once with 95 %.",
    ),
    (
        "Who broke it",
        "Which attacks found a confirmed break within the budget. Later attacks in a task meet only what the earlier "
        "ones left standing, so their share is what they added.",
    ),
    ("Flag", "A reason to doubt a number, with what it means and what to do about it."),
)

CITATION = """\
@article{liu2024comprehensive,
  title   = {A Comprehensive Study on Robustness of Image Classification Models: Benchmarking and Rethinking},
  author  = {Liu, Chang and Dong, Yinpeng and Xiang, Wenzhao and Yang, Xiao and Su, Hang and Zhu, Jun
             and Chen, Yuefeng and He, Yuan and Xue, Hui and Zheng, Shibao},
  journal = {International Journal of Computer Vision},
  year    = {2024},
  note    = {arXiv:2302.14301}
}"""


def number(value: float, unit: str = "%", n: int = 1000) -> str:
    """``64.3 %``; whole percents under 100 images, whose share has no finer step; ``∞``; ``–`` where missing."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞"
    if unit == "%":
        return f"{100 * value:.{1 if n >= 100 else 0}f}\u202f%"
    return f"{value:.4g} {unit}".strip()


def interval(score: Score) -> str:
    """``58.7–69.5 %``, ``–`` where missing."""
    if score.missing:
        return MISSING
    low, high = (number(v, score.unit, score.n) for v in (score.low, score.high))
    return f"{low.removesuffix(score.unit).rstrip()}–{high}"


def points(score: Score) -> tuple[str, str]:
    """A difference of shares in percentage points, and its interval: ``+3.2``, ``+1.0 … +5.4``."""
    digits = 1 if score.n >= 100 else 0
    value, low, high = (f"{100 * v:+.{digits}f}" for v in (score.value, score.low, score.high))
    return value, f"{low} … {high}"


def plain(score: Score | None) -> str:
    """A score in one line: ``64.3 % [58.7–69.5 %]``, ``–`` where missing."""
    return (
        MISSING if score is None or score.missing else f"{number(score.value, score.unit, score.n)} [{interval(score)}]"
    )


def many(value: int | float) -> str:
    """``1 234 567`` with thin spaces."""
    return f"{value:,.0f}".replace(",", "\u202f")


def counted(n: int, one: str, several: str = "") -> str:
    """``1 model``, ``3 models``."""
    return f"{many(n)} {one if n == 1 else several or one + 's'}"


def parameters(value: Any) -> str:
    """``4.65 million parameters``."""
    if not isinstance(value, int | float) or value != value:
        return ""
    if value >= 1e6:
        return f"{value / 1e6:.3g} million parameters"
    return f"{many(value)} parameters"
