"""Optimal-transport matching: of all candidates, each target keeps the predictions that suit it best."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.boxes.iou import pairwise_iou
from yolo_cli.loss.assign import Assignment
from yolo_cli.model.heads import Boxes, RawMaps

IOU_WEIGHT = 3.0  # of the overlap in the cost, beside the class
_EPS = 1e-8


@torch.no_grad()
def transport(
    raw: RawMaps, candidates: Sequence[Assignment], targets: Float[Tensor, "n 6"], boxes_of: Boxes, *, best: int
) -> list[Assignment]:
    """What remains of the candidates of `assign` once every prediction answers for at most one target of its image.

    A simplified optimal transport (Ge et al. 2021, "YOLOX", SimOTA): the cost of a target and a candidate is the
    binary cross-entropy of √(class · objectness) against the target's class, plus 3 · −log IoU. A target takes its k
    cheapest candidates, k being the sum of its `best` largest IoUs, truncated, at least 1. A candidate that several
    targets take goes to the target of least cost. Any target of an image may take any of the image's candidates,
    whichever target they were made for.

    Args:
        raw: predictions per scale.
        candidates: per scale, matches of those predictions.
        targets: image, class, cx, cy, w, h; the box as fractions of the canvas.
        boxes_of: how the head codes boxes.
        best: how many IoUs count for k.
    """
    counts = [len(c) for c in candidates]
    image = torch.cat([c.image for c in candidates])
    chosen = torch.cat([y[c.image, c.anchor, c.row, c.column].float() for y, c in zip(raw, candidates, strict=True)])
    coded = [_boxes(y, c, boxes_of, scale) for scale, (y, c) in enumerate(zip(raw, candidates, strict=True))]
    boxes = cxcywh_to_xyxy(torch.cat(coded))
    kept = torch.zeros_like(image, dtype=torch.bool)
    target = torch.zeros_like(image)
    for number in image.unique().tolist():
        rows, truths = (image == number).nonzero()[:, 0], (targets[:, 0] == number).nonzero()[:, 0]
        iou = pairwise_iou(cxcywh_to_xyxy(targets[truths, 2:6]), boxes[rows])
        cost = class_cost(chosen[rows, 4:], targets[truths, 1].long()) - IOU_WEIGHT * (iou + _EPS).log()
        taken = dynamic_k(cost, iou, best)
        kept[rows] = taken.any(0)
        target[rows] = truths[taken.int().argmax(0)]
    parts = zip(raw, candidates, kept.split(counts), target.split(counts), strict=True)
    return [_kept(y, c, keep, new, targets) for y, c, keep, new in parts]


def class_cost(logits: Float[Tensor, "r o"], classes: Int[Tensor, " t"]) -> Float[Tensor, "t r"]:
    """Cross-entropy of √(class · objectness) for each target's class, summed over classes; objectness comes first."""
    probability = (logits[:, 1:].sigmoid() * logits[:, :1].sigmoid()).sqrt().clamp(_EPS, 1 - 1e-6)
    present, absent = probability.log(), (1 - probability).log()
    # all classes as if absent, but the target's own
    return (absent - present)[:, classes].T - absent.sum(1)


def dynamic_k(cost: Float[Tensor, "t r"], iou: Float[Tensor, "t r"], best: int) -> Bool[Tensor, "t r"]:
    """Which target takes which candidate; no candidate is taken twice."""
    k = iou.topk(min(best, iou.shape[1]), dim=1).values.sum(1).int().clamp(min=1)
    rank = cost.argsort(dim=1, stable=True).argsort(dim=1)
    taken = rank < k.unsqueeze(1)
    cheapest = torch.zeros_like(taken).scatter_(0, cost.argmin(0, keepdim=True), True)
    return torch.where(taken.sum(0) > 1, cheapest, taken)


def _boxes(y: Tensor, c: Assignment, boxes_of: Boxes, scale: int) -> Tensor:
    """Predicted cx, cy, w, h of the matches, as fractions of the canvas."""
    rows, columns = y.shape[2:4]
    box = boxes_of(y[c.image, c.anchor, c.row, c.column, :4].float(), c.anchor_wh, scale)
    centre = box[:, :2] + torch.stack((c.column, c.row), 1)
    return torch.cat((centre, box[:, 2:]), 1) / box.new_tensor([columns, rows, columns, rows])


def _kept(y: Tensor, c: Assignment, keep: Tensor, target: Tensor, targets: Tensor) -> Assignment:
    """The candidates of one scale that were taken, each with its new target."""
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
