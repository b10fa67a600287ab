"""Non-maximum suppression of all images of a batch at once, for devices where each call and each wait costs time."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from yolo_cli.batch import Detections
from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.boxes.greedy_nms import load_operator
from yolo_cli.boxes.nms_limits import NMSLimits
from yolo_cli.config.thresholds import lowest

TOP_ROWS, TOP_CANDIDATES = 2048, 2048  # per image
_BOXES_PER_CALL = 1 << 15  # the operator needs a bit per pair of boxes: 128 MB


def suppress_batch(
    decoded: Float[Tensor, "b n outputs"],
    limits: NMSLimits,
    *,
    top_rows: int = TOP_ROWS,
    top_candidates: int = TOP_CANDIDATES,
) -> list[Detections | None]:
    """Detections of each image, or None for an image that needs more candidates.

    Only the `top_rows` rows of highest objectness and of these the `top_candidates` most confident boxes are used. The
    detections are those of all boxes if none was left out or if `max_det` remain: see `nms.suppress_image`.
    """
    rows, floor = _top_rows(decoded, limits, top_rows)
    confidence, row, class_id, is_cut = _top_candidates(rows, floor, limits, top_candidates)
    is_cut |= floor > 0
    xyxy = cxcywh_to_xyxy(rows[..., :4].float()).gather(1, row[..., None].expand(-1, -1, 4))
    group = torch.zeros_like(class_id) if limits.agnostic else class_id
    images = max(_BOXES_PER_CALL // max(confidence.shape[1], 1), 1)
    found: list[Detections | None] = []
    for boxes, scores, ids, groups, cut in zip(
        *(values.split(images) for values in (xyxy, confidence, class_id, group, is_cut)), strict=True
    ):
        kept, counts = _nms(boxes, scores, groups, limits)
        sizes, unfinished = torch.stack((counts, cut.long())).tolist()
        columns = (column.flatten(0, 1)[kept].split(sizes) for column in (boxes, scores, ids))
        for one, is_unfinished in zip(zip(*columns, strict=True), unfinished, strict=True):
            needs_more = is_unfinished and len(one[1]) < limits.max_det
            found.append(None if needs_more else Detections(*one))
    return found


def _top_rows(
    decoded: Float[Tensor, "b n outputs"], limits: NMSLimits, count: int
) -> tuple[Float[Tensor, "b k outputs"], Float[Tensor, " b"]]:
    """The rows of highest objectness, in their order; and the objectness that all others have at most.

    The latter is 0 if no other row exceeds the confidence threshold.
    """
    if count >= decoded.shape[1]:
        return decoded, decoded.new_zeros(len(decoded))
    objectness, position = decoded[..., 4].topk(count + 1)
    position = position[:, :count].sort().values
    floor = objectness[:, -1]
    chosen = decoded.gather(1, position[..., None].expand(-1, -1, decoded.shape[2]))
    return chosen, torch.where(floor > lowest(limits.conf), floor, 0.0)


def _top_candidates(
    rows: Float[Tensor, "b k outputs"], floor: Float[Tensor, " b"], limits: NMSLimits, count: int
) -> tuple[Float[Tensor, "b c"], Int[Tensor, "b c"], Int[Tensor, "b c"], Bool[Tensor, " b"]]:
    """Confidence (0: no box), row and class of the most confident boxes; and whether an image has more of them.

    Boxes of equal confidence are in the order of their rows.
    """
    scores, classes = limits.scores(rows), rows.shape[2] - 5
    counts = (rows[..., 4:5] > lowest(limits.conf)) & (scores > limits.threshold(rows.device))
    counts &= scores > floor[:, None, None]
    if not limits.multi_label:
        counts &= torch.arange(classes, device=rows.device) == scores.argmax(2, keepdim=True)
    confidence = torch.where(counts, scores, 0.0).float().flatten(1)
    # The bits of positive floats are in their order. The position in the low half makes all keys distinct.
    position = torch.arange(confidence.shape[1], device=rows.device)
    key = (confidence.view(torch.int32).long() << 32) - position
    top = key.topk(min(count, len(position))).indices
    chosen = confidence.gather(1, top)
    return chosen, top // classes, top % classes, counts.flatten(1).sum(1) > (chosen > 0).sum(1)


def _nms(
    xyxy: Float[Tensor, "b c 4"], confidence: Float[Tensor, "b c"], group: Int[Tensor, "b c"], limits: NMSLimits
) -> tuple[Int[Tensor, " k"], Int[Tensor, " b"]]:
    """Positions in the flattened candidates of those that remain, image by image, and their number per image."""
    load_operator()
    candidate = (confidence.flatten() > 0).nonzero().squeeze(1)
    if len(candidate) == 0:
        return candidate, candidate.new_zeros(len(xyxy))
    image = candidate // confidence.shape[1]
    boxes = xyxy.flatten(0, 1)[candidate].double()
    # Shift images and classes apart, so that one call suffices. In float64, large offsets do not cost precision.
    span = boxes.max() - boxes.min() + 1
    shift = (image * (group.max() + 1) + group.flatten()[candidate]) * span
    kept = torch.ops.torchvision.nms(boxes + shift[:, None], confidence.flatten()[candidate].double(), limits.iou)
    kept = kept[image[kept].argsort(stable=True)]
    counts = image[kept].bincount(minlength=len(xyxy))
    rank = torch.arange(len(kept), device=kept.device) - (counts.cumsum(0) - counts)[image[kept]]
    return candidate[kept[rank < limits.max_det]], counts.clamp(max=limits.max_det)
