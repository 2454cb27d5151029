"""Named reference points that derived numbers are measured against: AlexNet's errors, and lines through many models.

A number such as mCE or effective robustness means nothing without the name of its baseline: baselines of different
names are different yardsticks. All values are facts of published result files, rounded as published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from aresbench.core.errors import UnknownName, did_you_mean
from aresbench.core.threat import IMAGENET_C, IMAGENET_C_EXTRA
from aresbench.metrics.score import Floats, normal_quantile

CORRUPTIONS = IMAGENET_C
"""The fifteen corruptions of ImageNet-C, in the paper's order: those, and only those, make mCE."""

EXTRAS = IMAGENET_C_EXTRA
"""The four extra corruptions, meant for tuning: never part of mCE."""

UNORDERED = ("snow", "elastic_transform")
"""Corruptions whose severities do not rise in harm (AlexNet errs more at snow 2 than at 3, and more at elastic 2 than
at 3 and 4): their curves over severity may go up, and nothing may be read between two severities."""


@dataclass(frozen=True)
class ErrorBaseline:
    """The errors of a reference model, by which corruption errors are divided.

    Args:
        name: what a number must be quoted with.
        error: corruption → the reference's top-1 error, a share, averaged over severities 1–5.
        clean: its error on clean images, a share; relative errors need it.
        source: where the figures come from, and on which images.
    """

    name: str
    error: Mapping[str, float]
    clean: float
    source: str


_50K = (
    0.886428, 0.894468, 0.92264, 0.81988, 0.826268, 0.785948, 0.79836, 0.866816,
    0.826572, 0.819324, 0.564592, 0.853204, 0.646056, 0.71784, 0.6065,
)  # fmt: skip
_5K = (
    0.8816, 0.88832, 0.91724, 0.82204, 0.8308, 0.78724, 0.79572, 0.868,
    0.83148, 0.82364, 0.55848, 0.85432, 0.64804, 0.71856, 0.6068,
)  # fmt: skip

ERROR_BASELINES: dict[str, ErrorBaseline] = {
    baseline.name: baseline
    for baseline in (
        ErrorBaseline(
            "alexnet-50k",
            dict(zip(CORRUPTIONS, _50K, strict=True)),
            0.435,
            "AlexNet on all 50,000 images of ImageNet-C (Hendrycks and Dietterich 2019)",
        ),
        ErrorBaseline(
            "alexnet-50k-extras",
            dict(zip(EXTRAS, (0.845388, 0.787108, 0.717512, 0.658248), strict=True)),
            0.435,
            "AlexNet on the four extra corruptions, all 50,000 images (Hendrycks and Dietterich 2019)",
        ),
        ErrorBaseline(
            "alexnet-robustbench-5k",
            dict(zip(CORRUPTIONS, _5K, strict=True)),
            1 - 0.5624,
            "AlexNet on RobustBench's 5,000 images (Croce et al. 2021)",
        ),
        ErrorBaseline(
            "alexnet-3dcc-5k",
            {
                "near_focus": 0.61068, "far_focus": 0.65152, "bit_error": 0.68336, "color_quant": 0.5962,
                "flash": 0.80124, "fog_3d": 0.77356, "h265_abr": 0.5674, "h265_crf": 0.5252, "iso_noise": 0.93152,
                "low_light": 0.82248, "xy_motion_blur": 0.82484, "z_motion_blur": 0.79588,
            },
            1 - 0.5624,
            "AlexNet on the 3D common corruptions (Kar et al. 2022), RobustBench's 5,000 images",
        ),
    )
}  # fmt: skip
"""Every reference of mCE by name. The mean runs over exactly the corruptions that the baseline names."""


def error_baseline(name: str) -> ErrorBaseline:
    """A reference of corruption errors by name.

    Raises:
        UnknownName: there is none of that name.
    """
    if name not in ERROR_BASELINES:
        raise UnknownName(
            f"there is no baseline {name!r} of corruption errors",
            did_you_mean(name, ERROR_BASELINES) or f"choose one of {', '.join(ERROR_BASELINES)}",
        )
    return ERROR_BASELINES[name]


@dataclass(frozen=True)
class Line:
    """What ordinary models reach on a shift, given their accuracy on its parent: a straight line on a stretched scale.

    Accuracies, as shares, are stretched by the logit ln(p / (1 − p)) or the probit (the normal quantile), and there
    the line is y = slope · x + intercept (Taori et al. 2020).

    Args:
        name: what a number must be quoted with.
        shift: the shifted dataset.
        parent: the dataset on the horizontal axis: ``imagenet``, or its images of the shift's own classes.
        slope: of the line.
        intercept: of the line.
        link: ``logit`` or ``probit``.
        r2: share of the variance that the line explains, on the stretched scale; ``None`` where not known.
        residual_sd: how far the models lie off the line, as a share of images (0.01 is one point, the standard
            deviation); ``None`` where not known.
        models: how many models it runs through.
        lowest: the smallest parent accuracy among them; below it the line is a guess.
        source: where it comes from.
    """

    name: str
    shift: str
    parent: str
    slope: float
    intercept: float
    link: Literal["logit", "probit"] = "logit"
    r2: float | None = None
    residual_sd: float | None = None
    models: int | None = None
    lowest: float = 0.0
    source: str = ""

    def expected(self, accuracy: ArrayLike) -> Floats:
        """The accuracy on the shift that an ordinary model of this parent accuracy has; any shape, shares."""
        return unstretched(self.slope * stretched(accuracy, self.link) + self.intercept, self.link)

    def band(self, accuracy: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats] | None:
        """Where ``level`` of ordinary models lie; ``None`` where the baseline's scatter is not known.

        Args:
            accuracy: on the parent, shares of any shape.
            level: share of the models, were their distances from the line normal.
        """
        if self.residual_sd is None:
            return None
        centre, half = self.expected(accuracy), normal_quantile(level) * self.residual_sd
        return np.clip(centre - half, 0.0, 1.0), np.clip(centre + half, 0.0, 1.0)


def stretched(accuracy: ArrayLike, link: str) -> Floats:
    """Shares on the logit or probit scale; 0 and 1 become infinite."""
    from scipy.special import logit, ndtri  # a heavy import, wanted for shifts alone

    return np.asarray(_link(link, logit, ndtri)(np.asarray(accuracy, dtype=np.float64)))


def unstretched(values: ArrayLike, link: str) -> Floats:
    """The way back from ``stretched``."""
    from scipy.special import expit, ndtr

    return np.asarray(_link(link, expit, ndtr)(np.asarray(values, dtype=np.float64)))


def _link(name, logit, probit):  # type: ignore[no-untyped-def]
    if name not in ("logit", "probit"):
        raise ValueError(f"the scale is 'logit' or 'probit', not {name!r}")
    return logit if name == "logit" else probit


_TESTBED = (
    "fitted to about 80 standard models of the ImageNet testbed (Taori et al. 2020) with at least 55 % on ImageNet; "
    "its pictures are resized to 256 and cropped to 224 pixels, those of ImageNet-C too"
)
# shift, parent, slope, intercept, R²
_TESTBED_LOGIT: tuple[tuple[str, str, float, float, float | None], ...] = (
    ("imagenet-v2-matched-frequency", "imagenet", 0.9232, -0.4977, 0.996),
    ("imagenet-v2-threshold-0.7", "imagenet", 1.0020, -0.1810, 0.994),
    ("imagenet-v2-top-images", "imagenet", 0.9816, 0.1221, 0.993),
    ("imagenet-sketch", "imagenet", 1.0709, -2.3701, 0.869),
    ("imagenet-r", "imagenet-r-clean", 0.6368, -2.1077, 0.889),
    ("imagenet-a", "imagenet-a-clean", 1.9900, -7.6325, 0.828),
    ("objectnet-sublist", "imagenet", 1.1993, -2.0243, None),
    ("objectnet-sublist", "imagenet-objectnet-classes", 0.9809, -1.9283, 0.953),
    ("imagenet-stylized", "imagenet", 1.3726, -2.8431, 0.78),
    ("imagenet-c", "imagenet", 1.2486, -1.8578, 0.894),
    ("imagenet-c-gaussian_noise", "imagenet", 1.83, -2.79, 0.85),
    ("imagenet-c-shot_noise", "imagenet", 1.84, -2.88, 0.85),
    ("imagenet-c-impulse_noise", "imagenet", 2.22, -3.46, 0.86),
    ("imagenet-c-defocus_blur", "imagenet", 1.24, -2.08, 0.87),
    ("imagenet-c-glass_blur", "imagenet", 0.73, -1.94, 0.66),
    ("imagenet-c-motion_blur", "imagenet", 1.22, -1.91, 0.88),
    ("imagenet-c-zoom_blur", "imagenet", 1.02, -1.78, 0.90),
    ("imagenet-c-snow", "imagenet", 1.45, -2.40, 0.90),
    ("imagenet-c-frost", "imagenet", 1.25, -2.02, 0.87),
    ("imagenet-c-fog", "imagenet", 1.41, -1.87, 0.91),
    ("imagenet-c-brightness", "imagenet", 1.11, -0.62, 0.94),
    ("imagenet-c-contrast", "imagenet", 1.31, -1.99, 0.74),
    ("imagenet-c-elastic_transform", "imagenet", 0.79, -1.14, 0.78),
    ("imagenet-c-pixelate", "imagenet", 1.39, -1.59, 0.78),
    ("imagenet-c-jpeg_compression", "imagenet", 1.24, -1.27, 0.89),
)
_TESTBED_PROBIT: tuple[tuple[str, str, float, float, float | None], ...] = (
    ("imagenet-v2-matched-frequency", "imagenet", 0.9617, -0.3247, 0.996),
    ("imagenet-sketch", "imagenet", 1.0435, -1.4259, None),
    ("imagenet-r", "imagenet-r-clean", 0.7719, -1.4212, None),
    ("objectnet-sublist", "imagenet-objectnet-classes", 1.0192, -1.2049, None),
    ("imagenet-c", "imagenet", 1.2880, -1.1640, 0.89),
)
_CLEAN_OF_55 = 0.77
"""Models of 55 % on ImageNet reach about this on its images of the classes of ImageNet-A, -R and ObjectNet."""
_TIMM = (
    "fitted to timm's published results of 2026 (Apache-2.0), one point a model and input size, with at least 55 % on "
    "ImageNet"
)
_TIMM_IN1K_ONLY = _TIMM + ", without models that were pre-trained on other data or learned from those that were"
# shift, parent, slope, intercept, R², residual standard deviation (share of images), lowest parent accuracy
_TIMM_ALL: tuple[tuple[str, str, float, float, float | None, float, float], ...] = (
    ("imagenet-v2-matched-frequency", "imagenet", 0.9227, -0.4960, 0.991, 0.0049, 0.56908),
    ("imagenet-sketch", "imagenet", 1.4635, -2.8595, 0.845, 0.0385, 0.56908),
    ("imagenet-r", "imagenet-r-clean", 1.0269, -3.1242, 0.752, 0.0497, 0.7809),
    ("imagenet-a", "imagenet-a-clean", 2.3640, -8.4634, 0.951, 0.0382, 0.7703),
    ("imagenet-real", "imagenet", 0.9035, 0.5327, 0.975, 0.0051, 0.56908),
)
_TIMM_IN1K: tuple[tuple[str, str, float, float, float | None, float, float], ...] = (
    ("imagenet-v2-matched-frequency", "imagenet", 0.9156, -0.4872, 0.992, 0.0044, 0.56908),
    ("imagenet-sketch", "imagenet", 1.1899, -2.5101, 0.861, 0.0256, 0.56908),
    ("imagenet-r", "imagenet-r-clean", 0.7614, -2.4221, 0.793, 0.0311, 0.7809),
    ("imagenet-a", "imagenet-a-clean", 2.4217, -8.6459, 0.927, 0.0346, 0.7703),
    ("imagenet-real", "imagenet", 0.9626, 0.4503, 0.985, 0.0041, 0.56908),
)


def _testbed(
    name: str,
    link: Literal["logit", "probit"],
    shift: str,
    parent: str,
    slope: float,
    intercept: float,
    r2: float | None,
) -> Line:
    lowest = 0.55 if parent == "imagenet" else _CLEAN_OF_55
    return Line(name, shift, parent, slope, intercept, link, r2, None, 80, lowest, _TESTBED)


LINES: tuple[Line, ...] = (
    *(_testbed("testbed-2020", "logit", *row) for row in _TESTBED_LOGIT),
    *(_testbed("testbed-2020-probit", "probit", *row) for row in _TESTBED_PROBIT),
    *(Line("timm-2026-all", *row[:4], "logit", *row[4:6], 1544, row[6], _TIMM) for row in _TIMM_ALL),
    *(Line("timm-2026-in1k", *row[:4], "logit", *row[4:6], 1023, row[6], _TIMM_IN1K_ONLY) for row in _TIMM_IN1K),
)
"""Every named line of effective robustness."""


def line(name: str, shift: str, parent: str = "") -> Line:
    """What ordinary models reach on ``shift``, by the baseline's name.

    Args:
        name: ``testbed-2020``, ``testbed-2020-probit``, ``timm-2026-in1k`` (trained on ImageNet-1k alone) or
            ``timm-2026-all`` (pre-trained on anything).
        shift: the dataset as its results name it: ``imagenet-v2-matched-frequency``, ``imagenet-sketch``,
            ``imagenet-c-fog`` …
        parent: where a baseline has lines over several horizontal axes (ObjectNet's over ``imagenet`` and over
            ``imagenet-objectnet-classes``), which one; the first by default.

    Raises:
        UnknownName: no such baseline, or it has no line for that shift; the remedy names those that do.
    """
    found = [
        candidate
        for candidate in LINES
        if (candidate.name, candidate.shift) == (name, shift) and parent in ("", candidate.parent)
    ]
    if found:
        return found[0]
    names = list(dict.fromkeys(candidate.name for candidate in LINES))
    if name not in names:
        remedy = did_you_mean(name, names) or f"choose one of {', '.join(names)}"
        raise UnknownName(f"there is no baseline {name!r} of effective robustness", remedy)
    having = [candidate.name for candidate in LINES if candidate.shift == shift and parent in ("", candidate.parent)]
    shifts = [candidate.shift for candidate in LINES if candidate.name == name]
    raise UnknownName(
        f"the baseline {name} has no line for {shift!r}" + (f" over {parent!r}" if parent else ""),
        f"a line for it has {' and '.join(dict.fromkeys(having))}"
        if having
        else did_you_mean(shift, shifts) or f"it has {', '.join(shifts)}",
    )


def lines_of(shift: str) -> tuple[Line, ...]:
    """All named lines for a shift; none where no published baseline is known."""
    return tuple(candidate for candidate in LINES if candidate.shift == shift)
