"""Labels that are probably wrong: where a confident model and the labels disagree."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.matching import overlapping_pairs
from yolo_cli.report.tide import BACKGROUND, BACKGROUND_IOU, CORRECT, Errors

SAME_PLACE = 0.7  # IoU of two boxes that mean one object


@dataclass(frozen=True)
class LabelSuspects:
    """Three ranked lists, the most suspicious first.

    `no_label`: confident predictions where no box is. `never_found`: boxes that no prediction of any class or
    confidence touches; large ones first, since they are harder to overlook. `other_class`: a prediction and a box of
    another class at the same place, by confidence times IoU.
    """

    no_label: Int[np.ndarray, " a"]  # predictions
    never_found: Int[np.ndarray, " b"]  # ground truth
    other_class: Int[np.ndarray, "c 2"]  # prediction, ground truth


def find_suspects(data: EvalData, errors: Errors, confidence: float) -> LabelSuspects:
    """Suspects among the predictions of at least `confidence` and among all boxes outside of crowd regions."""
    gt, pred = data.ground_truth, data.predictions
    confident = pred.confidence >= confidence
    background = np.flatnonzero((errors.kind == BACKGROUND) & confident)
    no_label = background[np.argsort(-pred.confidence[background], kind="stable")]

    one, box, iou = overlapping_pairs(gt, pred, BACKGROUND_IOU)
    touched = gt.crowd.copy()
    touched[box] = True
    untouched = np.flatnonzero(~touched)
    area = gt.xywh[untouched, 2] * gt.xywh[untouched, 3] / data.sizes[gt.image[untouched]].prod(axis=1)
    never_found = untouched[np.argsort(-area, kind="stable")]

    # A box that is found with its own class by a more confident prediction has no wrong class.
    agreed = np.zeros(len(gt.image))
    correct = errors.kind == CORRECT
    agreed[errors.target[correct]] = pred.confidence[correct]
    differs = (gt.class_id[box] != pred.class_id[one]) & (iou >= SAME_PLACE) & ~gt.crowd[box]
    # A prediction that is correct for one box says nothing about another one below it.
    differs &= confident[one] & (errors.kind[one] != CORRECT) & (pred.confidence[one] > agreed[box])
    one, box, score = one[differs], box[differs], (pred.confidence[one] * iou)[differs]
    order = np.argsort(-score, kind="stable")
    _, first = np.unique(box[order], return_index=True)  # the most suspicious prediction of each box
    order = order[np.sort(first)]
    return LabelSuspects(no_label, never_found, np.stack([one[order], box[order]], axis=1))
