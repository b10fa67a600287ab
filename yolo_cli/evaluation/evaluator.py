"""The evaluator: truths and detections in, batch by batch; COCO metrics out."""

from collections.abc import Sequence

import hotcoco
import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from yolo_cli.batch import Detections
from yolo_cli.evaluation.curves import CONFUSION_CONFIDENCE, confidence_curves, confusion_matrix
from yolo_cli.evaluation.eval_data import Columns, columns
from yolo_cli.evaluation.matching import MAX_PER_CLASS
from yolo_cli.evaluation.result import ClassMetrics, Curves, Metrics

__all__ = ["ClassMetrics", "Curves", "Evaluator", "Metrics"]


class Evaluator:
    """Collects a data set's truths and detections and judges them as COCO does.

    Average precisions equal those of pycocotools. The result does not depend on the order or the size of the updates:
    images are judged in ascending order of their ids, also where confidences are equal.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._parts: list[Columns] = []

    def reset(self) -> None:
        """Forget everything seen."""
        self._parts = []

    def update(
        self,
        image_ids: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        truths: Sequence[Float[Tensor, "_ 5"]],
        detections: Sequence[Detections],
        crowd: Sequence[Bool[Tensor, " _"]] | None = None,
    ) -> None:
        """Add a few images, each known by an integer id that no other has.

        `sizes` are (height, width) of the image files; `truths` rows are (class, x1, y1, x2, y2), and these and the
        detections are in pixels of the image files, on any device. `crowd` marks truths that stand for a crowd: found
        again they count neither for nor against. Raises `ValueError` for a class without a name.
        """
        part = columns(image_ids, sizes, truths, detections, crowd)
        for class_id in (part.truths.class_id, part.found.class_id):
            if len(class_id) and not 0 <= class_id.min() <= class_id.max() < len(self.names):
                raise ValueError(f"class {class_id.min()} to {class_id.max()}, but there are {len(self.names)} names")
        self._parts.append(part)

    def state(self) -> Columns:
        """All that was seen, as a value that pickles: send it to the process that computes."""
        return Columns.join(self._parts)

    def merge(self, state: Columns) -> None:
        """Add what another evaluator of the same classes saw."""
        self._parts.append(state)

    def compute(self) -> Metrics:
        """Judge everything seen. Raises `ValueError` where an image id came twice."""
        data, classes = self.state(), len(self.names)
        labels = np.bincount(data.truths.class_id[~data.truths.crowd], minlength=classes)
        present = np.flatnonzero(labels)
        precision_at = _coco_precision(data, self.names)
        confidence, precision, recall, f1 = confidence_curves(data, present, classes)
        # In the last axis 0 is "all sizes"; in the first 0 is IoU 0.5 and 5 is IoU 0.75.
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
        data: Columns,
        labels: Int[np.ndarray, " classes"],
        at_best: list[Float[np.ndarray, " present"]],
        ap: Float[np.ndarray, "ious classes"],
    ) -> tuple[ClassMetrics, ...]:
        pairs = np.unique(np.stack([data.truths.class_id, data.truths.image])[:, ~data.truths.crowd], axis=1)
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


def _coco_precision(data: Columns, names: Sequence[str]) -> Float[np.ndarray, "10 101 classes 4"]:
    """Interpolated precision over IoU 0.5 … 0.95, recall 0 … 1, class and area (all, small, medium, large).

    -1 stands where there is no truth of that class and size.
    """
    # Positions stand for image ids, which may be too long for the float array that detections travel in.
    sizes = data.sizes.tolist()
    images = [{"id": i, "height": height, "width": width} for i, (height, width) in enumerate(sizes, start=1)]
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    truths, found = data.truths, data.found
    truth = hotcoco.COCO.from_arrays(
        images,
        categories,
        truths.image + 1,
        truths.class_id,
        truths.xywh,
        area=truths.xywh[:, 2] * truths.xywh[:, 3],
        iscrowd=truths.crowd.astype(np.int64),
    )
    rows = np.column_stack([found.image + 1, found.xywh, found.confidence, found.class_id])
    evaluation = hotcoco.COCOeval(truth, truth.load_res(rows), "bbox")
    evaluation.params.max_dets = [MAX_PER_CLASS]
    evaluation.evaluate()
    evaluation.accumulate()
    if evaluation.eval is None:
        raise RuntimeError("hotcoco gave no result")
    return np.asarray(evaluation.eval["precision"])[..., 0]


def _mean(values: Float[np.ndarray, "..."]) -> float:
    """The mean of what is known (COCO writes -1 for unknown), else nan."""
    known = values[values > -1]
    return float(known.mean()) if len(known) else float("nan")
