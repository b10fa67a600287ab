"""From decoded predictions to detections: confidence thresholds, then non-maximum suppression per class."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from yolo_cli.batch import Detections
from yolo_cli.boxes.batched_nms import suppress_batch
from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.boxes.greedy_nms import nms
from yolo_cli.boxes.nms_limits import NMSLimits, true_positions
from yolo_cli.config.thresholds import Conf, lowest

__all__ = ["nms", "non_max_suppression"]

MAX_CANDIDATES = 30_000  # of an image, the most confident ones; the usual limit, since NMS is quadratic
# Boxes that are tried first, the most confident ones. Measured with yolov5n at confidence 0.001: with fewer, crowded
# images need a second pass.
CANDIDATES_PER_DETECTION = 8


def non_max_suppression(
    decoded: Float[Tensor, "b n outputs"] | Sequence[Float[Tensor, "_ outputs"]],
    *,
    conf: Conf,
    iou: float,
    max_det: int,
    multi_label: bool,
    agnostic: bool = False,
    classes: Int[Tensor, " k"] | None = None,
) -> list[Detections]:
    """Detections of each image of a batch, most confident first.

    The confidence of a detection is objectness times class probability. The result for an image does not depend on the
    other images of the batch.

    Args:
        decoded: cx, cy, w, h in pixels, objectness, class probabilities; images can have different numbers of rows.
        conf: confidence threshold, exclusive; one for all classes, or one per class.
        iou: IoU threshold for NMS.
        max_det: maximum detections per image.
        multi_label: whether a box can have several classes (as usual in evaluation) or only the most confident one.
        agnostic: whether boxes of different classes suppress each other.
        classes: ids of the classes to detect; all if None.
    """
    limits = NMSLimits(conf, iou, max_det, multi_label=multi_label, agnostic=agnostic, classes=classes)
    if len(decoded) > 1 and decoded[0].is_cuda and len({len(rows) for rows in decoded}) == 1:
        batch = decoded if isinstance(decoded, Tensor) else torch.stack(list(decoded))
        found = suppress_batch(batch, limits)
        return [suppress_image(rows, limits) if one is None else one for rows, one in zip(batch, found, strict=True)]
    return [suppress_image(rows, limits) for rows in decoded]


def suppress_image(rows: Float[Tensor, "n outputs"], limits: NMSLimits) -> Detections:
    """Detections of one image, from no more of its boxes than `max_det` detections take.

    Only more confident boxes suppress a box, so NMS of the boxes above any confidence gives the first of all
    detections. If `max_det` remain, the other boxes are not needed. A box is at most as confident as the objectness of
    its row, so the boxes above the objectness of a row are found without the rows that follow it.
    """
    objectness = rows[:, 4].contiguous()
    confident = true_positions(objectness > lowest(limits.conf))
    count = CANDIDATES_PER_DETECTION * limits.max_det
    while True:
        chosen, floor = _above_kth(objectness.index_select(0, confident), count)
        part = rows.index_select(0, confident[chosen])
        row, class_id, confidence = _candidates(part, limits, floor)
        if count < MAX_CANDIDATES:
            best, next_confidence = _above_kth(confidence, count)
        else:
            best, next_confidence = _most_confident(confidence, MAX_CANDIDATES), None
        row, class_id, confidence = row[best], class_id[best], confidence[best]
        xyxy = cxcywh_to_xyxy(part[:, :4].float()).index_select(0, row)
        group = torch.zeros_like(class_id) if limits.agnostic else class_id
        kept = nms(xyxy, confidence, group, limits.iou)[: limits.max_det]
        if len(kept) == limits.max_det or (floor is None and next_confidence is None):
            return Detections(xyxy[kept], confidence[kept].float(), class_id[kept])
        count *= 4


def _above_kth(values: Float[Tensor, " n"], k: int) -> tuple[Int[Tensor, " m"] | slice, Float[Tensor, ""] | None]:
    """Positions of the values above the k-th highest one, and that value; all positions and None if there are k."""
    if len(values) <= k:
        return slice(None), None
    if values.is_cpu and values.dtype == torch.float32:  # numpy takes a third of the time
        kth = torch.from_numpy(np.partition(values.numpy(force=True), len(values) - k))[len(values) - k]
    else:
        kth = values.topk(k).values[-1]
    return true_positions(values > kth), kth


def _most_confident(confidence: Float[Tensor, " n"], most: int) -> Int[Tensor, " m"] | slice:
    """Positions of the highest values; between equal ones, the first."""
    return confidence.argsort(descending=True, stable=True)[:most] if len(confidence) > most else slice(None)


def _candidates(
    rows: Float[Tensor, "n outputs"], limits: NMSLimits, floor: Float[Tensor, ""] | None
) -> tuple[Int[Tensor, " c"], Int[Tensor, " c"], Float[Tensor, " c"]]:
    """Row, class and confidence of the boxes that exceed the confidence threshold and `floor`."""
    scores, threshold = limits.scores(rows), limits.threshold(rows.device)
    if floor is not None:
        threshold = floor.clamp(min=threshold)
    if limits.multi_label:
        position = true_positions(scores > threshold)
        row, class_id = position // scores.shape[1], position % scores.shape[1]
        confidence = scores.flatten().index_select(0, position)
    else:
        confidence, class_id = scores.max(dim=1)
        own = threshold[class_id] if isinstance(threshold, Tensor) and threshold.dim() else threshold
        row = true_positions(confidence > own)
        confidence, class_id = confidence[row], class_id[row]
    return row, class_id, confidence
