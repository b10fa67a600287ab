"""The evaluator: collects ground truth and predictions in batches and computes COCO metrics."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from yolo_cli.batch import Detections
from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.match_store import MatchStore
from yolo_cli.evaluation.result import ClassMetrics, Curves, Metrics

__all__ = ["ClassMetrics", "Curves", "Evaluator", "Metrics"]

# Predictions whose boxes are kept, for the saved evaluation and the report: 0.6 GB. More are only counted.
BOXES_KEPT = 10_000_000
TOO_MANY_BOXES = f"more than {BOXES_KEPT:,} predictions, whose boxes are not kept"
_MATCHED_TOGETHER = 1 << 16  # predictions; with fewer, the calls of numpy take longer than their work
_THREADS = 2  # match images while others are added; they spend most of the time in numpy, which releases the GIL


@dataclass(frozen=True, slots=True)
class Shard:
    """The images that one rank has evaluated."""

    matched: MatchStore
    parts: list[EvalData]  # none where there are too many boxes
    boxes: int


class Evaluator:
    """Computes the metrics of a dataset by COCO's rules.

    Average precisions equal those of pycocotools. Metrics do not depend on the order or the size of the updates, since
    images are sorted by id.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        boxes_kept: float = BOXES_KEPT,
        sink: Callable[[EvalData], None] | None = None,
    ) -> None:
        """Start without images.

        Args:
            names: of the classes.
            boxes_kept: predictions up to which `state` is available; more are counted, but not kept.
            sink: called with the images of each update.
        """
        self.names = tuple(names)
        self._boxes_kept, self._sink = boxes_kept, sink
        self._pool = ThreadPoolExecutor(_THREADS, "evaluator")
        self.reset()

    def reset(self) -> None:
        """Remove all images."""
        self._matched = MatchStore(len(self.names))
        self._matching: deque[Future[MatchStore]] = deque()  # in the order of the images
        self._pending: list[EvalData] = []  # not matched yet
        self._parts: list[EvalData] = []  # all images, while they have few boxes
        self._boxes = 0

    def update(
        self,
        image_ids: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        ground_truth: Sequence[Float[Tensor, "_ 5"]],
        detections: Sequence[Detections],
        crowd: Sequence[Bool[Tensor, " _"]] | None = None,
    ) -> None:
        """Add images.

        Args:
            image_ids: distinct ids.
            sizes: height and width of the image files.
            ground_truth: class, x1, y1, x2, y2 in pixels of the image files, on any device.
            detections: boxes in pixels of the image files, on any device.
            crowd: whether ground truth boxes are crowd regions, in which detections are ignored; none by default.

        Raises:
            ValueError: a class has no name, or the arguments have different lengths.
        """
        part = EvalData.from_images(image_ids, sizes, ground_truth, detections, crowd)
        for class_id in (part.ground_truth.class_id, part.predictions.class_id):
            if len(class_id) and not 0 <= class_id.min() <= class_id.max() < len(self.names):
                raise ValueError(f"class {class_id.min()} to {class_id.max()}, but there are {len(self.names)} names")
        if self._sink:
            self._sink(part)
        self.merge(part)

    @property
    def has_boxes(self) -> bool:
        """Whether there are few enough predictions for `state`."""
        return self._boxes <= self._boxes_kept

    def state(self) -> EvalData:
        """All images with their boxes. Raises ValueError where `has_boxes` is False or an image id occurs twice."""
        if not self.has_boxes:
            raise ValueError(f"only {self._boxes_kept:,} predictions are kept, but there are {self._boxes:,}")
        return EvalData.join(self._parts)

    def merge(self, state: EvalData) -> None:
        """Add the images of another evaluator of the same classes."""
        self._boxes += len(state.predictions.image)
        self._parts = [*self._parts, state] if self.has_boxes else []
        self._pending.append(state)
        if sum(len(part.predictions.image) for part in self._pending) >= _MATCHED_TOGETHER:
            self._begin_match()

    def shard(self) -> Shard:
        """Everything that `merge_shard` needs; can be pickled."""
        self._end_match()
        return Shard(self._matched, self._parts, self._boxes)

    def merge_shard(self, shard: Shard) -> None:
        """Add the images of another rank's evaluator."""
        self._matched.merge(shard.matched)
        self._boxes += shard.boxes
        self._parts = [*self._parts, *shard.parts] if self.has_boxes else []

    def _begin_match(self) -> None:
        if self._pending:
            self._matching.append(self._pool.submit(_match, self._pending, len(self.names)))
            self._pending = []
        while len(self._matching) > _THREADS:
            self._matched.merge(self._matching.popleft().result())

    def _end_match(self) -> None:
        self._begin_match()
        while self._matching:
            self._matched.merge(self._matching.popleft().result())

    def compute(self) -> Metrics:
        """The metrics of all images. Raises ValueError if an image id occurs twice."""
        self._end_match()
        matched = self._matched
        labels = matched.labels[0]
        present = np.flatnonzero(labels)
        precision_at = matched.precision(self._pool)
        confidence = matched.counts.confidence
        precision, recall, f1 = matched.counts.curves(present, labels[present])
        # Last axis: 0 is all sizes. First axis: 0 is IoU 0.5, 5 is IoU 0.75.
        envelope = precision_at[0, :, :, 0].T[present]
        curves = Curves(present, confidence, precision, recall, f1, np.linspace(0, 1, 101), envelope)
        best = int(f1.mean(axis=0).argmax()) if len(present) else 0
        at_best = [np.nan_to_num(curve[:, best]) for curve in (precision, recall, f1)]
        ap = precision_at.mean(axis=1)
        return Metrics(
            images=len(matched.image_ids()),
            labels=int(labels.sum()),
            precision=_mean(at_best[0]),
            recall=_mean(at_best[1]),
            f1=_mean(at_best[2]),
            best_confidence=float(confidence[best]) if len(present) else float("nan"),
            map50=_mean(precision_at[0, ..., 0]),
            map75=_mean(precision_at[5, ..., 0]),
            map50_95=_mean(precision_at[..., 0]),
            map_small=_mean(precision_at[..., 1]),
            map_medium=_mean(precision_at[..., 2]),
            map_large=_mean(precision_at[..., 3]),
            per_class=self._per_class(at_best, ap[:, :, 0]),
            curves=curves,
            confusion=matched.confusion.copy(),
        )

    def _per_class(
        self, at_best: list[Float[np.ndarray, " present"]], ap: Float[np.ndarray, "ious classes"]
    ) -> tuple[ClassMetrics, ...]:
        labels, images = self._matched.labels[0], self._matched.images_with
        return tuple(
            ClassMetrics(
                class_id=int(c),
                name=self.names[c],
                images=int(images[c]),
                labels=int(labels[c]),
                precision=float(at_best[0][row]),
                recall=float(at_best[1][row]),
                f1=float(at_best[2][row]),
                map50=float(ap[0, c]),
                map50_95=float(ap[:, c].mean()),
            )
            for row, c in enumerate(np.flatnonzero(labels))
        )


def _match(parts: Sequence[EvalData], classes: int) -> MatchStore:
    store = MatchStore(classes)
    store.add(EvalData.join(parts))
    return store


def _mean(values: Float[np.ndarray, "..."]) -> float:
    """The mean of the known values; COCO uses -1 for unknown ones. nan if there is none."""
    known = values[values > -1]
    return float(known.mean()) if len(known) else float("nan")
