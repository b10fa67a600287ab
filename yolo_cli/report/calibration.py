"""Confidence against precision."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from yolo_cli.report.intervals import Proportion
from yolo_cli.report.tide import CORRECT, NOT_COUNTED, Errors

BINS = 10


@dataclass(frozen=True)
class CalibrationBin:
    """Predictions with a confidence from `low` to below `high` (the last bin includes `high`)."""

    low: float
    high: float
    confidence: float  # mean; nan without predictions
    precision: Proportion
    predictions: Bool[np.ndarray, " n"]  # which predictions are in the bin
    wrong: Bool[np.ndarray, " n"]  # and which of them are wrong


@dataclass(frozen=True)
class Calibration:
    """Bins of equal width from the threshold to 1.

    `error` is the expected calibration error (Guo et al., On Calibration of Modern Neural Networks, 2017): the mean
    distance of confidence and precision over the predictions; nan without predictions.
    """

    bins: tuple[CalibrationBin, ...]
    error: float


def calibrate(confidence: Float[np.ndarray, " n"], errors: Errors, threshold: float) -> Calibration:
    """The calibration of predictions at or above a confidence threshold.

    Those below would hide it: most are background with a confidence near 0, which any detector gets right.
    """
    counted = (confidence >= threshold) & (errors.kind != NOT_COUNTED)
    edges = np.linspace(min(threshold, 1.0), 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, BINS - 1)
    bins, distance = [], 0.0
    for i in range(BINS):
        inside = counted & (place == i)
        right = inside & (errors.kind == CORRECT)
        precision = Proportion(int(right.sum()), int(inside.sum()))
        mean = float(confidence[inside].mean()) if precision.count else float("nan")
        distance += precision.count * abs(mean - precision.value) if precision.count else 0.0
        bins.append(CalibrationBin(float(edges[i]), float(edges[i + 1]), mean, precision, inside, inside & ~right))
    total = int(counted.sum())
    return Calibration(tuple(bins), distance / total if total else float("nan"))
