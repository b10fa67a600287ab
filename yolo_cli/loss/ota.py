"""YOLOv7's label assignment (`--loss ota`): SimOTA, which keeps the cheapest of the candidates of `assign`."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.boxes.iou import pairwise_iou
from yolo_cli.loss.assign import Assignment
from yolo_cli.model.heads import Boxes, RawMaps

IOU_WEIGHT = 3.0  # weight of −log IoU in the cost; the class cost has weight 1
_EPS = 1e-8


@torch.no_grad()
def simota(
    raw: RawMaps,
    candidates: Sequence[Assignment],
    targets: Float[Tensor, "n 6"],
    decode_boxes: Boxes,
    *,
    candidate_topk: int,
) -> list[Assignment]:
    """Reduce the candidates so that each prediction is assigned to at most one target of its image.

    A simplified optimal transport assignment (Ge et al. 2021, "YOLOX", section 2.1). The cost of a target and a
    candidate is the binary cross-entropy of √(class · objectness) for the target's class, plus 3 · −log IoU. A target
    takes its k candidates of lowest cost. k is the sum of its `candidate_topk` largest IoUs, rounded down, at least 1.
    A candidate taken by several targets is assigned to the target with the lowest cost. A target can take every
    candidate of its image, also one that `assign` made for another target.

    Args:
        raw: raw predictions per scale.
        candidates: matches per scale.
        targets: image, class, cx, cy, w, h; boxes are fractions of the network input.
        decode_boxes: the head's `boxes`.
        candidate_topk: number of IoUs that k is the sum of.

    Returns:
        The assigned candidates per scale, each with its final target.
    """
    counts = [len(c) for c in candidates]
    image = torch.cat([c.image for c in candidates])
    predictions = torch.cat(
        [y[c.image, c.anchor, c.row, c.column].float() for y, c in zip(raw, candidates, strict=True)]
    )
    decoded = [_decode(y, c, decode_boxes, scale) for scale, (y, c) in enumerate(zip(raw, candidates, strict=True))]
    boxes = cxcywh_to_xyxy(torch.cat(decoded))
    assigned = torch.zeros_like(image, dtype=torch.bool)
    target = torch.zeros_like(image)
    for image_id in image.unique().tolist():
        rows, gt = (image == image_id).nonzero()[:, 0], (targets[:, 0] == image_id).nonzero()[:, 0]
        iou = pairwise_iou(cxcywh_to_xyxy(targets[gt, 2:6]), boxes[rows])
        cost = class_cost(predictions[rows, 4:], targets[gt, 1].long()) - IOU_WEIGHT * (iou + _EPS).log()
        matches = dynamic_k(cost, iou, candidate_topk)
        assigned[rows] = matches.any(0)
        target[rows] = gt[matches.int().argmax(0)]
    parts = zip(raw, candidates, assigned.split(counts), target.split(counts), strict=True)
    return [_reassign(y, c, keep, new, targets) for y, c, keep, new in parts]


def class_cost(logits: Float[Tensor, "r o"], classes: Int[Tensor, " t"]) -> Float[Tensor, "t r"]:
    """Binary cross-entropy of √(class · objectness) against the one-hot class of each target, summed over classes.

    Columns of `logits` are objectness, then the classes.
    """
    probability = (logits[:, 1:].sigmoid() * logits[:, :1].sigmoid()).sqrt().clamp(_EPS, 1 - 1e-6)
    log_p, log_not_p = probability.log(), (1 - probability).log()
    # the sum for no class at all, corrected at the target's class
    return (log_not_p - log_p)[:, classes].T - log_not_p.sum(1)


def dynamic_k(cost: Float[Tensor, "t r"], iou: Float[Tensor, "t r"], candidate_topk: int) -> Bool[Tensor, "t r"]:
    """The assignment matrix: row t has the candidates of target t. No column has more than one True."""
    k = iou.topk(min(candidate_topk, iou.shape[1]), dim=1).values.sum(1).int().clamp(min=1)
    rank = cost.argsort(dim=1, stable=True).argsort(dim=1)
    matches = rank < k.unsqueeze(1)
    lowest_cost = torch.zeros_like(matches).scatter_(0, cost.argmin(0, keepdim=True), True)
    return torch.where(matches.sum(0) > 1, lowest_cost, matches)


def _decode(y: Tensor, c: Assignment, decode_boxes: Boxes, scale: int) -> Tensor:
    """Predicted cx, cy, w, h of the matches, as fractions of the network input."""
    rows, columns = y.shape[2:4]
    box = decode_boxes(y[c.image, c.anchor, c.row, c.column, :4].float(), c.anchor_wh, scale)
    center = box[:, :2] + torch.stack((c.column, c.row), 1)
    return torch.cat((center, box[:, 2:]), 1) / box.new_tensor([columns, rows, columns, rows])


def _reassign(y: Tensor, c: Assignment, keep: Tensor, target: Tensor, targets: Tensor) -> Assignment:
    """The candidates of one scale where `keep` is set, with their new targets."""
    rows, columns = y.shape[2:4]
    row, column, target = c.row[keep], c.column[keep], target[keep]
    box = targets[target, 2:6] * targets.new_tensor([columns, rows, columns, rows])
    box[:, :2] -= torch.stack((column, row), 1)
    return Assignment(
        image=c.image[keep],
        anchor=c.anchor[keep],
        row=row,
        column=column,
        class_id=targets[target, 1].long(),
        box=box,
        anchor_wh=c.anchor_wh[keep],
        target=target,
    )
