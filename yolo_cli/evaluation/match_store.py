"""Matched predictions of many images in few bytes each, and what COCO counts of them.

A prediction takes 9 bytes, and 14 more if it overlaps ground truth. Its box is not needed once it is matched.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, UInt8

from yolo_cli.evaluation.curves import CONFUSION_CONFIDENCE, ConfidenceCounts, confusion_matrix
from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.match_bits import MatchBits, in_ranges, match_at_all
from yolo_cli.evaluation.matching import MatchCandidates
from yolo_cli.evaluation.weighted_ap import AREAS, IOUS, RECALLS


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Predictions of some images, by class, then in the order of images, then of falling confidence."""

    first: Int[np.ndarray, " _"]  # row of each class
    confidence: Float[np.ndarray, " n"]
    image: Int[np.ndarray, " n"]  # number of the image in the store
    ranges: UInt8[np.ndarray, " n"]  # bit i: the area of the box is in range i of AREAS
    near: Int[np.ndarray, " k"]  # rows that overlap ground truth of their class, in order
    is_tp: UInt8[np.ndarray, "k 5"]  # see MatchBits
    is_ignored: UInt8[np.ndarray, "k 5"]

    def of_class(self, class_id: int) -> "_Chunk":
        """The rows of one class."""
        start, stop = self.first[class_id : class_id + 2].tolist()
        low, high = np.searchsorted(self.near, (start, stop)).tolist()
        rows, near = slice(start, stop), slice(low, high)
        return _Chunk(
            np.zeros(0, dtype=np.int64),
            self.confidence[rows],
            self.image[rows],
            self.ranges[rows],
            self.near[near] - start,
            self.is_tp[near],
            self.is_ignored[near],
        )


class MatchStore:
    """Collects images, each of which is matched at once, and computes COCO's precision and the counts of curves."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.labels = np.zeros((len(AREAS), classes), dtype=np.int64)  # ground truth that counts, by area range
        self.images_with = np.zeros(classes, dtype=np.int64)  # images with such ground truth of a class
        self.counts = ConfidenceCounts(classes)
        self.confusion = np.zeros((classes + 1, classes + 1), dtype=np.int64)
        self._ids: list[Int[np.ndarray, " images"]] = []
        self._images = 0
        self._chunks: list[_Chunk] = []

    def add(self, data: EvalData) -> None:
        """Match the predictions of more images. Thousands of images at a time are fastest."""
        gt, pred = data.ground_truth, data.predictions
        counts = ~gt.crowd
        self.labels += np.stack(
            [np.bincount(gt.class_id[counts & inside], minlength=self.classes) for inside in in_ranges(gt.xywh)]
        )
        pairs = np.unique(gt.image[counts] * self.classes + gt.class_id[counts])
        self.images_with += np.bincount(pairs % self.classes, minlength=self.classes)
        self.confusion += confusion_matrix(data, self.classes, confidence=CONFUSION_CONFIDENCE, iou=0.5)

        candidates = MatchCandidates(gt, pred, classes=self.classes, iou=float(IOUS[0]))
        bits = match_at_all(gt, candidates)
        order = candidates.order[np.argsort(pred.class_id[candidates.order], kind="stable")]
        row_of = np.zeros(len(pred.image), dtype=np.int64)
        row_of[order] = np.arange(len(order))
        by_row = np.argsort(row_of[bits.pred])
        class_id, confidence = pred.class_id[order], pred.confidence[order]
        chunk = _Chunk(
            np.searchsorted(class_id, np.arange(self.classes + 1)),
            _shortest(confidence),
            (pred.image[order] + self._images).astype(np.int32),
            np.packbits(in_ranges(pred.xywh[order]), axis=0, bitorder="little")[0],
            row_of[bits.pred][by_row].astype(np.int32),
            bits.is_tp[by_row],
            bits.is_ignored[by_row],
        )
        self._count(chunk, class_id)
        self._append(data.image_ids, [chunk])

    def merge(self, other: "MatchStore") -> None:
        """Add the images of another store of the same classes."""
        self.labels += other.labels
        self.images_with += other.images_with
        self.confusion += other.confusion
        self.counts.merge(other.counts)
        shifted = [replace(chunk, image=chunk.image + np.int32(self._images)) for chunk in other._chunks]
        self._append(np.concatenate([np.zeros(0, dtype=np.int64), *other._ids]), shifted)

    def image_ids(self) -> Int[np.ndarray, " images"]:
        """All ids in the order of the images. Raises ValueError if one occurs twice."""
        ids = np.concatenate([np.zeros(0, dtype=np.int64), *self._ids])
        ordered = np.sort(ids)
        if (twice := np.flatnonzero(np.diff(ordered) == 0)).size:
            raise ValueError(f"image {ordered[twice[0]]} was given to the evaluator twice")
        return ids

    def precision(self, pool: Executor) -> Float[np.ndarray, "10 101 classes 4"]:
        """Interpolated precision by IoU (0.5 … 0.95), recall (0 … 1), class and area (all, small, medium, large).

        -1 if there is no ground truth of that class and size. Equal confidences are ranked by image id, as pycocotools
        does.
        """
        ids = self.image_ids()
        rank = np.empty(len(ids), dtype=np.int32)
        rank[np.argsort(ids)] = np.arange(len(ids), dtype=np.int32)
        result = np.full((len(IOUS), len(RECALLS), self.classes, len(AREAS)), -1.0)

        def fill(class_id: int) -> None:
            ranked = _Ranked.of([chunk.of_class(class_id) for chunk in self._chunks], rank)
            for area in np.flatnonzero(self.labels[:, class_id]).tolist():
                result[:, :, class_id, area] = ranked.precision(area, int(self.labels[area, class_id]))

        list(pool.map(fill, np.flatnonzero(self.labels.any(0)).tolist()))
        return result

    def _count(self, chunk: _Chunk, class_id: Int[np.ndarray, " n"]) -> None:
        """Add to the counts of the curves, which are those of the lowest IoU and all sizes."""
        right, counted = np.zeros(len(class_id), dtype=bool), np.ones(len(class_id), dtype=bool)
        right[chunk.near] = MatchBits.unpack(chunk.is_tp, 0)[:, 0]
        counted[chunk.near] = ~MatchBits.unpack(chunk.is_ignored, 0)[:, 0]
        self.counts.add(class_id, chunk.confidence, counted, right)

    def _append(self, ids: Int[np.ndarray, " images"], chunks: Sequence[_Chunk]) -> None:
        self._ids.append(ids)
        self._images += len(ids)
        self._chunks += chunks


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Predictions of one class from all images, by falling confidence."""

    ranges: UInt8[np.ndarray, " n"]
    near: Int[np.ndarray, " k"]  # those that overlap ground truth, in the same order
    is_tp: UInt8[np.ndarray, "k 5"]
    is_ignored: UInt8[np.ndarray, "k 5"]

    @staticmethod
    def of(chunks: Sequence[_Chunk], rank: Int[np.ndarray, " images"]) -> "_Ranked":
        sizes = [len(chunk.confidence) for chunk in chunks]
        start = np.cumsum([0, *sizes])[:-1].tolist()
        image = rank[np.concatenate([chunk.image for chunk in chunks])]
        confidence = np.concatenate([chunk.confidence for chunk in chunks])
        # Both sorts are stable, so equal confidences of an image stay in the detector's order.
        order = np.argsort(image, kind="stable") if (np.diff(image) < 0).any() else np.arange(len(image))
        order = order[np.argsort(-confidence[order], kind="stable")]
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        near = place[np.concatenate([chunk.near + s for chunk, s in zip(chunks, start, strict=True)])]
        by_place = np.argsort(near)
        return _Ranked(
            np.concatenate([chunk.ranges for chunk in chunks])[order],
            near[by_place],
            np.concatenate([chunk.is_tp for chunk in chunks])[by_place],
            np.concatenate([chunk.is_ignored for chunk in chunks])[by_place],
        )

    def precision(self, area: int, labels: int) -> Float[np.ndarray, "10 101"]:
        """COCO's `accumulate` for one range of areas.

        Recall only rises at true positives, and precision is highest there, so no other prediction is looked at.
        """
        in_range = (self.ranges >> area & 1).view(bool)
        is_tp, is_ignored = (MatchBits.unpack(bits, area).T for bits in (self.is_tp, self.is_ignored))
        inside = in_range[self.near]
        right = np.cumsum(is_tp, axis=1, dtype=np.int32)
        # Counted are the predictions in range, with those that match ground truth in range, without those that match
        # ignored ground truth.
        correction = (is_tp & ~inside).astype(np.int8) - (is_ignored & inside)
        counted = np.cumsum(in_range, dtype=np.int32)[self.near] + np.cumsum(correction, axis=1, dtype=np.int32)
        precision = np.where(is_tp, right / (counted + np.spacing(1)), 0.0)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        result = np.zeros((len(IOUS), len(RECALLS)))
        for row, of_iou in enumerate(right / labels):
            at = np.searchsorted(of_iou, RECALLS, side="left")
            reached = at < len(of_iou)
            result[row, reached] = envelope[row, at[reached]]
        return result


def _shortest(confidence: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """In float32 if that changes no value, as it does not for those of a network."""
    short = confidence.astype(np.float32)
    return short if np.array_equal(short, confidence) else confidence
