"""What follows from matches: confidence curves and the confusion matrix."""

import numpy as np
from jaxtyping import Float, Int

from yolo_cli.evaluation.eval_data import Columns, Predictions
from yolo_cli.evaluation.matching import MISSED, NOT_COUNTED, greedy_match

CONFUSION_CONFIDENCE = 0.25
SAMPLES = 1000


def confidence_curves(
    data: Columns, class_ids: Int[np.ndarray, " present"], classes: int
) -> tuple[
    Float[np.ndarray, " samples"],
    Float[np.ndarray, "present samples"],
    Float[np.ndarray, "present samples"],
    Float[np.ndarray, "present samples"],
]:
    """Confidence grid, precision (nan where nothing is found), recall and F1 at IoU 0.5 of the classes in `class_ids`.

    Exact counts of the detections at or above each of 1000 confidences from 0 to 1, in nothing smoothed.
    """
    match = greedy_match(data.truths, data.found, classes=classes)
    counted = match != NOT_COUNTED
    labels = np.bincount(data.truths.class_id[~data.truths.crowd], minlength=classes)[class_ids, None]
    grid = np.linspace(0, 1, SAMPLES)
    claimed = _at_or_above(data.found, counted, class_ids, grid)
    right = _at_or_above(data.found, counted & (match != MISSED), class_ids, grid)
    precision = np.divide(right, claimed, out=np.full(right.shape, np.nan), where=claimed > 0)
    return grid, precision, right / labels, 2 * right / (claimed + labels)


def _at_or_above(
    found: Predictions,
    chosen: np.ndarray,
    class_ids: Int[np.ndarray, " present"],
    grid: Float[np.ndarray, " samples"],
) -> Int[np.ndarray, "present samples"]:
    """How many of the chosen detections of each class have at least each confidence of the grid."""
    class_id, confidence = found.class_id[chosen], found.confidence[chosen]
    order = np.lexsort((confidence, class_id))
    class_id, confidence = class_id[order], confidence[order]
    start = np.searchsorted(class_id, class_ids, side="left")
    stop = np.searchsorted(class_id, class_ids, side="right")
    rows = [b - a - np.searchsorted(confidence[a:b], grid, side="left") for a, b in zip(start, stop, strict=True)]
    return np.array(rows, dtype=np.int64).reshape(len(class_ids), len(grid))


def confusion_matrix(data: Columns, classes: int, *, confidence: float, iou: float) -> Int[np.ndarray, "side side"]:
    """Counts with predicted classes in rows, true ones in columns, and background last in both.

    Classes compete for truths: on an image, detections of at least `confidence` choose in order of confidence among the
    free truths of any class the one they overlap best, its own class first where two overlap equally. Detections in a
    crowd region of their class are left out.
    """
    sure = data.found.confidence >= confidence
    found = Predictions(*(getattr(data.found, name)[sure] for name in ("image", "class_id", "xywh", "confidence")))
    match = greedy_match(data.truths, found, classes=classes, iou=iou, by_class=False, limit=len(found.image))
    counted = match != NOT_COUNTED
    found_class, match = found.class_id[counted], match[counted]
    true_class = np.where(match == MISSED, classes, data.truths.class_id[match] if len(data.truths.image) else classes)
    missed = ~data.truths.crowd
    missed[match[match != MISSED]] = False
    matrix = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    np.add.at(matrix, (found_class, true_class), 1)
    np.add.at(matrix, (classes, data.truths.class_id[missed]), 1)
    return matrix
