"""Rows in, numbers with intervals out; arrays, no torch and no archive."""

from aresbench.metrics.accuracy import (
    accuracy,
    attack_success_rate,
    median_breaking_distance,
    robust_accuracy,
    union_accuracy,
)
from aresbench.metrics.bands import clopper_pearson, simultaneous_band
from aresbench.metrics.budgets import breaking_values, worst_case
from aresbench.metrics.curve import (
    Curve,
    curve_area,
    earliest,
    image_areas,
    query_curve,
    severity_curve,
    step_curve,
    survival_curve,
)
from aresbench.metrics.paired import (
    McNemar,
    NonInferiority,
    images_to_prove,
    mcnemar,
    non_inferiority,
    paired_difference,
)
from aresbench.metrics.score import Score, share, wilson

__all__ = [
    "Curve",
    "McNemar",
    "NonInferiority",
    "Score",
    "accuracy",
    "attack_success_rate",
    "breaking_values",
    "clopper_pearson",
    "curve_area",
    "earliest",
    "image_areas",
    "images_to_prove",
    "mcnemar",
    "median_breaking_distance",
    "non_inferiority",
    "paired_difference",
    "query_curve",
    "robust_accuracy",
    "severity_curve",
    "share",
    "simultaneous_band",
    "step_curve",
    "survival_curve",
    "union_accuracy",
    "wilson",
    "worst_case",
]
