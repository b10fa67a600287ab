"""Error types of detections, and how much AP each costs.

Bolya, Foley, Hays and Hoffman, TIDE: A General Toolbox for Identifying Object Detection Errors (ECCV 2020).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.matching import IGNORED, UNMATCHED, greedy_match, overlapping_pairs

FOREGROUND, BACKGROUND_IOU = 0.5, 0.1  # t_f and t_b of the paper
ERRORS = ("classification", "localization", "both", "duplicate", "background", "missed")
CORRECT, CLASSIFICATION, LOCALIZATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(-1, 6)  # from 0: index in ERRORS
NOT_COUNTED = -2  # a prediction in a crowd region, or beyond the 100 per class and image that COCO counts

_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True)
class Errors:
    """What each prediction is.

    `kind` is CORRECT, NOT_COUNTED or an index of ERRORS. `target` is the ground truth that a correct prediction
    matches, or that a classification or localization error would match; else -1.
    """

    kind: Int[np.ndarray, " n"]
    target: Int[np.ndarray, " n"]

    def found(self, boxes: int, selected: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " m"]:
        """Which of the ground truth boxes a correct prediction among the selected ones matches."""
        return _marked(boxes, self.target[selected & (self.kind == CORRECT)])

    def missed(self, data: EvalData, selected: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " m"]:
        """Ground truth that nothing selected matches, and to which no class or localization error belongs."""
        covering = selected & np.isin(self.kind, (CORRECT, CLASSIFICATION, LOCALIZATION))
        return ~_marked(len(data.ground_truth.image), self.target[covering]) & ~data.ground_truth.crowd


def find_errors(data: EvalData, classes: int) -> Errors:
    """Give each prediction a type.

    Correct predictions are those of COCO's matching at IoU 0.5. Of the others, the first that holds: the best box of
    its class has an IoU from 0.1 to 0.5 (localization); a box of another class has 0.5 or more (classification); a box
    of its class has 0.5 or more, which another prediction matches (duplicate); no box has 0.1 (background); else both.
    """
    gt, predictions = data.ground_truth, data.predictions
    match = greedy_match(gt, predictions, classes=classes, iou=FOREGROUND)
    pred, box, iou = overlapping_pairs(gt, predictions, BACKGROUND_IOU)
    real = ~gt.crowd[box]
    pred, box, iou = pred[real], box[real], iou[real]
    same = gt.class_id[box] == predictions.class_id[pred]
    own_iou, own_box = _best(len(match), pred[same], box[same], iou[same])
    other_iou, other_box = _best(len(match), pred[~same], box[~same], iou[~same])

    kind = np.full(len(match), BOTH)
    kind[(own_iou == 0) & (other_iou == 0)] = BACKGROUND
    kind[own_iou >= FOREGROUND] = DUPLICATE
    kind[other_iou >= FOREGROUND] = CLASSIFICATION
    kind[(own_iou > 0) & (own_iou < FOREGROUND)] = LOCALIZATION
    kind[match == IGNORED] = NOT_COUNTED
    kind[match >= 0] = CORRECT
    target = np.full(len(match), UNMATCHED)
    for code, of in ((CORRECT, match), (CLASSIFICATION, other_box), (LOCALIZATION, own_box)):
        target[kind == code] = of[kind == code]
    return Errors(kind, target)


def gains(data: EvalData, errors: Errors, classes: int) -> dict[str, float]:
    """What fixing all errors of one type would add to mAP@0.5 (0 … 1), by type; 0 without ground truth.

    Classification: the prediction gets the class of its box. Localization: it gets the place of its box. It is removed
    instead if the box has a correct prediction, or a more confident one that is fixed. Both, duplicate and background:
    the prediction is removed. Missed: the boxes no longer count. The gains do not add up to 1 − mAP, since errors hide
    each other.
    """
    gt, predictions = data.ground_truth, data.predictions
    boxes = np.bincount(gt.class_id[~gt.crowd], minlength=classes)
    if not boxes.any():
        return dict.fromkeys(ERRORS, 0.0)
    counted = errors.kind != NOT_COUNTED
    correct = errors.kind == CORRECT

    def mean_ap(
        keep: Bool[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], class_id: Int[np.ndarray, " n"]
    ) -> float:
        ap = average_precision(class_id[keep], predictions.confidence[keep], correct[keep], boxes)
        return float(np.nanmean(ap))

    base = mean_ap(counted, correct, predictions.class_id)
    result = {}
    unmatched = ~errors.found(len(gt.image), counted)
    for code in (CLASSIFICATION, LOCALIZATION):
        wrong = errors.kind == code
        fixed = np.zeros(len(wrong), dtype=bool)
        fixed[wrong] = unmatched[errors.target[wrong]]
        fixed = _most_confident(errors.target, predictions.confidence, fixed)
        class_id = predictions.class_id.copy()
        class_id[fixed] = gt.class_id[errors.target[fixed]]
        result[ERRORS[code]] = mean_ap(counted & (fixed | ~wrong), correct | fixed, class_id) - base
    for code in (BOTH, DUPLICATE, BACKGROUND):
        result[ERRORS[code]] = mean_ap(counted & (errors.kind != code), correct, predictions.class_id) - base
    missed = errors.missed(data, np.ones(len(correct), dtype=bool))
    left = boxes - np.bincount(gt.class_id[missed], minlength=classes)
    ap = average_precision(predictions.class_id[counted], predictions.confidence[counted], correct[counted], left)
    # A class of which every box is missed has nothing left to find; it counts as before, so that no gain comes from
    # leaving it out of the mean.
    ap = np.where(boxes > 0, np.nan_to_num(ap), np.nan)
    result[ERRORS[MISSED]] = float(np.nanmean(ap)) - base
    return result


def average_precision(
    class_id: Int[np.ndarray, " n"],
    confidence: Float[np.ndarray, " n"],
    correct: Bool[np.ndarray, " n"],
    boxes: Int[np.ndarray, " classes"],
) -> Float[np.ndarray, " classes"]:
    """COCO's AP (101 recall points) by class at the IoU at which `correct` was decided; nan for a class without boxes.

    Predictions of equal confidence are ranked in their order.
    """
    classes = len(boxes)
    order = np.lexsort((-confidence, class_id))
    class_id, right = class_id[order], correct[order]
    result = np.where(boxes > 0, 0.0, np.nan)
    if not right.any():
        return result
    start = np.searchsorted(class_id, class_id)  # of the class of each prediction
    total = np.concatenate([[0], np.cumsum(right)])
    hits = np.flatnonzero(right)
    count = total[hits + 1] - total[start[hits]]
    of = class_id[hits]
    precision = count / (hits + 1 - start[hits])
    recall = np.divide(count, boxes[of], out=np.zeros(len(hits)), where=boxes[of] > 0)
    # The highest precision at this recall or a higher one, from the last hit to the first; an offset that grows in the
    # order of the visit keeps classes apart.
    offset = 2.0 * (classes - of)
    envelope = np.maximum.accumulate((precision + offset)[::-1])[::-1] - offset
    reached = np.searchsorted(_RECALLS, recall, side="right")
    previous = np.concatenate([[0], reached[:-1]])
    previous[np.flatnonzero(np.append(True, of[1:] != of[:-1]))] = 0
    return result + np.bincount(of, weights=envelope * (reached - previous), minlength=classes) / len(_RECALLS)


def _best(
    count: int, pred: Int[np.ndarray, " p"], box: Int[np.ndarray, " p"], iou: Float[np.ndarray, " p"]
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The highest IoU of each of `count` predictions, and its box; 0 and -1 without a pair."""
    order = np.lexsort((iou, pred))  # of equal elements, an assignment keeps the last
    best_iou, best_box = np.zeros(count), np.full(count, UNMATCHED)
    best_iou[pred[order]], best_box[pred[order]] = iou[order], box[order]
    return best_iou, best_box


def _most_confident(
    target: Int[np.ndarray, " n"], confidence: Float[np.ndarray, " n"], selected: Bool[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Of the selected predictions of each target, the most confident one."""
    at = np.flatnonzero(selected)
    order = at[np.lexsort((-confidence[at], target[at]))]
    first = np.append(True, target[order][1:] != target[order][:-1]) if len(order) else np.zeros(0, dtype=bool)
    result = np.zeros(len(target), dtype=bool)
    result[order[first]] = True
    return result


def _marked(count: int, positions: Int[np.ndarray, " k"]) -> Bool[np.ndarray, " count"]:
    result = np.zeros(count, dtype=bool)
    result[positions] = True
    return result
