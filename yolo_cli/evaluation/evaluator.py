"""The evaluator: collects ground truth and predictions in batches and computes COCO metrics."""

from collections.abc import Sequence

import hotcoco
import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from yolo_cli.batch import Detections
from yolo_cli.evaluation.curves import CONFUSION_CONFIDENCE, confidence_curves, confusion_matrix
from yolo_cli.evaluation.eval_data import EvalData
from yolo_cli.evaluation.matching import MAX_PER_CLASS
from yolo_cli.evaluation.result import ClassMetrics, Curves, Metrics

__all__ = ["ClassMetrics", "Curves", "Evaluator", "Metrics"]


class Evaluator:
    """Computes the metrics of a dataset by COCO's rules.

    Average precisions equal those of pycocotools. Metrics do not depend on the order or the size of the updates, since
    images are sorted by id.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._parts: list[EvalData] = []

    def reset(self) -> None:
        """Remove all images."""
        self._parts = []

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
        self._parts.append(part)

    def state(self) -> EvalData:
        """All images; can be pickled and merged into the evaluator of another rank."""
        return EvalData.join(self._parts)

    def merge(self, state: EvalData) -> None:
        """Add the images of another evaluator of the same classes."""
        self._parts.append(state)

    def compute(self) -> Metrics:
        """The metrics of all images. Raises ValueError if an image id occurs twice."""
        data, classes = self.state(), len(self.names)
        labels = np.bincount(data.ground_truth.class_id[~data.ground_truth.crowd], minlength=classes)
        present = np.flatnonzero(labels)
        precision_at = _coco_precision(data, self.names)
        confidence, precision, recall, f1 = confidence_curves(data, present, classes)
        # Last axis: 0 is all sizes. First axis: 0 is IoU 0.5, 5 is IoU 0.75.
        envelope = precision_at[0, :, :, 0].T[present]
        curves = Curves(present, confidence, precision, recall, f1, np.linspace(0, 1, 101), envelope)
        best = int(f1.mean(axis=0).argmax()) if len(present) else 0
        at_best = [np.nan_to_num(curve[:, best]) for curve in (precision, recall, f1)]
        ap = precision_at.mean(axis=1)
        return Metrics(
            images=len(data.image_ids),
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
            per_class=self._per_class(data, labels, at_best, ap[:, :, 0]),
            curves=curves,
            confusion=confusion_matrix(data, classes, confidence=CONFUSION_CONFIDENCE, iou=0.5),
        )

    def _per_class(
        self,
        data: EvalData,
        labels: Int[np.ndarray, " classes"],
        at_best: list[Float[np.ndarray, " present"]],
        ap: Float[np.ndarray, "ious classes"],
    ) -> tuple[ClassMetrics, ...]:
        gt = data.ground_truth
        pairs = np.unique(np.stack([gt.class_id, gt.image])[:, ~gt.crowd], axis=1)
        images = np.bincount(pairs[0], minlength=len(labels))
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


def _coco_precision(data: EvalData, names: Sequence[str]) -> Float[np.ndarray, "10 101 classes 4"]:
    """Interpolated precision by IoU (0.5 … 0.95), recall (0 … 1), class and area (all, small, medium, large).

    -1 if there is no ground truth of that class and size.
    """
    # Positions instead of image ids, which can be too large for the float array of the predictions.
    sizes = data.sizes.tolist()
    images = [{"id": i, "height": height, "width": width} for i, (height, width) in enumerate(sizes, start=1)]
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    gt, pred = data.ground_truth, data.predictions
    coco_gt = hotcoco.COCO.from_arrays(
        images,
        categories,
        gt.image + 1,
        gt.class_id,
        gt.xywh,
        area=gt.xywh[:, 2] * gt.xywh[:, 3],
        iscrowd=gt.crowd.astype(np.int64),
    )
    rows = np.column_stack([pred.image + 1, pred.xywh, pred.confidence, pred.class_id])
    evaluation = hotcoco.COCOeval(coco_gt, coco_gt.load_res(rows), "bbox")
    evaluation.params.max_dets = [MAX_PER_CLASS]
    evaluation.evaluate()
    evaluation.accumulate()
    if evaluation.eval is None:
        raise RuntimeError("hotcoco returned no result")
    return evaluation.eval["precision"][..., 0]


def _mean(values: Float[np.ndarray, "..."]) -> float:
    """The mean of the known values; COCO uses -1 for unknown ones. nan if there is none."""
    known = values[values > -1]
    return float(known.mean()) if len(known) else float("nan")
