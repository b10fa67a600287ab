"""Precision, recall and F1 over confidence, and the confusion matrix."""

import numpy as np
from jaxtyping import Bool, Float, Int

from yolo_cli.evaluation.eval_data import EvalData, Predictions
from yolo_cli.evaluation.matching import IGNORED, UNMATCHED, greedy_match

CONFUSION_CONFIDENCE = 0.25
SAMPLES = 1000


class ConfidenceCounts:
    """How many predictions of each class reach each of SAMPLES confidences, and how many of them are correct.

    The counts are exact; nothing is smoothed.
    """

    def __init__(self, classes: int) -> None:
        self.confidence = np.linspace(0, 1, SAMPLES)
        # The last axis is the number of samples that a prediction reaches.
        self._counted, self._right = np.zeros((2, classes, SAMPLES + 1), dtype=np.int64)

    def add(
        self,
        class_id: Int[np.ndarray, " n"],
        confidence: Float[np.ndarray, " n"],
        counted: Bool[np.ndarray, " n"],
        right: Bool[np.ndarray, " n"],
    ) -> None:
        """Add predictions: which of them count, and which of these are correct."""
        cell = class_id * (SAMPLES + 1) + np.searchsorted(self.confidence, confidence, side="right")
        for counts, chosen in ((self._counted, counted), (self._right, right)):
            counts.ravel()[:] += np.bincount(cell[chosen], minlength=counts.size)

    def merge(self, other: "ConfidenceCounts") -> None:
        """Add the counts of other predictions."""
        self._counted += other._counted
        self._right += other._right

    def curves(
        self, class_ids: Int[np.ndarray, " present"], labels: Int[np.ndarray, " present"]
    ) -> tuple[
        Float[np.ndarray, "present samples"], Float[np.ndarray, "present samples"], Float[np.ndarray, "present samples"]
    ]:
        """Precision (nan without predictions), recall and F1 of the classes in `class_ids`, over the confidence."""
        predicted, right = (
            np.cumsum(counts[class_ids, :0:-1], axis=1)[:, ::-1] for counts in (self._counted, self._right)
        )
        boxes = labels[:, None]
        precision = np.divide(right, predicted, out=np.full(right.shape, np.nan), where=predicted > 0)
        return precision, right / boxes, 2 * right / (predicted + boxes)


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
