"""COCO's matching at all IoU thresholds and box sizes at once."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from yolo_cli.evaluation.eval_data import GroundTruth
from yolo_cli.evaluation.matching import MatchCandidates, pairs_by_step
from yolo_cli.evaluation.weighted_ap import AREAS, IOUS


@dataclass(frozen=True, slots=True)
class MatchBits:
    """What COCO counts of predictions that overlap ground truth of their class by half or more.

    Bit `len(IOUS) * area + iou` of a row, the first one the highest of its first byte, is for that size and threshold.
    """

    pred: Int[np.ndarray, " k"]  # the prediction, in any order
    is_tp: UInt8[np.ndarray, "k 5"]  # matched with ground truth that counts
    is_ignored: UInt8[np.ndarray, "k 5"]  # matched with ground truth that does not count

    @staticmethod
    def unpack(bits: UInt8[np.ndarray, "k 5"], area: int) -> Bool[np.ndarray, "k 10"]:
        """The bits of one size by IoU threshold."""
        first, count = len(IOUS) * area, len(IOUS)
        few = bits[:, first // 8 : -(-(first + count) // 8)]
        return np.unpackbits(few, axis=1)[:, first % 8 : first % 8 + count].view(bool)


def in_ranges(xywh: Float[np.ndarray, "n 4"]) -> Bool[np.ndarray, "4 n"]:
    """Whether the area of each box belongs to each of `AREAS`."""
    area = xywh[:, 2] * xywh[:, 3]
    return np.stack([(area >= low) & (area <= high) for low, high in AREAS.values()])


def match_at_all(ground_truth: GroundTruth, candidates: MatchCandidates) -> MatchBits:
    """Match as `MatchCandidates.match` does for each IoU threshold, and ground truth of other sizes ignored.

    The predictions of a step are matched for all thresholds and sizes in the same calls of numpy.
    """
    pred, gt, overlap, step = pairs_by_step(candidates)
    ignored = np.repeat(ground_truth.crowd | ~in_ranges(ground_truth.xywh), len(IOUS), axis=0)
    threshold = np.tile(IOUS, len(AREAS))[:, None]
    is_open = np.ones(ignored.shape, dtype=bool)
    found, tp_bits, ignored_bits = [], [], []
    ends = np.searchsorted(step, np.arange(step[-1] + 2 if len(step) else 1))
    for start, stop in pairwise(ends.tolist()):
        gt_now, pred_now = gt[start:stop], pred[start:stop]
        first = np.flatnonzero(np.append(True, pred_now[1:] != pred_now[:-1]))
        # Of the pairs of a prediction, the last one is the best. Ground truth that counts comes before any other.
        rank = np.arange(1, len(gt_now) + 1, dtype=np.int32)
        other = ignored[:, gt_now]
        score = np.where(other, rank, rank + len(gt_now))
        score *= is_open[:, gt_now] & (overlap[start:stop] >= threshold)
        best = np.maximum.reduceat(score, first, axis=1)
        is_tp, is_ignored = best > len(gt_now), (best > 0) & (best <= len(gt_now))
        combination, at = np.nonzero(best)
        taken = gt_now[(best[combination, at] - 1) % len(gt_now)]
        one_match = ~ground_truth.crowd[taken]
        is_open[combination[one_match], taken[one_match]] = False
        found.append(pred_now[first])
        tp_bits.append(np.packbits(is_tp, axis=0).T)
        ignored_bits.append(np.packbits(is_ignored, axis=0).T)
    if not found:
        return MatchBits(np.zeros(0, dtype=np.int64), np.zeros((0, 5), np.uint8), np.zeros((0, 5), np.uint8))
    return MatchBits(np.concatenate(found), np.concatenate(tp_bits), np.concatenate(ignored_bits))
