"""The detections that confidence thresholds are chosen on, matched and reduced to what their counts need."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from yolo_cli.batch import Detections
from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.matching import IGNORED, UNMATCHED, greedy_match

STEP = 0.005
GRID = np.arange(2, 200) * STEP  # candidate thresholds, 0.01 … 0.995
_MATCHED_TOGETHER = 1 << 16  # predictions


@dataclass(frozen=True, slots=True)
class OperatingCounts:
    """Above each threshold of GRID and per class: predictions, and those that are correct; and the ground truth."""

    predicted: Float[np.ndarray, "classes grid"]
    correct: Float[np.ndarray, "classes grid"]
    labels: Float[np.ndarray, " classes"]


@dataclass(frozen=True, slots=True)
class MatchedImages:
    """Images whose detections are matched at IoU 0.5. A detection takes 9 bytes."""

    ids: Int[np.ndarray, " images"]
    image: Int[np.ndarray, " n"]  # position of the image of each detection
    cell: Int[np.ndarray, " n"]  # class × length of GRID + number of thresholds that the confidence exceeds - 1
    is_correct: Bool[np.ndarray, " n"]
    gt_image: Int[np.ndarray, " m"]
    gt_class: Int[np.ndarray, " m"]

    @staticmethod
    def of(data: EvalData, classes: int) -> "MatchedImages":
        """Detections in crowd regions, and those below all thresholds, are left out."""
        gt, pred = data.ground_truth, data.predictions
        match = greedy_match(gt, pred, classes=classes)
        above = np.searchsorted(GRID, pred.confidence, side="left")
        counted = (match != IGNORED) & (above > 0)
        columns = (
            pred.image[counted],
            pred.class_id[counted] * len(GRID) + above[counted] - 1,
            match[counted] != UNMATCHED,
            gt.image[~gt.crowd],
            gt.class_id[~gt.crowd],
        )
        image, cell, is_correct, gt_image, gt_class = columns
        return MatchedImages(
            data.image_ids,
            image.astype(np.int32),
            cell.astype(np.int32),
            is_correct,
            gt_image.astype(np.int32),
            gt_class.astype(np.int32),
        )

    @staticmethod
    def join(parts: Sequence["MatchedImages"]) -> "MatchedImages":
        """All images in the order of their ids."""
        ids = np.concatenate([part.ids for part in parts])
        order = np.argsort(ids, kind="stable")
        position = np.empty(len(ids), dtype=np.int32)
        position[order] = np.arange(len(ids), dtype=np.int32)
        own = np.split(position, np.cumsum([len(part.ids) for part in parts])[:-1])
        return MatchedImages(
            ids[order],
            np.concatenate([at[part.image] for at, part in zip(own, parts, strict=True)]),
            np.concatenate([part.cell for part in parts]),
            np.concatenate([part.is_correct for part in parts]),
            np.concatenate([at[part.gt_image] for at, part in zip(own, parts, strict=True)]),
            np.concatenate([part.gt_class for part in parts]),
        )


class OperatingData:
    """Matched detections, from which counts are taken for any weights of the images."""

    def __init__(self, matched: MatchedImages, classes: int) -> None:
        self.images, self.classes = len(matched.ids), classes
        self._matched = matched

    @staticmethod
    def of(data: EvalData, classes: int) -> "OperatingData":
        """From predictions with their boxes."""
        return OperatingData(MatchedImages.of(data, classes), classes)

    def counts(self, weights: Int[np.ndarray, " images"] | None = None) -> OperatingCounts:
        """Counts in which each image counts as often as its weight, by default once."""
        matched = self._matched
        weights = np.ones(self.images, dtype=np.int64) if weights is None else weights
        chosen, correct = weights[matched.image], matched.is_correct
        return OperatingCounts(
            self._above(matched.cell, chosen),
            self._above(matched.cell[correct], chosen[correct]),
            np.bincount(matched.gt_class, weights=weights[matched.gt_image], minlength=self.classes).astype(np.float64),
        )

    def _above(self, cell: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, "classes grid"]:
        cells = np.bincount(cell, weights=weights, minlength=self.classes * len(GRID))
        cells = cells.astype(np.float64)  # numpy counts nothing in integers
        return cells.reshape(self.classes, len(GRID))[:, ::-1].cumsum(1)[:, ::-1]


class OperatingCollector:
    """Collects images as `Evaluator` does, for `OperatingData`."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.reset()

    def reset(self) -> None:
        """Remove all images."""
        self._pending: list[EvalData] = []
        self._matched: list[MatchedImages] = []

    def update(
        self,
        image_ids: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        ground_truth: Sequence[Float[Tensor, "_ 5"]],
        detections: Sequence[Detections],
        crowd: Sequence[Bool[Tensor, " _"]] | None = None,
    ) -> None:
        """Add images: see `Evaluator.update`."""
        self._pending.append(EvalData.from_images(image_ids, sizes, ground_truth, detections, crowd))
        if sum(len(part.predictions.image) for part in self._pending) >= _MATCHED_TOGETHER:
            self._match()

    def data(self) -> OperatingData:
        """The matched detections of all images."""
        self._match()
        return OperatingData(MatchedImages.join(self._matched), len(self.names))

    def _match(self) -> None:
        self._matched.append(MatchedImages.of(EvalData.join(self._pending), len(self.names)))
        self._pending = []
