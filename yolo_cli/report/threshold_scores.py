"""Standard errors of precision, recall and F1 at one confidence threshold."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.report.tide import CORRECT, NOT_COUNTED, Errors


@dataclass(frozen=True, slots=True)
class ThresholdErrors:
    """Standard errors of the means over the classes with ground truth; nan for a single image."""

    precision: float
    recall: float
    f1: float


def threshold_errors(
    data: EvalData, errors: Errors, threshold: float, classes: int, *, resamples: int, seed: int = 0
) -> ThresholdErrors:
    """A bootstrap over images (Efron 1979), with the threshold fixed and predictions matched at IoU 0.5.

    A class without predictions counts with precision 0, as in `Metrics`.
    """
    images, pred, gt = len(data.sizes), data.predictions, data.ground_truth
    if images < 2 or not len(gt.image):
        return ThresholdErrors(math.nan, math.nan, math.nan)
    confident = pred.confidence >= threshold
    correct = _Counts(pred.image, pred.class_id, confident & (errors.kind == CORRECT), classes)
    predicted = _Counts(pred.image, pred.class_id, confident & (errors.kind != NOT_COUNTED), classes)
    labeled = _Counts(gt.image, gt.class_id, ~gt.crowd, classes)
    random = np.random.default_rng(seed)
    samples = np.empty((resamples, 3))
    for sample in samples:
        weight = np.bincount(random.integers(images, size=images), minlength=images).astype(float)
        true, every, labels = (counts.total(weight) for counts in (correct, predicted, labeled))
        present = labels > 0
        true, every, labels = true[present], every[present], labels[present]
        precision = np.divide(true, every, out=np.zeros_like(true), where=every > 0)
        sample[:] = precision.mean(), (true / labels).mean(), (2 * true / (every + labels)).mean()
    return ThresholdErrors(*samples.std(axis=0, ddof=1).tolist())


class _Counts:
    """Boxes by image and class, to be counted by class with a weight per image."""

    def __init__(
        self,
        image: Int[np.ndarray, " n"],
        class_id: Int[np.ndarray, " n"],
        chosen: Bool[np.ndarray, " n"],
        classes: int,
    ) -> None:
        self._image, self._class_id, self._classes = image[chosen], class_id[chosen], classes

    def total(self, weight: Float[np.ndarray, " images"]) -> Float[np.ndarray, " classes"]:
        counts = np.bincount(self._class_id, weights=weight[self._image], minlength=self._classes)
        return counts.astype(np.float64)  # without boxes they are whole numbers
