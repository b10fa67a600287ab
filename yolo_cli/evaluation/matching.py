"""Which detection found which truth: COCO's greedy matching at one IoU, for all images at once."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from yolo_cli.evaluation.eval_data import GroundTruth, Predictions

MAX_PER_CLASS = 100  # COCO counts no more detections than these, the most confident, of a class on an image
NOT_COUNTED, MISSED = -2, -1  # in place of a truth's index: matched to a crowd region or beyond the limit; no truth

_PAIRS_AT_ONCE = 1 << 21  # about 200 MB of float64 columns


def greedy_match(
    truths: GroundTruth,
    found: Predictions,
    *,
    classes: int,
    iou: float = 0.5,
    by_class: bool = True,
    limit: int = MAX_PER_CLASS,
) -> Int[np.ndarray, " n"]:
    """For each detection the row of its truth, `MISSED`, or `NOT_COUNTED`.

    As pycocotools' `evaluateImg` does it: on each image, and there class by class (`by_class`) or all classes together,
    detections choose in order of confidence; each takes the free truth of highest IoU (of equal ones the last), if that
    reaches `iou`; failing that, a crowd region of its class, which is never used up. Detections beyond the `limit`
    most confident of a group are `NOT_COUNTED`.
    """
    found_group = found.image * classes + found.class_id if by_class else found.image
    truth_group = truths.image * classes + truths.class_id if by_class else truths.image
    order = np.lexsort((-found.confidence, found_group))
    rank = _rank_in_run(found_group[order])
    result = np.full(len(order), MISSED)
    result[order[rank >= limit]] = NOT_COUNTED
    order = order[rank < limit]

    near, at, overlap = _pairs_above(truths, found, order, found_group, truth_group, min(iou, 1 - 1e-10))
    same = truths.class_id[at] == found.class_id[near]
    useful = same | ~truths.crowd[at]
    near, at, overlap, same = near[useful], at[useful], overlap[useful], same[useful]
    turn = _turns(near, found_group)
    # Within a detection's turn the best truth stands last.
    best_last = np.lexsort((at, same, overlap, ~truths.crowd[at], near, turn))
    near, at, turn = near[best_last], at[best_last], turn[best_last]
    ends = np.searchsorted(turn, np.arange(turn[-1] + 2 if len(turn) else 1))
    free = np.ones(len(truths.image), dtype=bool)
    # In one turn every group has at most one detection to place, so groups do not disturb each other.
    for start, stop in pairwise(ends):
        open_ = free[at[start:stop]]
        who, which = near[start:stop][open_], at[start:stop][open_]
        last = np.flatnonzero(np.append(who[1:] != who[:-1], True)) if len(who) else np.zeros(0, dtype=np.int64)
        who, which = who[last], which[last]
        crowd = truths.crowd[which]
        result[who] = np.where(crowd, NOT_COUNTED, which)
        free[which[~crowd]] = False
    return result


def _rank_in_run(values: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Position of each element within its run of equal values."""
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1])) if len(values) else np.zeros(0, dtype=np.int64)
    return np.asarray(np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values)))))


def _turns(near: Int[np.ndarray, " p"], group: Int[np.ndarray, " n"]) -> Int[np.ndarray, " p"]:
    """For pairs in order of group and confidence: how many detections of the same group choose before this pair's."""
    if not len(near):
        return near
    new_detection = np.append(True, near[1:] != near[:-1])
    return np.asarray(_rank_in_run(group[near[new_detection]])[np.cumsum(new_detection) - 1])


def _pairs_above(
    truths: GroundTruth,
    found: Predictions,
    order: Int[np.ndarray, " k"],
    found_group: Int[np.ndarray, " n"],
    truth_group: Int[np.ndarray, " m"],
    iou: float,
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Rows of detection and truth of one group whose IoU reaches `iou`, and that IoU; detections keep their `order`."""
    by_group = np.argsort(truth_group, kind="stable")
    groups = truth_group[by_group]
    first = np.searchsorted(groups, found_group[order], side="left")
    count = np.searchsorted(groups, found_group[order], side="right") - first
    met = count > 0
    order, first, count = order[met], first[met], count[met]
    near, at, overlap = [], [], []
    for block in _blocks(count):
        many = count[block]
        pair_near = np.repeat(order[block], many)
        within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        pair_at = by_group[np.repeat(first[block], many) + within]
        value = _iou(found.xywh[pair_near], truths.xywh[pair_at], truths.crowd[pair_at])
        keep = value >= iou
        near.append(pair_near[keep])
        at.append(pair_at[keep])
        overlap.append(value[keep])
    if not near:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    return np.concatenate(near), np.concatenate(at), np.concatenate(overlap)


def _blocks(count: Int[np.ndarray, " k"]) -> Iterator[slice]:
    """Slices that hold about `_PAIRS_AT_ONCE` pairs each: crowded data sets have hundreds of millions of pairs."""
    total = np.cumsum(count)
    start = 0
    while start < len(count):
        before = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + _PAIRS_AT_ONCE, side="right")))
        yield slice(start, stop)
        start = stop


def _iou(
    found: Float[np.ndarray, "p 4"], truth: Float[np.ndarray, "p 4"], crowd: Bool[np.ndarray, " p"]
) -> Float[np.ndarray, " p"]:
    """IoU of pairs of boxes (left, top, width, height); with a crowd region, the share of the detection inside it.

    The order of the operations is that of pycocotools' `bbIou`, so that a pair which touches a threshold falls on the
    same side of it here and there.
    """
    width = np.minimum(found[:, 0] + found[:, 2], truth[:, 0] + truth[:, 2]) - np.maximum(found[:, 0], truth[:, 0])
    height = np.minimum(found[:, 1] + found[:, 3], truth[:, 1] + truth[:, 3]) - np.maximum(found[:, 1], truth[:, 1])
    shared = np.where((width > 0) & (height > 0), width * height, 0.0)
    own = found[:, 2] * found[:, 3]
    union = np.where(crowd, own, own + truth[:, 2] * truth[:, 3] - shared)
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
