"""YOLOX's loss for heads without anchors (Ge et al. 2021), and the assignment over all cells that it is made of."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from yolo_cli.batch import TargetCounts
from yolo_cli.boxes.convert import cxcywh_to_xyxy
from yolo_cli.config import Hyperparameters
from yolo_cli.distributed.world import SINGLE_PROCESS, World
from yolo_cli.loss.detection import LossOutput, LossWeights
from yolo_cli.loss.ignore import cells_to_ignore, split_targets
from yolo_cli.model.heads import Head, RawMaps, cell_grid

CENTER_RADIUS = 1.5  # in cells: a cell whose center is nearer than this to a target's, in x and in y, is a candidate
CANDIDATE_TOPK = 10  # number of IoUs that dynamic k is the sum of
IOU_COST = 3.0  # weight of −log IoU in the cost; the class cost has weight 1
FAR_COST = 1e6  # added for candidates that are near another target only
PUBLISHED_WEIGHTS = LossWeights(box=5.0, obj=1.0, cls=1.0)


@dataclass(frozen=True, slots=True)
class Cells:
    """The predictions of a batch. Cells are numbered row by row through the scales in order."""

    head: Head
    raw: tuple[Float[Tensor, "b _ o"], ...]  # per scale, before any sigmoid: box, objectness, classes
    corner: Float[Tensor, "n 2"]  # column and row
    stride: Float[Tensor, " n"]
    size: tuple[int, int]  # height and width of the network input

    @classmethod
    def of(cls, head: Head, raw: RawMaps) -> "Cells":
        """The cells of raw maps of a head without anchors, which has one prediction per cell."""
        flat = tuple(y.reshape(len(y), -1, y.shape[-1]) for y in raw)
        corners = [cell_grid(y.shape[2], y.shape[3], y.device).view(-1, 2) for y in raw]
        strides = [corner.new_full((len(corner),), s) for corner, s in zip(corners, head.strides, strict=True)]
        size = raw[0].shape[2] * head.strides[0], raw[0].shape[3] * head.strides[0]
        return cls(head, flat, torch.cat(corners), torch.cat(strides), size)

    def objectness(self) -> Float[Tensor, "b n"]:
        """Raw objectness of all cells."""
        return torch.cat([y[..., 4].float() for y in self.raw], 1)

    def in_regions(self, regions: Float[Tensor, "r 6"]) -> Bool[Tensor, "b n"]:
        """Which cells have their center in one of the regions (image, class, cx, cy, w, h as fractions)."""
        height, width = self.size
        shapes = [(height // stride, width // stride) for stride in self.head.strides]
        return torch.cat([cells_to_ignore(regions, len(self.raw[0]), *shape).flatten(1) for shape in shapes], 1)

    def at(
        self, image: Int[Tensor, " m"], cell: Int[Tensor, " m"]
    ) -> tuple[Float[Tensor, "m o"], Float[Tensor, "m 4"]]:
        """Raw values of some cells, and their boxes decoded: cx, cy, w, h in pixels."""
        start = 0
        values = boxes = self.stride.new_zeros(0)
        for scale, y in enumerate(self.raw):
            # Every scale is read for all cells, so that no shape depends on values. What other scales have is replaced.
            here = (cell >= start)[:, None]
            own_values = y[image, (cell - start).clamp(0, y.shape[1] - 1)].float()
            own_boxes = self.head.boxes(own_values[:, :4], self.head.base_wh(scale), scale)
            values = torch.where(here, own_values, values) if start else own_values
            boxes = torch.where(here, own_boxes, boxes) if start else own_boxes
            start += y.shape[1]
        center = boxes[:, :2] + self.corner[cell]
        return values, torch.cat((center, boxes[:, 2:]), 1) * self.stride[cell, None]

    def sides(self) -> Float[Tensor, "4"]:
        """Width, height, width, height of the network input."""
        height, width = self.size
        sides = self.stride.new_full((4,), width)  # a tensor made of Python numbers would wait for a GPU
        sides[1::2] = height
        return sides


@dataclass(frozen=True, slots=True)
class CellAssignment:
    """Row i says that the cell (image, cell)[i] is assigned to the target of row target[i]."""

    image: Int[Tensor, " m"]
    cell: Int[Tensor, " m"]
    target: Int[Tensor, " m"]
    iou: Float[Tensor, " m"]  # of the cell's box and the target, before this step's update


def loss_weights(hyp: Hyperparameters) -> LossWeights:
    """The published weights of the parts, times what a hyperparameter is relative to its default."""
    default = Hyperparameters()
    return LossWeights(
        PUBLISHED_WEIGHTS.box * hyp.box / default.box,
        PUBLISHED_WEIGHTS.obj * hyp.obj / default.obj,
        PUBLISHED_WEIGHTS.cls * hyp.cls / default.cls,
    )


class YOLOXLoss:
    """Loss of raw predictions against targets for a head without anchors, for any number of scales.

    The box loss is 1 − IoU² of the assigned cells, plus the L1 distance of the raw values where `l1` is above 0. The
    class loss is the binary cross-entropy of the assigned cells, whose target is the IoU at the target's class. The
    objectness loss is the binary cross-entropy of all cells. Each is a sum divided by the number of assigned cells.
    """

    def __init__(self, head: Head, hyp: Hyperparameters, *, l1: float = 0.0, world: World = SINGLE_PROCESS) -> None:
        """Set up the loss.

        Args:
            head: the head whose predictions are given.
            hyp: hyperparameters, of which `box`, `obj`, `cls` and `nominal_batch` are used.
            l1: weight of the L1 term.
            world: the ranks that share a batch; the number of assigned cells is that of all of them.
        """
        self.head, self.weights, self.l1, self.world = head, loss_weights(hyp), l1, world
        self.nominal_batch = hyp.nominal_batch

    def __call__(self, raw: RawMaps, targets: Float[Tensor, "n 6"], counts: TargetCounts | None = None) -> LossOutput:
        """Loss of a batch. The total is that of one step of `nominal_batch` images: the loss times this batch's share.

        Args:
            raw: raw predictions per scale.
            targets: image, class, cx, cy, w, h; boxes are fractions of the network input. A negative class is a
                region to be ignored.
            counts: of the targets, if they are in the order that it describes.
        """
        targets, regions = split_targets(targets, counts)
        cells = Cells.of(self.head, raw)
        found = assign_cells(cells, targets)
        sizes = torch.stack([cells.stride.new_full((), size) for size in (len(found.image), len(raw[0]))])
        assigned, images = self.world.all_reduce_sum(sizes).unbind()
        box, obj, cls = (part / assigned.clamp(min=1) for part in self._sums(cells, found, targets, regions))
        box, obj, cls = box * self.weights.box, obj * self.weights.obj, cls * self.weights.cls
        # Data-parallel training averages gradients over the ranks; the parts of the ranks are to be summed.
        total = (box + obj + cls) * (images / self.nominal_batch * self.world.size)
        return LossOutput(total, box, obj, cls)

    def _sums(
        self, cells: Cells, found: CellAssignment, targets: Tensor, regions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Box, objectness and class losses, summed over cells; the L1 term is a part of the box loss."""
        matched, (values, boxes) = targets[found.target], cells.at(found.image, found.cell)
        gt = matched[:, 2:6] * cells.sides()
        iou = broadcast_iou(boxes, gt)
        box = (1 - iou.square()).sum()
        if self.l1 > 0:
            stride = cells.stride[found.cell, None]
            center = gt[:, :2] / stride - cells.corner[found.cell]
            regression = torch.cat((center, (gt[:, 2:] / stride + 1e-8).log()), 1)
            box = box + F.l1_loss(values[:, :4], regression, reduction="sum") * (self.l1 / self.weights.box)
        objectness = cells.objectness()
        is_assigned = torch.zeros_like(objectness)
        is_assigned[found.image, found.cell] = 1.0
        counted = None
        if len(regions):
            counted = (~cells.in_regions(regions)).to(objectness.dtype)
            counted[found.image, found.cell] = 1.0
        obj = F.binary_cross_entropy_with_logits(objectness, is_assigned, counted, reduction="sum")
        classes = F.one_hot(matched[:, 1].long(), self.head.nc) * found.iou[:, None]
        cls = F.binary_cross_entropy_with_logits(values[:, 5:], classes, reduction="sum")
        return box, obj, cls


@torch.no_grad()
def assign_cells(cells: Cells, targets: Float[Tensor, "n 6"]) -> CellAssignment:
    """SimOTA over all cells of a batch (Ge et al. 2021, "YOLOX", section 2.1).

    A cell whose center is within 1.5 cells of a target's, in x and in y, is a candidate of the target's image. The cost
    of a target and a candidate is the binary cross-entropy of √(class · objectness) for the target's class, plus
    3 · −log IoU, plus FAR_COST where the candidate is near other targets only. A target takes its k candidates of
    lowest cost; k is the sum of its 10 largest IoUs, rounded down, at least 1. A candidate taken by several targets is
    assigned to the target with the lowest cost of all.
    """
    if targets.is_cuda:
        return assign_whole_batch(cells, targets)
    # The CPU is faster image by image: 4 ms instead of 13 at 640 pixels, 16 images and 108 targets, 8 instead of 127
    # with 398 targets, because the blocks of a whole batch are padded to the largest and leave the cache.
    found = []
    for image in targets[:, 0].unique().long().tolist():
        rows = (targets[:, 0] == image).nonzero()[:, 0]
        own = targets[rows]
        own[:, 0] = 0
        part = assign_whole_batch(replace(cells, raw=tuple(y[image : image + 1] for y in cells.raw)), own)
        found.append(CellAssignment(part.image + image, part.cell, rows[part.target], part.iou))
    if not found:
        return assign_whole_batch(cells, targets)
    names = ("image", "cell", "target", "iou")
    return CellAssignment(*(torch.cat([getattr(part, name) for part in found]) for name in names))


@torch.no_grad()
def assign_whole_batch(cells: Cells, targets: Float[Tensor, "n 6"]) -> CellAssignment:
    """`assign_cells` without a loop over images."""
    gt = targets[:, 2:6] * cells.sides()
    batch, count = len(cells.raw[0]), len(cells.stride)
    pair_target, pair_cell = _near(cells, gt)
    # Candidates are the distinct (image, cell) of the pairs, in the order of their images.
    keys, candidate = (targets[pair_target, 0].long() * count + pair_cell).unique(return_inverse=True)
    image, cell = keys // count, keys % count
    if not len(keys):
        return CellAssignment(image, cell, image, gt.new_zeros(0))
    # Pairs of one image are a block (targets × candidates); all blocks are padded to the size of the largest.
    values, boxes = cells.at(image, cell)
    row_of, rows = _pad(targets[:, 0].long(), batch)
    column_of, columns = _pad(image, batch)
    valid = (rows >= 0)[:, :, None] & (columns >= 0)[:, None]
    iou = broadcast_iou(gt[rows][:, :, None], boxes[columns][:, None]).masked_fill(~valid, 0.0)
    near = torch.zeros_like(valid)
    near[targets[pair_target, 0].long(), row_of[pair_target], column_of[candidate]] = True
    absent, correction = _class_cost(values[:, 4:])
    class_cost = absent[columns][:, None] + correction[columns[:, None], targets[:, 1].long()[rows][:, :, None]]
    cost = class_cost - IOU_COST * (iou + 1e-8).log() + FAR_COST * ~near
    taken = _dynamic_k(cost.masked_fill(~valid, torch.inf), iou)
    b, r, c = taken.nonzero(as_tuple=True)
    chosen = columns[b, c]
    return CellAssignment(image[chosen], cell[chosen], rows[b, r], iou[b, r, c])


def _near(cells: Cells, gt: Float[Tensor, "t 4"]) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Pairs of a target and a cell whose center is within CENTER_RADIUS cells of the target's, in x and in y."""
    targets, numbers, start = [], [], 0
    window = torch.arange(math.ceil(2 * CENTER_RADIUS) + 1, device=gt.device)
    for stride in cells.head.strides:
        height, width = cells.size[0] // stride, cells.size[1] // stride
        low = (gt[:, :2] / stride - CENTER_RADIUS - 0.5).floor().long()
        column, row = (low[:, i, None] + window for i in range(2))
        in_x, in_y = (
            (((cell + 0.5) * stride - gt[:, i, None]).abs() < CENTER_RADIUS * stride) & (cell >= 0) & (cell < most)
            for i, (cell, most) in enumerate(((column, width), (row, height)))
        )
        target, y, x = (in_y[:, :, None] & in_x[:, None]).nonzero(as_tuple=True)
        targets.append(target)
        numbers.append(start + row[target, y] * width + column[target, x])
        start += height * width
    return torch.cat(targets), torch.cat(numbers)


def _pad(group: Int[Tensor, " m"], groups: int) -> tuple[Int[Tensor, " m"], Int[Tensor, "g most"]]:
    """The position of each element within its group, and the elements of each group, filled up with −1."""
    order = group.argsort(stable=True)
    sizes = group.bincount(minlength=groups)
    within = torch.empty_like(group)
    within[order] = torch.arange(len(group), device=group.device) - (sizes.cumsum(0) - sizes)[group[order]]
    members = group.new_full((groups, int(sizes.max())), -1)
    members[group, within] = torch.arange(len(group), device=group.device)
    return within, members


def _class_cost(logits: Float[Tensor, "m o"]) -> tuple[Float[Tensor, " m"], Float[Tensor, "m c"]]:
    """The binary cross-entropy of √(class · objectness), summed over classes, and what the target's class adds to it.

    The sum is that for no class at all. Columns of `logits` are objectness, then the classes.
    """
    probability = (logits[:, 1:].sigmoid() * logits[:, :1].sigmoid()).sqrt()
    log_p, log_not_p = probability.log().clamp(min=-100), torch.log1p(-probability).clamp(min=-100)
    return -log_not_p.sum(1), log_not_p - log_p


def _dynamic_k(cost: Float[Tensor, "b t r"], iou: Float[Tensor, "b t r"]) -> Bool[Tensor, "b t r"]:
    """The assignment matrix of each image: row t has the candidates of target t; no column has more than one True."""
    most = min(CANDIDATE_TOPK, cost.shape[2])
    k = iou.topk(most, dim=2).values.sum(2).int().clamp(min=1)
    lowest = cost.topk(most, dim=2, largest=False)
    within = (torch.arange(most, device=cost.device) < k[..., None]) & lowest.values.isfinite()
    taken = torch.zeros_like(cost, dtype=torch.bool).scatter_(2, lowest.indices, within)
    cheapest = torch.zeros_like(taken).scatter_(1, cost.argmin(1, keepdim=True), True)
    return torch.where(taken.sum(1, keepdim=True) > 1, cheapest, taken)


def broadcast_iou(a: Float[Tensor, "*m 4"], b: Float[Tensor, "*n 4"]) -> Float[Tensor, "*k"]:
    """IoU of boxes cx, cy, w, h whose leading dimensions broadcast; differentiable."""
    a, b = cxcywh_to_xyxy(a), cxcywh_to_xyxy(b)
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b)]
    return intersection / (areas[0] + areas[1] - intersection + 1e-16)
