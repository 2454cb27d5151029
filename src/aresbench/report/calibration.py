"""Whether each model is right as often as it is sure, on images as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aresbench.metrics import Score
from aresbench.metrics.calibration import aurra, expected_calibration_error, rms_calibration_error
from aresbench.report.reading import Reading


@dataclass(frozen=True)
class Calibration:
    """ECE (15 bins of equal width), RMS calibration error (100 images a bin) and AURRA of one model's clean task."""

    ece: Score
    rms: Score
    aurra: Score


def calibration(models: Mapping[str, Sequence[Reading]]) -> dict[str, Calibration]:
    """Model → calibration on its clean task, on a natural shift too; models that have one."""
    found = {}
    for model, group in models.items():
        clean = next((r for r in group if r.kind == "clean"), None)
        if clean is not None and "confidence" in clean.images:
            sure = clean.images["confidence"].to_numpy(dtype=float).clip(0.0, 1.0)
            right = clean.correct.to_numpy()
            found[model] = Calibration(
                expected_calibration_error(sure, right), rms_calibration_error(sure, right), aurra(sure, right)
            )
    return found
