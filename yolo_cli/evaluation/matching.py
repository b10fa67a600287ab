"""COCO's greedy matching of predictions and ground truth at one IoU threshold, vectorized over all images."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from yolo_cli.evaluation.eval_data import GroundTruth, Predictions

MAX_PER_CLASS = 100  # predictions per class and image that COCO evaluates, the most confident ones
IGNORED, UNMATCHED = -2, -1  # instead of a ground truth index

_PAIRS_PER_BLOCK = 1 << 21  # about 200 MB of float64 arrays


def greedy_match(
    ground_truth: GroundTruth,
    predictions: Predictions,
    *,
    classes: int,
    iou: float = 0.5,
    by_class: bool = True,
    limit: int = MAX_PER_CLASS,
    ignored: Bool[np.ndarray, " m"] | None = None,
) -> Int[np.ndarray, " n"]:
    """Match predictions with ground truth as pycocotools' `evaluateImg` does.

    On each image, predictions are processed in order of confidence. Each is matched with the unmatched ground truth of
    highest IoU, the last of equal ones, if that IoU is at least `iou`. Otherwise it is matched with a crowd region of
    its class, which can have any number of matches.

    Args:
        ground_truth: m boxes.
        predictions: n boxes.
        classes: number of classes.
        iou: IoU threshold.
        by_class: whether only boxes of the same class match.
        limit: maximum predictions per image, and per class with `by_class`; less confident ones are ignored.
        ignored: ground truth that is matched only if no other is, and whose predictions are then IGNORED; crowd
            regions, which it must include, by default.

    Returns:
        Per prediction the index of its ground truth, or UNMATCHED, or IGNORED (in a crowd region or over the limit).
    """
    pairs = MatchCandidates(ground_truth, predictions, classes=classes, iou=iou, by_class=by_class, limit=limit)
    return pairs.match(iou, ignored)


class MatchCandidates:
    """Pairs of predictions and ground truth, found once, for matches at several IoU thresholds of at least `iou`.

    Sorting predictions and finding pairs take most of the time of a match, and are the same for all thresholds.
    """

    def __init__(
        self,
        ground_truth: GroundTruth,
        predictions: Predictions,
        *,
        classes: int,
        iou: float = 0.5,
        by_class: bool = True,
        limit: int = MAX_PER_CLASS,
    ) -> None:
        pred_group = predictions.image * classes + predictions.class_id if by_class else predictions.image
        gt_group = ground_truth.image * classes + ground_truth.class_id if by_class else ground_truth.image
        order = np.lexsort((-predictions.confidence, pred_group))
        rank = rank_in_run(pred_group[order])
        self.unmatched = np.full(len(order), UNMATCHED)
        self.unmatched[order[rank >= limit]] = IGNORED
        self.group, self._crowd = pred_group, ground_truth.crowd
        self.order = order = order[rank < limit]
        pred, gt, overlap = _overlapping_pairs(ground_truth, predictions, order, pred_group, gt_group, _limited(iou))
        same_class = ground_truth.class_id[gt] == predictions.class_id[pred]
        allowed = same_class | ~ground_truth.crowd[gt]
        self.pairs = pred[allowed], gt[allowed], overlap[allowed], same_class[allowed]

    def match(self, iou: float, ignored: Bool[np.ndarray, " m"] | None = None) -> Int[np.ndarray, " n"]:
        """See `greedy_match`."""
        ignored = self._crowd if ignored is None else ignored
        result = self.unmatched.copy()
        near = self.pairs[2] >= _limited(iou)
        pred, gt, overlap, same_class = (column[near] for column in self.pairs)
        step = _steps(pred, self.group)
        # The last pair of a prediction has the best ground truth.
        best_last = np.lexsort((gt, same_class, overlap, ~ignored[gt], pred, step))
        pred, gt, step = pred[best_last], gt[best_last], step[best_last]
        ends = np.searchsorted(step, np.arange(step[-1] + 2 if len(step) else 1))
        unmatched = np.ones(len(self._crowd), dtype=bool)
        # A step has at most one prediction of each group, and groups are independent.
        for start, stop in pairwise(ends):
            available = unmatched[gt[start:stop]]
            pred_now, gt_now = pred[start:stop][available], gt[start:stop][available]
            last = np.flatnonzero(np.append(pred_now[1:] != pred_now[:-1], True)) if len(pred_now) else pred_now
            pred_now, gt_now = pred_now[last], gt_now[last]
            result[pred_now] = np.where(ignored[gt_now], IGNORED, gt_now)
            unmatched[gt_now[~self._crowd[gt_now]]] = False
        return result


def pairs_by_step(
    candidates: MatchCandidates,
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"], Float[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Prediction, ground truth, IoU and step of pairs of one class, the best pair of each prediction last.

    A step has at most one prediction of each group, and is the number of more confident ones that have pairs.
    """
    pred, gt, overlap, _ = candidates.pairs
    step = _steps(pred, candidates.group)
    order = np.lexsort((gt, overlap, pred, step))
    return pred[order], gt[order], overlap[order], step[order]


def _limited(iou: float) -> float:
    """The threshold as pycocotools uses it: an IoU of 1 can be a little less by rounding."""
    return min(iou, 1 - 1e-10)


def overlapping_pairs(
    ground_truth: GroundTruth, predictions: Predictions, iou: float
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Prediction, ground truth and IoU of all pairs on an image, of any classes, with an IoU of at least `iou` > 0.

    Pairs are in the order of the predictions. For a crowd region, the intersection is over the prediction's area.
    """
    order = np.arange(len(predictions.image))
    return _overlapping_pairs(ground_truth, predictions, order, predictions.image, ground_truth.image, iou)


def rank_in_run(values: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Position of each element in its run of equal values."""
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1])) if len(values) else np.zeros(0, dtype=np.int64)
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))


def _steps(pred: Int[np.ndarray, " p"], group: Int[np.ndarray, " n"]) -> Int[np.ndarray, " p"]:
    """Per pair the number of predictions of its group that come before; pairs are in order of group and confidence."""
    if not len(pred):
        return pred
    is_new = np.append(True, pred[1:] != pred[:-1])
    return rank_in_run(group[pred[is_new]])[np.cumsum(is_new) - 1]


def _overlapping_pairs(
    ground_truth: GroundTruth,
    predictions: Predictions,
    order: Int[np.ndarray, " k"],
    pred_group: Int[np.ndarray, " n"],
    gt_group: Int[np.ndarray, " m"],
    iou: float,
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Prediction, ground truth and IoU of all pairs of one group with an IoU of at least `iou`.

    Predictions are in the given order.
    """
    by_group = np.argsort(gt_group, kind="stable")
    groups = gt_group[by_group]
    first = np.searchsorted(groups, pred_group[order], side="left")
    count = np.searchsorted(groups, pred_group[order], side="right") - first
    has_pairs = count > 0
    order, first, count = order[has_pairs], first[has_pairs], count[has_pairs]
    pred, gt, overlap = [], [], []
    for block in _blocks(count):
        pairs = count[block]
        block_pred = np.repeat(order[block], pairs)
        within = np.arange(pairs.sum()) - np.repeat(np.cumsum(pairs) - pairs, pairs)
        block_gt = by_group[np.repeat(first[block], pairs) + within]
        value = _iou(predictions.xywh[block_pred], ground_truth.xywh[block_gt], ground_truth.crowd[block_gt])
        keep = value >= iou
        pred.append(block_pred[keep])
        gt.append(block_gt[keep])
        overlap.append(value[keep])
    if not pred:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    return np.concatenate(pred), np.concatenate(gt), np.concatenate(overlap)


def _blocks(count: Int[np.ndarray, " k"]) -> Iterator[slice]:
    """Slices of about `_PAIRS_PER_BLOCK` pairs, to bound memory: crowded datasets have hundreds of millions."""
    total = np.cumsum(count)
    start = 0
    while start < len(count):
        before = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + _PAIRS_PER_BLOCK, side="right")))
        yield slice(start, stop)
        start = stop


def _iou(
    pred: Float[np.ndarray, "p 4"], gt: Float[np.ndarray, "p 4"], crowd: Bool[np.ndarray, " p"]
) -> Float[np.ndarray, " p"]:
    """IoU of pairs of boxes (left, top, width, height); for a crowd region, intersection over the prediction's area.

    Operations are in the order of pycocotools' `bbIou`, so that an IoU of exactly a threshold is rounded the same way.
    """
    width = np.minimum(pred[:, 0] + pred[:, 2], gt[:, 0] + gt[:, 2]) - np.maximum(pred[:, 0], gt[:, 0])
    height = np.minimum(pred[:, 1] + pred[:, 3], gt[:, 1] + gt[:, 3]) - np.maximum(pred[:, 1], gt[:, 1])
    intersection = np.where((width > 0) & (height > 0), width * height, 0.0)
    area = pred[:, 2] * pred[:, 3]
    union = np.where(crowd, area, area + gt[:, 2] * gt[:, 3] - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
