"""Suspected label errors, ranked: where confident predictions and the labels of a split disagree.

The kinds are those of ObjectLab (Tkachenko et al., 2023): boxes that are missing, of the wrong class, or badly placed.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from yolo_cli.evaluation.eval_data import EvalData, GroundTruth, Predictions
from yolo_cli.evaluation.matching import overlapping_pairs

MISSING, WRONG_CLASS, MISPLACED, SPURIOUS = "missing-label", "wrong-class", "misplaced-box", "spurious-box"
SAME_PLACE = 0.5  # IoU of boxes that mean one object
BESIDE = 0.15  # IoU of a box that is placed badly
WELL_PLACED = 0.75  # IoU from which the place of a box is not doubted
MIN_SCORE = 0.3  # of a listed suspect

_UNSURE = 0.1  # of the boxes that are found, the share whose predictions are too weak to confirm a box
_SPURIOUS_WEIGHT = 0.5  # a model misses objects more often than people label nothing


@dataclass(frozen=True, slots=True)
class LabelError:
    """A suspected error. `box` is a row of the ground truth, `prediction` one of the predictions; -1 for none."""

    kind: str
    score: float  # 0 … 1
    box: int
    prediction: int


def find_label_errors(data: EvalData) -> list[LabelError]:
    """Suspects of all kinds in one ranking, the most suspicious first.

    A confidence counts by its rank among those of predictions that agree with a label: 1 is as confident as the surest
    of these. So scores do not depend on how confident a model is in general.
    """
    gt, pred = data.ground_truth, data.predictions
    one, box, iou = overlapping_pairs(gt, pred, BESIDE)
    same = gt.class_id[box] == pred.class_id[one]
    pairs = _Pairs(one, box, iou, same)
    count = len(gt.image)
    own = same & (iou >= SAME_PLACE)
    sure = _typical(pred.confidence, pred.confidence[np.unique(one[own])])

    errors = _wrong_classes(pairs, pred.confidence, sure, count) + _misplaced(pairs, sure, count)
    touched = np.zeros(len(pred.image), dtype=bool)
    touched[one] = True
    free = np.flatnonzero(~touched & (sure >= MIN_SCORE))
    errors += [LabelError(MISSING, float(sure[i]), -1, i) for i in _one_per_place(pred, free).tolist()]
    nearby = _highest(count, box[iou >= 0.3], pred.confidence[one[iou >= 0.3]])
    best = _highest(count, box[own], pred.confidence[one[own]])
    spurious = _SPURIOUS_WEIGHT * np.clip(1 - _typical(nearby, best[best > 0]) / _UNSURE, 0, 1)
    errors += [LabelError(SPURIOUS, float(spurious[i]), i, -1) for i in np.flatnonzero(~gt.crowd).tolist()]
    return _ranked(errors)


@dataclass(frozen=True)
class _Pairs:
    """Predictions and boxes that overlap by at least BESIDE."""

    prediction: Int[np.ndarray, " p"]
    box: Int[np.ndarray, " p"]
    iou: Float[np.ndarray, " p"]
    same_class: Bool[np.ndarray, " p"]


def _wrong_classes(
    pairs: _Pairs, confidence: Float[np.ndarray, " n"], sure: Float[np.ndarray, " n"], boxes: int
) -> list[LabelError]:
    """A sure prediction of another class at the place of a box, less so if the box's class is predicted there, too."""
    there = pairs.iou >= SAME_PLACE
    own = there & pairs.same_class
    of_label = _highest(boxes, pairs.box[own], confidence[pairs.prediction[own]])
    at = np.flatnonzero(there & ~pairs.same_class)
    one, box = pairs.prediction[at], pairs.box[at]
    score = sure[one] * (1 - np.minimum(of_label[box] / np.maximum(confidence[one], 1e-9), 1))
    return [LabelError(WRONG_CLASS, *row) for row in zip(score.tolist(), box.tolist(), one.tolist(), strict=True)]


def _misplaced(pairs: _Pairs, sure: Float[np.ndarray, " n"], boxes: int) -> list[LabelError]:
    """A sure prediction beside a box, of which it is the nearest one, and which no prediction fits well."""
    well = pairs.iou >= WELL_PLACED
    fits = _highest(boxes, pairs.box[well], sure[pairs.prediction[well]])
    nearest = _highest(len(sure), pairs.prediction, pairs.iou)
    at = np.flatnonzero((pairs.iou == nearest[pairs.prediction]) & ~well)
    one, box = pairs.prediction[at], pairs.box[at]
    misfit = np.clip((WELL_PLACED - pairs.iou[at]) / (WELL_PLACED - SAME_PLACE), 0, 1)
    score = np.sqrt(sure[one]) * misfit * (1 - fits[box])  # the root, because the label confirms the object
    return [LabelError(MISPLACED, *row) for row in zip(score.tolist(), box.tolist(), one.tolist(), strict=True)]


def _one_per_place(predictions: Predictions, rows: Int[np.ndarray, " k"]) -> Int[np.ndarray, " j"]:
    """The predictions among `rows` that no more confident one of any class overlaps."""
    rows = rows[np.argsort(-predictions.confidence[rows], kind="stable")]
    image, class_id, xywh = (column[rows] for column in (predictions.image, predictions.class_id, predictions.xywh))
    boxes = GroundTruth(image, class_id, xywh, np.zeros(len(rows), dtype=bool))
    found = Predictions(image, class_id, xywh, predictions.confidence[rows])
    later, earlier, _ = overlapping_pairs(boxes, found, SAME_PLACE)
    hidden = np.zeros(len(rows), dtype=bool)
    hidden[later[earlier < later]] = True
    return rows[~hidden]


def _typical(confidence: Float[np.ndarray, " n"], agreeing: Float[np.ndarray, " k"]) -> Float[np.ndarray, " n"]:
    """Rank of each confidence among those of the predictions that agree with a label, 0 … 1."""
    if not len(agreeing):
        return np.clip(confidence, 0, 1)
    known = np.sort(agreeing)
    return np.searchsorted(known, confidence, side="right") / len(known)


def _highest(count: int, at: Int[np.ndarray, " p"], values: Float[np.ndarray, " p"]) -> Float[np.ndarray, " count"]:
    result = np.zeros(count)
    np.maximum.at(result, at, values)
    return result


def _ranked(errors: list[LabelError]) -> list[LabelError]:
    """By score; of several suspects about one box, or with one prediction, the first."""
    result: list[LabelError] = []
    boxes: set[int] = set()
    predictions: set[int] = set()
    for error in sorted(errors, key=lambda error: -error.score):
        if error.score < MIN_SCORE or error.box in boxes or error.prediction in predictions:
            continue
        if error.box >= 0:
            boxes.add(error.box)
        if error.prediction >= 0:
            predictions.add(error.prediction)
        result.append(error)
    return result
