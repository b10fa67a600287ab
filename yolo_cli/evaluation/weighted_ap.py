"""COCO average precision as a function of image weights: what a resampled dataset would score.

A bootstrap resample of images is a weight per image (how often it was drawn). Which prediction matches which box does
not depend on the other images, so predictions are matched and sorted once; a resample is then a weighted recount.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.matching import IGNORED, MAX_PER_CLASS, MatchCandidates, rank_in_run

IOUS = np.linspace(0.5, 0.95, 10)
# Areas in pixels of the image file, as COCO bounds them (both ends belong to a range).
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
RECALLS = np.linspace(0, 1, 101)


class WeightedAP:
    """Average precision of one model's predictions for any weights of the images.

    With all weights 1 the values equal those of pycocotools.
    """

    def __init__(self, data: EvalData, classes: int) -> None:
        self.classes = classes
        self.images = len(data.image_ids)
        pairs = MatchCandidates(data.ground_truth, data.predictions, classes=classes, iou=float(IOUS[0]))
        self._areas = [_AreaRange.of(data, classes, pairs, low, high) for low, high in AREAS.values()]

    def __call__(self, weights: Int[np.ndarray, " images"]) -> Float[np.ndarray, "4 10 classes"]:
        """AP by area range (in the order of `AREAS`), IoU 0.5 … 0.95 and class; nan where no box has weight."""
        return np.stack([area.average_precision(weights) for area in self._areas])


@dataclass(frozen=True)
class _AreaRange:
    """Matched predictions of one range of box areas, in order of class and falling confidence."""

    classes: int
    gt_image: Int[np.ndarray, " m"]  # of the boxes that count
    gt_class: Int[np.ndarray, " m"]
    image: Int[np.ndarray, " n"]  # of the predictions in range
    class_start: Int[np.ndarray, " classes"]  # position of each class's first prediction
    # True positives of all IoUs, one after the other; a segment is an (IoU, class).
    tp_image: Int[np.ndarray, " p"]
    tp_position: Int[np.ndarray, " p"]  # how many predictions in range come no later
    tp_outside: Bool[np.ndarray, " p"]  # a prediction out of range that matched a box in range counts, too
    has_outside: bool
    segment_start: Int[np.ndarray, " segments"]  # position of each segment's first true positive
    # Predictions in range that matched an ignored box: neither right nor wrong at that IoU.
    ignored_image: Int[np.ndarray, " q"]
    ignored_before_tp: Int[np.ndarray, " p"]
    ignored_start: Int[np.ndarray, " segments"]

    @staticmethod
    def of(data: EvalData, classes: int, pairs: MatchCandidates, low: float, high: float) -> "_AreaRange":
        gt, pred = data.ground_truth, data.predictions
        gt_area = gt.xywh[:, 2] * gt.xywh[:, 3]
        ignored_gt = gt.crowd | (gt_area < low) | (gt_area > high)
        area = pred.xywh[:, 2] * pred.xywh[:, 3]
        in_range = (area >= low) & (area <= high)
        order = np.lexsort((-pred.confidence, pred.class_id))  # stable: equal confidences stay in order of images
        matches = [pairs.match(iou, ignored_gt)[order] for iou in IOUS.tolist()]
        class_id, image, inside = pred.class_id[order], pred.image[order], in_range[order]
        within_limit = _within_limit(image, class_id, classes)
        base = inside & within_limit
        position = np.cumsum(base)
        tp = [np.flatnonzero(match >= 0) for match in matches]
        ignored = [np.flatnonzero((match == IGNORED) & base) for match in matches]
        tp_key = np.concatenate([i * classes + class_id[at] for i, at in enumerate(tp)])
        ignored_key = np.concatenate([i * classes + class_id[at] for i, at in enumerate(ignored)])
        size, at_tp, at_ignored = len(order) + 1, np.concatenate(tp), np.concatenate(ignored)
        before = np.searchsorted(ignored_key * size + at_ignored, tp_key * size + at_tp)
        count = ~ignored_gt
        return _AreaRange(
            classes,
            gt.image[count],
            gt.class_id[count],
            image[base],
            np.searchsorted(class_id[base], np.arange(classes)),
            image[at_tp],
            position[at_tp],
            ~base[at_tp],
            not base[at_tp].all(),
            np.searchsorted(tp_key, np.arange(len(IOUS) * classes)),
            image[at_ignored],
            before,
            np.searchsorted(ignored_key, np.arange(len(IOUS) * classes)),
        )

    def average_precision(self, weights: Int[np.ndarray, " images"]) -> Float[np.ndarray, "10 classes"]:
        segments = len(IOUS) * self.classes
        boxes = np.bincount(self.gt_class, weights=weights[self.gt_image], minlength=self.classes).astype(np.int64)
        result = np.where(boxes > 0, 0.0, np.nan)[None].repeat(len(IOUS), 0)
        tp_weight = weights[self.tp_image]
        # True positives without weight add no recall, and precision cannot be higher there than before them.
        kept = np.flatnonzero(tp_weight)
        if not len(kept):
            return result
        first = np.searchsorted(kept, self.segment_start)  # of each segment's true positives
        number = np.diff(np.append(first, len(kept)))
        tp_weight = tp_weight[kept]
        right = _running(tp_weight, first, number)
        total = np.concatenate([[0], np.cumsum(weights[self.image])])
        counted = total[self.tp_position[kept]] - np.repeat(np.tile(total[self.class_start], len(IOUS)), number)
        if self.has_outside:
            counted += _running(tp_weight * self.tp_outside[kept], first, number)
        if len(self.ignored_image):
            ignored = np.concatenate([[0], np.cumsum(weights[self.ignored_image])])
            counted -= ignored[self.ignored_before_tp[kept]] - np.repeat(ignored[self.ignored_start], number)
        # The highest precision at this recall or a higher one, from the end of each segment to its start. Segments are
        # kept apart by an offset, which grows in the order of the visit.
        offset = np.repeat(2.0 * np.arange(segments, 0, -1), number)
        envelope = np.maximum.accumulate((right / counted + offset)[::-1])[::-1] - offset
        reached = self._reached(right, boxes, number)
        previous = np.concatenate([[0], reached[:-1]])
        previous[first[number > 0]] = 0
        area = np.zeros(segments)
        area[number > 0] = np.add.reduceat(envelope * (reached - previous), first[number > 0])
        return result + (area / len(RECALLS)).reshape(len(IOUS), self.classes)

    def _reached(
        self, right: Int[np.ndarray, " k"], boxes: Int[np.ndarray, " classes"], number: Int[np.ndarray, " segments"]
    ) -> Int[np.ndarray, " k"]:
        """How many points of the recall grid lie up to the recall of `right` boxes, looked up in a table by class."""
        start = np.cumsum(boxes + 1) - boxes - 1
        found = np.arange(len(boxes) + int(boxes.sum())) - np.repeat(start, boxes + 1)
        recall = found / np.maximum(np.repeat(boxes, boxes + 1), 1)
        table = np.searchsorted(RECALLS, recall, side="right")
        return table[right + np.repeat(np.tile(start, len(IOUS)), number)]


def _running(
    values: Int[np.ndarray, " k"], first: Int[np.ndarray, " segments"], number: Int[np.ndarray, " segments"]
) -> Int[np.ndarray, " k"]:
    """Running sums that begin anew at each segment, given the position and the number of its elements."""
    total = np.concatenate([[0], np.cumsum(values)])
    return total[1:] - np.repeat(total[first], number)


def _within_limit(
    image: Int[np.ndarray, " n"], class_id: Int[np.ndarray, " n"], classes: int
) -> Bool[np.ndarray, " n"]:
    """Which predictions are among the most confident of their image and class that COCO counts."""
    group = image * classes + class_id
    order = np.argsort(group, kind="stable")  # the input is in order of falling confidence
    result = np.empty(len(group), dtype=bool)
    result[order] = rank_in_run(group[order]) < MAX_PER_CLASS
    return result
