"""Precision, recall and F1 over confidence, and the confusion matrix."""

import numpy as np
from jaxtyping import Float, Int

from yolo_cli.evaluation.eval_data import EvalData, Predictions
from yolo_cli.evaluation.matching import IGNORED, UNMATCHED, greedy_match

CONFUSION_CONFIDENCE = 0.25
SAMPLES = 1000


def confidence_curves(
    data: EvalData, class_ids: Int[np.ndarray, " present"], classes: int
) -> tuple[
    Float[np.ndarray, " samples"],
    Float[np.ndarray, "present samples"],
    Float[np.ndarray, "present samples"],
    Float[np.ndarray, "present samples"],
]:
    """Confidence, precision (nan without predictions), recall and F1 at IoU 0.5 of the classes in `class_ids`.

    Each sample has the exact counts of the predictions with at least its confidence; nothing is smoothed.
    """
    match = greedy_match(data.ground_truth, data.predictions, classes=classes)
    counted = match != IGNORED
    labels = np.bincount(data.ground_truth.class_id[~data.ground_truth.crowd], minlength=classes)[class_ids, None]
    confidence = np.linspace(0, 1, SAMPLES)
    predicted = _count_from(data.predictions, counted, class_ids, confidence)
    correct = _count_from(data.predictions, counted & (match != UNMATCHED), class_ids, confidence)
    precision = np.divide(correct, predicted, out=np.full(correct.shape, np.nan), where=predicted > 0)
    return confidence, precision, correct / labels, 2 * correct / (predicted + labels)


def _count_from(
    predictions: Predictions,
    selected: np.ndarray,
    class_ids: Int[np.ndarray, " present"],
    thresholds: Float[np.ndarray, " samples"],
) -> Int[np.ndarray, "present samples"]:
    """The number of selected predictions of each class with at least the confidence of each threshold."""
    class_id, confidence = predictions.class_id[selected], predictions.confidence[selected]
    order = np.lexsort((confidence, class_id))
    class_id, confidence = class_id[order], confidence[order]
    start = np.searchsorted(class_id, class_ids, side="left")
    stop = np.searchsorted(class_id, class_ids, side="right")
    rows = [b - a - np.searchsorted(confidence[a:b], thresholds, side="left") for a, b in zip(start, stop, strict=True)]
    return np.array(rows, dtype=np.int64).reshape(len(class_ids), len(thresholds))


def confusion_matrix(data: EvalData, classes: int, *, confidence: float, iou: float) -> Int[np.ndarray, "side side"]:
    """Counts by predicted class (row) and true class (column); background is last in both.

    Predictions of at least `confidence` are matched with ground truth of any class by `greedy_match`; between equal
    IoUs, ground truth of the same class is preferred. Predictions in a crowd region of their class are left out.
    """
    confident = data.predictions.confidence >= confidence
    predictions = Predictions(
        *(getattr(data.predictions, name)[confident] for name in ("image", "class_id", "xywh", "confidence"))
    )
    limit = len(predictions.image)
    match = greedy_match(data.ground_truth, predictions, classes=classes, iou=iou, by_class=False, limit=limit)
    counted = match != IGNORED
    predicted_class, match = predictions.class_id[counted], match[counted]
    gt_class = data.ground_truth.class_id
    true_class = np.where(match == UNMATCHED, classes, gt_class[match] if len(gt_class) else classes)
    missed = ~data.ground_truth.crowd
    missed[match[match != UNMATCHED]] = False
    matrix = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    np.add.at(matrix, (predicted_class, true_class), 1)
    np.add.at(matrix, (classes, gt_class[missed]), 1)
    return matrix
