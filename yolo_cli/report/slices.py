"""Recall and precision by properties of boxes and images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from yolo_cli.evaluation.eval_data import EvalData, Predictions
from yolo_cli.evaluation.matching import overlapping_pairs
from yolo_cli.report.intervals import Proportion
from yolo_cli.report.tide import CORRECT, NOT_COUNTED, Errors

_BORDER = 0.01  # of the image's side: a box this close to the border touches it
_TOUCHING = 1e-6  # IoU above which boxes overlap at all

_SIZES = ("small: below 32² pixels", "medium: 32² to 96² pixels", "large: above 96² pixels")
_ASPECTS = ("tall: height over 2 × width", "between", "wide: width over 2 × height")
_CROWDING = ("alone: overlaps no other box", "IoU up to 0.3 with another box", "IoU above 0.3 with another box")
_BORDERS = ("at the image border", "inside the image")
_BRIGHTNESS = ("dark image: mean below 0.3", "mean from 0.3 to 0.6", "bright image: mean above 0.6")


@dataclass(frozen=True)
class Slice:
    """Boxes with one property.

    `recall` is at the confidence threshold, `recall_any` at any confidence. `precision` is that of the predictions with
    the property; None where the property is one of ground truth only.
    """

    group: str
    label: str
    boxes: Bool[np.ndarray, " m"]  # which boxes are in the slice
    missed: Bool[np.ndarray, " m"]  # and which of them are not found at the threshold
    wrong: Bool[np.ndarray, " n"]  # which predictions with the property are wrong; none where `precision` is None
    recall: Proportion
    recall_any: Proportion
    precision: Proportion | None


def find_slices(
    data: EvalData, errors: Errors, confidence: float, brightness: Float[np.ndarray, " images"]
) -> list[Slice]:
    """All slices, in groups. Boxes in crowd regions do not count. Brightness is left out where it is nan throughout."""
    gt, pred = data.ground_truth, data.predictions
    confident = pred.confidence >= confidence
    found = errors.found(len(gt.image), confident)
    found_any = errors.found(len(gt.image), np.ones(len(confident), dtype=bool))
    counted = confident & (errors.kind != NOT_COUNTED)
    of_gt = _box_groups(gt.xywh, data.sizes[gt.image]) | {"crowding": _crowding(data)}
    of_pred = _box_groups(pred.xywh, data.sizes[pred.image])
    if np.isfinite(brightness).any():
        of_gt["brightness"] = _brightness(brightness[gt.image])
        of_pred["brightness"] = _brightness(brightness[pred.image])
    result = []
    for group, members in of_gt.items():
        for label, of_group in members.items():
            boxes = of_group & ~gt.crowd
            count = int(boxes.sum())
            precision, wrong = None, np.zeros(len(confident), dtype=bool)
            if group in of_pred:
                chosen = counted & of_pred[group][label]
                wrong = chosen & (errors.kind != CORRECT)
                precision = Proportion(int((chosen & ~wrong).sum()), int(chosen.sum()))
            result.append(
                Slice(
                    group,
                    label,
                    boxes,
                    boxes & ~found,
                    wrong,
                    Proportion(int((boxes & found).sum()), count),
                    Proportion(int((boxes & found_any).sum()), count),
                    precision,
                )
            )
    return result


Members = Mapping[str, Bool[np.ndarray, " n"]]


def _box_groups(xywh: Float[np.ndarray, "n 4"], sizes: np.ndarray) -> dict[str, Members]:
    """Groups that need only the box and the size (height, width) of its image."""
    left, top, width, height = xywh.T
    area = width * height
    margin = _BORDER * sizes
    at_border = (
        (left <= margin[:, 1])
        | (top <= margin[:, 0])
        | (left + width >= sizes[:, 1] - margin[:, 1])
        | (top + height >= sizes[:, 0] - margin[:, 0])
    )
    tall, wide = height > 2 * width, width > 2 * height
    return {
        "size": dict(zip(_SIZES, (area < 32**2, (area >= 32**2) & (area < 96**2), area >= 96**2), strict=True)),
        "aspect": dict(zip(_ASPECTS, (tall, ~tall & ~wide, wide), strict=True)),
        "position": dict(zip(_BORDERS, (at_border, ~at_border), strict=True)),
    }


def _crowding(data: EvalData) -> Members:
    """Groups by the highest IoU with another box of the image, of any class."""
    gt = data.ground_truth
    as_predictions = Predictions(gt.image, gt.class_id, gt.xywh, np.ones(len(gt.image)))
    one, other, iou = overlapping_pairs(gt, as_predictions, _TOUCHING)
    different = (one != other) & ~gt.crowd[other]
    highest = np.zeros(len(gt.image))
    np.maximum.at(highest, one[different], iou[different])
    alone, crowded = highest == 0, highest > 0.3
    return dict(zip(_CROWDING, (alone, ~alone & ~crowded, crowded), strict=True))


def _brightness(values: Float[np.ndarray, " n"]) -> Members:
    return dict(zip(_BRIGHTNESS, (values < 0.3, (values >= 0.3) & (values <= 0.6), values > 0.6), strict=True))
