"""Task-aligned assignment and its loss (Feng et al. 2021, "TOOD"), with distribution focal loss (Li et al. 2020)."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from yolo_cli.batch import TargetCounts
from yolo_cli.boxes.iou import complete_iou
from yolo_cli.config import Hyperparameters
from yolo_cli.distributed.world import SINGLE_PROCESS, World
from yolo_cli.loss.assign import fixed_shapes
from yolo_cli.loss.detection import LossOutput, LossWeights
from yolo_cli.loss.ignore import cells_to_ignore, split_targets
from yolo_cli.loss.ota import pad_targets
from yolo_cli.loss.yolox import broadcast_iou
from yolo_cli.model.heads import Head, RawMaps, cell_grid

TOPK = 13  # cells that a target is assigned to (Feng et al. 2021, section 4.1, for these three)
ALPHA = 1.0  # exponents of class probability and IoU in the alignment
BETA = 6.0
WEIGHTS = LossWeights(box=7.5, obj=1.5, cls=0.5)  # of CIoU, distribution focal loss and classes
_PAIRS = 2**23  # of a target and a cell that are compared at a time; at most about 0.8 GB of memory


@dataclass(frozen=True, slots=True)
class AlignedCells:
    """The predictions of a batch. Cells are numbered row by row through the scales in order."""

    head: Head
    values: Float[Tensor, "b n o"]  # distributions of the box, logits of the classes
    center: Float[Tensor, "n 2"]  # in pixels
    stride: Float[Tensor, " n"]
    size: tuple[int, int]  # height and width of the network input

    @classmethod
    def of(cls, head: Head, raw: RawMaps) -> "AlignedCells":
        """The cells of a head's raw maps."""
        values = torch.cat([y.flatten(1, 3).float() for y in raw], 1)
        corners = [cell_grid(y.shape[2], y.shape[3], y.device).view(-1, 2) for y in raw]
        strides = [corner.new_full((len(corner),), s) for corner, s in zip(corners, head.strides, strict=True)]
        stride = torch.cat(strides)
        size = raw[0].shape[2] * head.strides[0], raw[0].shape[3] * head.strides[0]
        return cls(head, values, (torch.cat(corners) + 0.5) * stride[:, None], stride, size)

    def logits(self) -> Float[Tensor, "b n c"]:
        """Logits of the classes."""
        return self.values[..., self.head.box_outputs :]

    def decode(
        self, values: Float[Tensor, "*n o"], center: Float[Tensor, "*#n 2"], stride: Float[Tensor, "*#n"]
    ) -> Float[Tensor, "*n 4"]:
        """Boxes of raw values, cx, cy, w, h in pixels."""
        box = self.head.boxes(values[..., : self.head.box_outputs], self.head.base_wh(0), 0)
        return torch.cat(((box[..., :2] - 0.5) * stride[..., None] + center, box[..., 2:] * stride[..., None]), -1)

    def boxes(self) -> Float[Tensor, "b n 4"]:
        """Boxes of all cells, cx, cy, w, h in pixels."""
        return self.decode(self.values, self.center, self.stride)

    def inside(self, gt: Float[Tensor, "*t 4"]) -> Bool[Tensor, "*t n"]:
        """Which cells have their center in a box (cx, cy, w, h in pixels)."""
        box = gt[..., None, :]
        return ((self.center - box[..., :2]).abs() < box[..., 2:] / 2).all(-1)

    def sides(self) -> Float[Tensor, "4"]:
        """Width, height, width, height of the network input."""
        height, width = self.size
        sides = self.stride.new_full((4,), width)  # a tensor made of Python numbers would wait for a GPU
        sides[1::2] = height
        return sides


@dataclass(frozen=True, slots=True)
class AlignedAssignment:
    """Row i says that the cell (image, cell)[i] is assigned to the target of row target[i], where `valid`."""

    image: Int[Tensor, " m"]
    cell: Int[Tensor, " m"]
    target: Int[Tensor, " m"]
    alignment: Float[Tensor, " m"]  # normalized: the largest of a target is its largest IoU; 0 where not valid
    valid: Bool[Tensor, " m"]

    def rows(self, chosen: Tensor) -> "AlignedAssignment":
        """Some of the rows."""
        parts = (self.image, self.cell, self.target, self.alignment, self.valid)
        return AlignedAssignment(*(part[chosen] for part in parts))

    @staticmethod
    def join(parts: list["AlignedAssignment"]) -> "AlignedAssignment":
        """The rows of all parts."""
        names = ("image", "cell", "target", "alignment", "valid")
        return AlignedAssignment(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


class TALLoss:
    """Loss of raw predictions against targets for a head without anchors and objectness, for any number of scales.

    The class loss is the binary cross-entropy of all cells, whose target is the normalized alignment at the class of
    an assigned cell's target. The box loss is 1 − CIoU plus the distribution focal loss of the assigned cells, weighted
    by their alignment. Each is a sum divided by the sum of the alignments.
    """

    def __init__(self, head: Head, hyp: Hyperparameters, *, world: World = SINGLE_PROCESS) -> None:
        """Set up the loss.

        Args:
            head: the head whose predictions are given.
            hyp: hyperparameters, of which `box` (CIoU), `obj` (distribution focal loss), `cls` and `nominal_batch` are
                used; WEIGHTS are multiplied by what a hyperparameter is relative to its default.
            world: the ranks that share a batch; the sum of the alignments is that of all of them.
        """
        default = Hyperparameters()
        self.head, self.world, self.nominal_batch = head, world, hyp.nominal_batch
        self.weights = LossWeights(
            WEIGHTS.box * hyp.box / default.box,
            WEIGHTS.obj * hyp.obj / default.obj,
            WEIGHTS.cls * hyp.cls / default.cls,
        )
        self.fixed = fixed_shapes(next(head.parameters()).device)  # see there

    def __call__(self, raw: RawMaps, targets: Float[Tensor, "n 6"], counts: TargetCounts | None = None) -> LossOutput:
        """Loss of a batch. The total is that of one step of `nominal_batch` images: the loss times this batch's share.

        The part `obj` of the result is the distribution focal loss.

        Args:
            raw: raw predictions per scale.
            targets: image, class, cx, cy, w, h; boxes are fractions of the network input. A negative class is a
                region to be ignored.
            counts: of the targets, if they are in the order that it describes.
        """
        if self.fixed and counts is None:
            counts = TargetCounts.of(targets)
            targets = targets[torch.where(targets[:, 1] < 0, torch.inf, targets[:, 0]).argsort(stable=True)]
        targets, regions = split_targets(targets, counts)
        if self.fixed and counts:
            targets = pad_targets(targets, len(raw[0]), counts.most)
        cells = AlignedCells.of(self.head, raw)
        gt = targets[:, 2:6] * cells.sides()
        found = (assign_padded if self.fixed else assign_aligned)(cells, targets, gt)
        sizes = torch.stack((found.alignment.sum(), cells.stride.new_full((), len(raw[0]))))
        alignment, images = self.world.all_reduce_sum(sizes).unbind()
        ignored = None
        if len(regions):
            maps = [cells_to_ignore(regions, len(y), y.shape[2], y.shape[3]).flatten(1) for y in raw]
            ignored = torch.cat(maps, 1)
        parts = (*_box_losses(cells, found, gt), _class_loss(cells, found, targets, ignored))
        box, dfl, cls = (part / alignment.clamp(min=1) for part in parts)
        box, dfl, cls = box * self.weights.box, dfl * self.weights.obj, cls * self.weights.cls
        # Data-parallel training averages gradients over the ranks; the parts of the ranks are to be summed.
        total = (box + dfl + cls) * (images / self.nominal_batch * self.world.size)
        return LossOutput(total, box, dfl, cls)


def _box_losses(cells: AlignedCells, found: AlignedAssignment, gt: Float[Tensor, "t 4"]) -> tuple[Tensor, Tensor]:
    """1 − CIoU and the distribution focal loss, weighted by the alignment and summed."""
    # An embedding lookup, because the gradient of plain indexing is not repeatable on a CPU.
    values = F.embedding(found.image * cells.values.shape[1] + found.cell, cells.values.flatten(0, 1))
    center, stride, box = cells.center[found.cell], cells.stride[found.cell], gt[found.target]
    ciou = complete_iou(cells.decode(values, center, stride), box)
    low, high = center - (box[:, :2] - box[:, 2:] / 2), box[:, :2] + box[:, 2:] / 2 - center
    distribution = values[:, : cells.head.box_outputs].unflatten(-1, (4, -1))
    dfl = distribution_focal_loss(distribution, torch.cat((low, high), 1) / stride[:, None]).mean(1)
    return ((1 - ciou) * found.alignment).sum(), (dfl * found.alignment).sum()


def _class_loss(
    cells: AlignedCells,
    found: AlignedAssignment,
    targets: Float[Tensor, "t 6"],
    ignored: Bool[Tensor, "b n"] | None,
) -> Tensor:
    """Binary cross-entropy of all cells, summed; not of those to be ignored, unless they have a target."""
    logits = cells.logits()
    row, classes = found.image * logits.shape[1] + found.cell, logits.shape[2]
    # What is not valid goes to one more element at the end.
    position = (row * classes + targets[found.target, 1].long()).masked_fill(~found.valid, logits.numel())
    wanted = logits.new_zeros(logits.numel() + 1).scatter_(0, position, found.alignment)
    weight = None
    if ignored is not None:
        outside = torch.cat((~ignored.flatten(), ignored.new_ones(1))).to(logits.dtype)
        outside.index_fill_(0, row.masked_fill(~found.valid, len(outside) - 1), 1.0)
        weight = outside[:-1].view(ignored.shape)[..., None]
    return F.binary_cross_entropy_with_logits(logits, wanted[:-1].view(logits.shape), weight, reduction="sum")


def distribution_focal_loss(values: Float[Tensor, "*n s"], distance: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The cross-entropy of the two bins around a distance, weighted by how near they are (Li et al. 2020, equation 6).

    A distance beyond the last bin counts as one just below it.
    """
    distance = distance.clamp(0, values.shape[-1] - 1 - 0.01)
    lower = distance.floor().long()
    log_p = values.log_softmax(-1)
    near, far = (log_p.gather(-1, index[..., None])[..., 0] for index in (lower, lower + 1))
    return -(near * (lower + 1 - distance) + far * (distance - lower))


@torch.no_grad()
def assign_aligned(cells: AlignedCells, targets: Float[Tensor, "t 6"], gt: Float[Tensor, "t 4"]) -> AlignedAssignment:
    """Task-aligned assignment (Feng et al. 2021, section 3.2); the rows are those that are valid.

    The alignment of a target and a cell whose center lies in it is s^α · u^β, with s the probability of the target's
    class and u the IoU. A target takes its TOPK cells of highest alignment, if that is above 0. A cell that several
    targets take is assigned to the one with the largest IoU. A target's alignments are then scaled so that the largest
    is its largest IoU. `gt` are the boxes of the targets, cx, cy, w, h in pixels.
    """
    # Image by image, and only with the cells that are in a target, which saves most of the decoding.
    found = [assign_padded(cells, targets[:0], gt[:0])]
    for image in targets[:, 0].unique().long().tolist():
        rows = (targets[:, 0] == image).nonzero()[:, 0]
        near = cells.inside(gt[rows]).any(0).nonzero()[:, 0]
        if not len(near):
            continue
        values = F.embedding(near, cells.values[image])[None]
        own = replace(cells, values=values, center=cells.center[near], stride=cells.stride[near])
        part = _align(own, targets[None, rows, 1].long(), gt[None, rows])
        part = part.rows(part.valid.nonzero()[:, 0])
        found.append(replace(part, image=part.image + image, cell=near[part.cell], target=rows[part.target]))
    return AlignedAssignment.join(found)


@torch.no_grad()
def assign_padded(cells: AlignedCells, targets: Float[Tensor, "p 6"], gt: Float[Tensor, "p 4"]) -> AlignedAssignment:
    """`assign_aligned` of targets that are padded to the same number per image (`pad_targets`).

    There is a row for each target and its TOPK cells, valid or not, so that no shape depends on values.
    """
    if not len(targets):
        none = torch.zeros(0, dtype=torch.int64, device=gt.device)
        return AlignedAssignment(none, none, none, gt.new_zeros(0), none.bool())
    images, number = cells.values.shape[:2]
    most = len(targets) // images
    class_id, boxes = targets[:, 1].long().view(images, most), gt.view(images, most, 4)
    step = max(_PAIRS // (most * number), 1)
    found = []
    for first in range(0, images, step):
        part = _align(
            replace(cells, values=cells.values[first : first + step]),
            class_id[first : first + step],
            boxes[first : first + step],
        )
        found.append(replace(part, image=part.image + first, target=part.target + first * most))
    return AlignedAssignment.join(found)


def _align(cells: AlignedCells, class_id: Int[Tensor, "b t"], gt: Float[Tensor, "b t 4"]) -> AlignedAssignment:
    """Assign the cells of some images to as many targets in each, whose rows are numbered through the images."""
    images, count = class_id.shape
    number = cells.values.shape[1]
    inside = cells.inside(gt)
    logits = cells.logits().transpose(1, 2).gather(1, class_id[:, :, None].expand(-1, -1, number))
    iou = broadcast_iou(gt[:, :, None], cells.boxes()[:, None]).masked_fill_(~inside, 0.0)
    alignment, cell = (logits.sigmoid().pow(ALPHA) * iou.pow(BETA)).topk(min(TOPK, number), dim=2)
    valid = alignment > 0
    own_iou = iou.gather(2, cell).masked_fill(~valid, 0.0)
    owner = torch.zeros_like(iou).scatter_(2, cell, own_iou).argmax(1)
    target = torch.arange(count, device=gt.device)[:, None].expand_as(cell[0])
    valid &= owner.gather(1, cell.flatten(1)).view_as(cell) == target
    alignment, own_iou = alignment.masked_fill(~valid, 0.0), own_iou.masked_fill(~valid, 0.0)
    highest = alignment.amax(2, keepdim=True).clamp(min=torch.finfo(alignment.dtype).tiny)
    normalized = (alignment / highest * own_iou.amax(2, keepdim=True)).clamp(max=1.0)
    image = torch.arange(images, device=gt.device)[:, None, None].expand_as(cell)
    target = target + image * count
    return AlignedAssignment(*(part.flatten() for part in (image, cell, target, normalized, valid)))
