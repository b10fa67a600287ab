"""YOLOv7's label assignment (`--loss ota`): SimOTA, which keeps the cheapest of the candidates of `assign`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

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


def pad_targets(targets: Float[Tensor, "n 6"], images: int, most: int) -> Float[Tensor, "p 6"]:
    """The targets with `most` rows per image. Rows that fill up have width and height 0, so that no anchor matches.

    `targets` are in the order of their images.
    """
    number = torch.arange(images, device=targets.device, dtype=targets.dtype)
    image = targets[:, 0].contiguous()
    within = torch.arange(len(targets), device=targets.device) - torch.searchsorted(image, image)
    padded = targets.new_zeros(images, most, 6)
    padded[:, :, 0] = number[:, None]
    padded[image.long(), within] = targets
    return padded.flatten(0, 1)


@torch.no_grad()
def simota_fixed(
    raw: RawMaps,
    candidates: Sequence[Assignment],
    targets: Float[Tensor, "p 6"],
    decode_boxes: Boxes,
    *,
    candidate_topk: int,
) -> list[Assignment]:
    """`simota` of the whole batch at once, in which no shape depends on values.

    Args:
        raw: raw predictions per scale.
        candidates: per scale, with a row for each possible match (`assign` with `fixed`).
        targets: padded to the same number per image (`pad_targets`).
        decode_boxes: the head's `boxes`.
        candidate_topk: number of IoUs that k is the sum of.

    Returns:
        The candidates per scale, each with its final target, and in `valid` whether it is assigned.
    """
    images = len(raw[0])
    most = len(targets) // images
    if not most:
        return list(candidates)
    by_image = [_ByImage(images, most, len(c)) for c in candidates]
    rows = [F.embedding(c.flat_index(y.shape), y.flatten(0, 3)).float() for y, c in zip(raw, candidates, strict=True)]
    decoded = [
        _in_input(decode_boxes(values[:, :4], c.anchor_wh, scale), c, y.shape)
        for scale, (y, values, c) in enumerate(zip(raw, rows, candidates, strict=True))
    ]
    valid = torch.cat([view.split(c.valid) for view, c in zip(by_image, candidates, strict=True)], 1)
    boxes = torch.cat([view.split(box) for view, box in zip(by_image, decoded, strict=True)], 1)
    logits = torch.cat([view.split(values[:, 4:]) for view, values in zip(by_image, rows, strict=True)], 1)
    gt = targets.view(images, most, 6)
    possible = valid[:, None] & (gt[:, :, 4] > 0)[:, :, None]
    iou = _batch_iou(cxcywh_to_xyxy(gt[..., 2:6]), cxcywh_to_xyxy(boxes)).masked_fill(~possible, 0.0)
    cost = _batch_class_cost(logits, gt[..., 1].long()) - IOU_WEIGHT * (iou + _EPS).log()
    matches = _batch_dynamic_k(cost.masked_fill(~possible, torch.inf), iou, candidate_topk) & possible
    assigned = matches.any(1)
    target = matches.int().argmax(1) + torch.arange(images, device=gt.device)[:, None] * most
    sizes = [view.per_image for view in by_image]
    parts = zip(raw, candidates, by_image, assigned.split(sizes, 1), target.split(sizes, 1), strict=True)
    return [_reassign(y, c, view.join(keep), view.join(new), targets) for y, c, view, keep, new in parts]


@dataclass(frozen=True, slots=True)
class _ByImage:
    """Rows of one scale, in the order neighbor and anchor, image, target; and the same by image."""

    images: int
    most: int  # targets per image
    rows: int

    @property
    def per_image(self) -> int:
        return self.rows // self.images

    def split(self, values: Tensor | None) -> Tensor:
        """(rows, …) → (images, rows per image, …)."""
        assert values is not None
        blocks = values.unflatten(0, (-1, self.images, self.most))
        return blocks.transpose(0, 1).flatten(1, 2)

    def join(self, values: Tensor) -> Tensor:
        """(images, rows per image) → (rows)."""
        return values.unflatten(1, (-1, self.most)).transpose(0, 1).flatten()


def _batch_iou(a: Float[Tensor, "b t 4"], b: Float[Tensor, "b r 4"]) -> Float[Tensor, "b t r"]:
    """`pairwise_iou` in each image."""
    a, b = a[:, :, None], b[:, None]
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - intersection
    return torch.where(union > 0, intersection / union, torch.zeros_like(union))


def _batch_class_cost(logits: Float[Tensor, "b r o"], classes: Int[Tensor, "b t"]) -> Float[Tensor, "b t r"]:
    """`class_cost` in each image."""
    none, correction = _class_terms(logits)
    index = classes[:, None].expand(-1, logits.shape[1], -1)
    return (correction.gather(2, index) - none[..., None]).transpose(1, 2)


def _batch_dynamic_k(
    cost: Float[Tensor, "b t r"], iou: Float[Tensor, "b t r"], candidate_topk: int
) -> Bool[Tensor, "b t r"]:
    """`dynamic_k` in each image. What is no candidate has an IoU of 0 and the highest costs, and may be True."""
    most = min(candidate_topk, iou.shape[2])
    k = iou.topk(most, dim=2).values.sum(2).int().clamp(min=1)
    cheapest = cost.argsort(dim=2, stable=True)[..., :most]  # k is at most the sum of so many IoUs
    taken = torch.arange(most, device=cost.device) < k[..., None]
    matches = torch.zeros_like(cost, dtype=torch.bool).scatter_(2, cheapest, taken)
    lowest_cost = torch.zeros_like(matches).scatter_(1, cost.argmin(1, keepdim=True), True)
    return torch.where((matches & cost.isfinite()).sum(1, keepdim=True) > 1, lowest_cost, matches)


def class_cost(logits: Float[Tensor, "r o"], classes: Int[Tensor, " t"]) -> Float[Tensor, "t r"]:
    """Binary cross-entropy of √(class · objectness) against the one-hot class of each target, summed over classes.

    Columns of `logits` are objectness, then the classes.
    """
    none, correction = _class_terms(logits)
    return correction[:, classes].T - none


def _class_terms(logits: Float[Tensor, "*r o"]) -> tuple[Float[Tensor, "*r"], Float[Tensor, "*r c"]]:
    """Minus the class cost for no class at all, and what the target's class adds to the cost."""
    probability = (logits[..., 1:].sigmoid() * logits[..., :1].sigmoid()).sqrt().clamp(_EPS, 1 - 1e-6)
    log_p, log_not_p = probability.log(), (1 - probability).log()
    return log_not_p.sum(-1), log_not_p - log_p


def dynamic_k(cost: Float[Tensor, "t r"], iou: Float[Tensor, "t r"], candidate_topk: int) -> Bool[Tensor, "t r"]:
    """The assignment matrix: row t has the candidates of target t. No column has more than one True."""
    k = iou.topk(min(candidate_topk, iou.shape[1]), dim=1).values.sum(1).int().clamp(min=1)
    rank = cost.argsort(dim=1, stable=True).argsort(dim=1)
    matches = rank < k.unsqueeze(1)
    lowest_cost = torch.zeros_like(matches).scatter_(0, cost.argmin(0, keepdim=True), True)
    return torch.where(matches.sum(0) > 1, lowest_cost, matches)


def _decode(y: Tensor, c: Assignment, decode_boxes: Boxes, scale: int) -> Tensor:
    """Predicted cx, cy, w, h of the matches, as fractions of the network input."""
    box = decode_boxes(y[c.image, c.anchor, c.row, c.column, :4].float(), c.anchor_wh, scale)
    return _in_input(box, c, y.shape)


def _in_input(box: Tensor, c: Assignment, shape: Sequence[int]) -> Tensor:
    """Decoded boxes of the matches, in cells and relative to their cells, as fractions of the network input."""
    center = box[:, :2] + torch.stack((c.column, c.row), 1)
    return torch.cat((center, box[:, 2:]), 1) / _sides(box, shape)


def _sides(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Columns, rows, columns, rows of a scale. Filled in, because a tensor of Python numbers waits for a GPU."""
    rows, columns = shape[2:4]
    sides = like.new_full((4,), columns)
    sides[1::2] = rows
    return sides


def _reassign(y: Tensor, c: Assignment, keep: Tensor, target: Tensor, targets: Tensor) -> Assignment:
    """The candidates of one scale with their new targets, where `keep` is True for those that are assigned.

    The others are removed, or if the number of rows is fixed (`valid` is given), marked as not valid.
    """
    rows = torch.arange(len(c), device=keep.device) if c.valid is not None else keep.nonzero()[:, 0]
    row, column, target = c.row[rows], c.column[rows], target[rows]
    box = targets[target, 2:6] * _sides(targets, y.shape)
    box[:, :2] -= torch.stack((column, row), 1)
    return Assignment(
        image=c.image[rows],
        anchor=c.anchor[rows],
        row=row,
        column=column,
        class_id=targets[target, 1].long(),
        box=box,
        anchor_wh=c.anchor_wh[rows],
        target=target,
        valid=None if c.valid is None else keep,
    )
