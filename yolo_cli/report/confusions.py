"""Which classes are taken for which."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from yolo_cli.evaluation.eval_data import EvalData, Predictions
from yolo_cli.evaluation.matching import UNMATCHED, greedy_match


@dataclass(frozen=True)
class Confusion:
    """Boxes of class `true` that predictions call `predicted`."""

    true: int
    predicted: int
    pairs: Int[np.ndarray, "k 2"]  # prediction, ground truth; the most confident first


def find_confusions(data: EvalData, classes: int, confidence: float, most: int) -> list[Confusion]:
    """The `most` frequent confusions, at IoU 0.5 and at least this confidence; the most frequent first.

    As in the confusion matrix, predictions are matched with ground truth of any class.
    """
    pred, gt = data.predictions, data.ground_truth
    chosen = np.flatnonzero(pred.confidence >= confidence)
    confident = Predictions(pred.image[chosen], pred.class_id[chosen], pred.xywh[chosen], pred.confidence[chosen])
    match = greedy_match(gt, confident, classes=classes, by_class=False, limit=max(len(chosen), 1))
    matched = np.flatnonzero(match > UNMATCHED)
    prediction, box = chosen[matched], match[matched]
    wrong = pred.class_id[prediction] != gt.class_id[box]
    prediction, box = prediction[wrong], box[wrong]
    order = np.argsort(-pred.confidence[prediction], kind="stable")
    pairs = np.stack([prediction[order], box[order]], axis=1)
    key = gt.class_id[pairs[:, 1]] * classes + pred.class_id[pairs[:, 0]]
    keys, counts = np.unique(key, return_counts=True)
    return [
        Confusion(int(k // classes), int(k % classes), pairs[key == k])
        for k in keys[np.argsort(-counts, kind="stable")][:most].tolist()
    ]
