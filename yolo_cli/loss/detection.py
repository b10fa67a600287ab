"""The detection loss: CIoU for boxes, binary cross-entropy for objectness and classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from yolo_cli.batch import TargetCounts
from yolo_cli.boxes.iou import complete_iou
from yolo_cli.config import Hyperparameters
from yolo_cli.distributed.world import SINGLE_PROCESS, World
from yolo_cli.loss.assign import Assignment, assign, fixed_shapes
from yolo_cli.loss.ignore import cells_to_ignore, split_targets
from yolo_cli.loss.ota import pad_targets, simota, simota_fixed
from yolo_cli.model.heads import AnchorHead, Boxes, RawMaps, sigmoid_boxes

FOCAL_ALPHA = 0.25
MATCHINGS = ("anchor", "ota")
# Auxiliary outputs (Wang et al. 2023, "YOLOv7", section 4.2) are assigned more neighboring cells and have a lower
# weight in the loss. Models that have them use a larger top-k in SimOTA.
AUXILIARY_WEIGHT = 0.25
NEIGHBOR_BIAS, AUXILIARY_NEIGHBOR_BIAS = 0.5, 1.0
CANDIDATE_TOPK, CANDIDATE_TOPK_WITH_AUXILIARY = 10, 20


@dataclass(frozen=True, slots=True)
class LossOutput:
    """The total to minimize, and its three weighted parts.

    `total` is the sum of the parts times the batch size; the parts are means. In distributed training each value is
    this rank's share: the mean of `total` over the ranks, and the sum of a part over the ranks, are the global values.
    """

    total: Float[Tensor, ""]
    box: Float[Tensor, ""]
    obj: Float[Tensor, ""]
    cls: Float[Tensor, ""]

    def values(self) -> Float[Tensor, "3"]:
        """The box, objectness and class parts, detached."""
        return torch.stack((self.box, self.obj, self.cls)).detach()


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights of the three parts of the loss."""

    box: float
    obj: float
    cls: float


def scaled_loss_weights(hyp: Hyperparameters, scales: int, nc: int, img: tuple[int, int]) -> LossWeights:
    """Loss weights for a number of scales, classes and an image size (height, width).

    Those of a hyperparameter file hold for three scales, 80 classes and 640×640 pixels.
    """
    per_scale = 3 / scales
    area = img[0] * img[1] / 640**2
    return LossWeights(hyp.box * per_scale, hyp.obj * area * per_scale, hyp.cls * nc / 80 * per_scale)


def scale_balance(scales: int) -> tuple[float, ...]:
    """Weight of the objectness loss per scale, finest first: a smaller share of a finer grid's cells has an object."""
    if scales == 3:
        return (4.0, 1.0, 0.4)
    published = (4.0, 1.0, 0.25, 0.06, 0.02)
    return (published + (published[-1],) * scales)[:scales]


class DetectionLoss:
    """YOLOv5's loss (Jocher et al.) of raw predictions against targets, for any number of scales.

    `matching` selects how targets are assigned to predictions: "anchor" by anchor shape, "ota" by SimOTA among those
    matches (Wang et al. 2023, YOLOv7). Auxiliary maps follow the main ones; their targets are assigned by the main
    predictions, and their losses are added to all three parts.
    """

    def __init__(
        self,
        anchors: Float[Tensor, "s a 2"],
        nc: int,
        hyp: Hyperparameters,
        weights: LossWeights,
        label_smoothing: float = 0.0,
        *,
        matching: str = "anchor",
        auxiliary: bool = False,
        boxes: Boxes = lambda values, anchor_wh, scale: sigmoid_boxes(values, anchor_wh),
        strides: Sequence[int] = (),
        world: World = SINGLE_PROCESS,
    ) -> None:
        """Set up the loss.

        Args:
            anchors: width and height in cells of their scale.
            nc: number of classes.
            hyp: hyperparameters of the loss; its three weights are not used.
            weights: weights of the parts, already scaled (see `scaled_loss_weights`).
            label_smoothing: classes have the targets 1 − label_smoothing / 2 and label_smoothing / 2.
            matching: one of MATCHINGS.
            auxiliary: whether the model has auxiliary outputs, even if it leaves them out in eval mode.
            boxes: the head's `boxes`.
            strides: of the scales; without them, scales are ordered from fine to coarse.
            world: the ranks that share a batch; means are global.
        """
        if matching not in MATCHINGS:
            raise ValueError(f"matching must be one of {', '.join(MATCHINGS)}, not {matching!r}")
        self.matching = matching
        self.candidate_topk = CANDIDATE_TOPK_WITH_AUXILIARY if auxiliary else CANDIDATE_TOPK
        self.anchors, self.nc, self.hyp, self.weights, self.boxes = anchors, nc, hyp, weights, boxes
        self.world = world
        from_fine = sorted(range(len(anchors)), key=lambda i: strides[i] if strides else i)
        balance = dict(zip(from_fine, scale_balance(len(anchors)), strict=True))
        self.balance = tuple(balance[i] for i in range(len(anchors)))
        self.positive, self.negative = 1 - label_smoothing / 2, label_smoothing / 2
        self.fixed = fixed_shapes(anchors.device)  # see there

    @classmethod
    def from_head(
        cls,
        head: AnchorHead,
        hyp: Hyperparameters,
        weights: LossWeights,
        label_smoothing: float = 0.0,
        *,
        matching: str = "anchor",
        auxiliary: bool = False,
        world: World = SINGLE_PROCESS,
    ) -> "DetectionLoss":
        """The loss for a head's anchors, classes and box coding. Later changes of the head's anchors take effect."""
        return cls(
            head.anchors,
            head.nc,
            hyp,
            weights,
            label_smoothing,
            matching=matching,
            auxiliary=auxiliary,
            boxes=head.boxes,
            strides=head.strides,
            world=world,
        )

    def __call__(self, raw: RawMaps, targets: Float[Tensor, "n 6"], counts: TargetCounts | None = None) -> LossOutput:
        """Loss of a batch.

        Args:
            raw: raw predictions per scale; auxiliary ones, if any, follow the main ones.
            targets: image, class, cx, cy, w, h; boxes are fractions of the network input. A negative class is a
                region to be ignored.
            counts: of the targets; without it they are in any order, and counted here.
        """
        if self.fixed and self.matching == "ota" and counts is None:
            counts = TargetCounts.of(targets)
            targets = targets[torch.where(targets[:, 1] < 0, torch.inf, targets[:, 0]).argsort(stable=True)]
        targets, regions = split_targets(targets, counts)
        scales, most = len(self.anchors), counts.most if counts else 0
        groups = [(raw[:scales], self.matches(raw[:scales], targets, NEIGHBOR_BIAS, most), 1.0)]
        if auxiliary := raw[scales:]:
            matches = self.matches(raw[:scales], targets, AUXILIARY_NEIGHBOR_BIAS, most)
            groups.append((auxiliary, matches, AUXILIARY_WEIGHT))
        sizes = [count for maps, matched, _ in groups for count in _counts(maps, matched)]
        shares = self.world.share_of_sum([*sizes, len(raw[0])], raw[0].device)
        parts = [
            weight * self._parts(maps, matched, regions, share)
            for (maps, matched, weight), share in zip(groups, shares[:-1].split(2 * scales), strict=True)
        ]
        box, obj, cls = (parts[0] + parts[1] if auxiliary else parts[0]).unbind()
        box, obj, cls = box * self.weights.box, obj * self.weights.obj, cls * self.weights.cls
        total = (box + obj + cls) * raw[0].shape[0]
        if self.world.size > 1:  # times the global batch size; data-parallel training averages gradients over the ranks
            total = total / shares[-1] * self.world.size
        return LossOutput(total, box, obj, cls)

    def matches(
        self, raw: RawMaps, targets: Float[Tensor, "n 6"], neighbor_bias: float, most: int = 0
    ) -> list[Assignment]:
        """The assignment of targets to predictions per scale.

        With `fixed` and SimOTA, targets are in the order of their images, and `most` is the largest number of one.
        """
        ota = self.matching == "ota"
        if self.fixed and ota:
            targets = pad_targets(targets, len(raw[0]), most)
        candidates = [
            assign(
                targets,
                anchors,
                (y.shape[2], y.shape[3]),
                anchor_t=self.hyp.anchor_t,
                neighbor_bias=neighbor_bias,
                fixed=self.fixed,
            )
            for y, anchors in zip(raw, self.anchors, strict=True)
        ]
        if not ota:
            return candidates
        reduce = simota_fixed if self.fixed else simota
        return reduce(raw, candidates, targets, self.boxes, candidate_topk=self.candidate_topk)

    def _parts(
        self, raw: RawMaps, matched: Sequence[Assignment], regions: Float[Tensor, "r 6"], shares: Tensor
    ) -> Tensor:
        """Box, objectness and class losses of all scales, unweighted.

        `shares` are this rank's shares of the matches of each scale, then of its predictions.
        """
        box = obj = cls = raw[0].new_zeros((), dtype=torch.float32)
        share_of_matches, share_of_cells = shares.split(len(raw))
        for scale, (prediction, matches, balance) in enumerate(zip(raw, matched, self.balance, strict=True)):
            iou, scale_box, scale_cls = self._box_and_class(prediction, matches, scale)
            box, cls = box + share_of_matches[scale] * scale_box, cls + share_of_matches[scale] * scale_cls
            objectness = prediction[..., 4].float()
            target = _objectness_target(objectness, matches, iou)
            counted = _counted(target, matches, regions) if len(regions) else None
            loss = self._cross_entropy(objectness, target, self.hyp.obj_pw, counted)
            obj = obj + balance * share_of_cells[scale] * loss
        return torch.stack((box, obj, cls))

    def _box_and_class(self, prediction: Tensor, m: Assignment, scale: int) -> tuple[Tensor, Tensor, Tensor]:
        """CIoU of each match, clamped at 0, and the mean box and class losses of one scale."""
        zero = prediction.new_zeros((), dtype=torch.float32)
        if not len(m):
            return zero.new_zeros(0), zero, zero
        # An embedding lookup, because its gradient is the same on every run. The gradient of plain indexing adds the
        # rows of one prediction in the order in which the threads of a CPU reach them.
        matched = F.embedding(m.flat_index(prediction.shape), prediction.flatten(0, 3)).float()
        iou = complete_iou(self.boxes(matched[:, :4], m.anchor_wh, scale), m.box)
        box, cls = 1 - iou, zero
        counted = None if m.valid is None else m.valid[:, None].to(matched.dtype).expand_as(matched[:, 5:])
        if self.nc > 1:  # with a single class, objectness is enough
            target = torch.full_like(matched[:, 5:], self.negative)
            target.scatter_(1, m.class_id[:, None], self.positive)
            cls = self._cross_entropy(matched[:, 5:], target, self.hyp.cls_pw, counted)
        if m.valid is None:
            return iou.detach().clamp(min=0), box.mean(), cls
        count = m.valid.sum().clamp(min=1)
        return iou.detach().clamp(min=0), box.masked_fill(~m.valid, 0.0).sum() / count, cls * (len(m) / count)

    def _cross_entropy(
        self, logits: Tensor, target: Tensor, positive_weight: float, counted: Tensor | None = None
    ) -> Tensor:
        """Mean binary cross-entropy; focal loss if gamma is above 0 (Lin et al. 2017, equation 5).

        What is not `counted` adds 0 to the sum, and its gradient is 0.
        """
        weight = None if positive_weight == 1.0 else logits.new_full((), positive_weight)
        if self.hyp.fl_gamma <= 0:
            return F.binary_cross_entropy_with_logits(logits, target, counted, pos_weight=weight)
        loss = F.binary_cross_entropy_with_logits(logits, target, counted, pos_weight=weight, reduction="none")
        p = logits.sigmoid()
        p_t = target * p + (1 - target) * (1 - p)
        alpha_t = target * FOCAL_ALPHA + (1 - target) * (1 - FOCAL_ALPHA)
        return (loss * alpha_t * (1 - p_t) ** self.hyp.fl_gamma).mean()


def _counts(raw: RawMaps, matched: Sequence[Assignment]) -> list[Tensor | int]:
    """The number of matches of each scale, then of its predictions."""
    return [m.count() for m in matched] + [y[..., 4].numel() for y in raw]


def _positions(m: Assignment, shape: Sequence[int]) -> Tensor:
    """The index of each match among all predictions of a scale; what is no match gets the one behind them."""
    index = m.flat_index(shape)
    return index if m.valid is None else index.masked_fill(~m.valid, math.prod(shape[:4]))


def _counted(objectness: Tensor, m: Assignment, regions: Float[Tensor, "r 6"]) -> Tensor:
    """1 for predictions whose objectness counts, 0 for those in ignore regions that have no target."""
    images, _, rows, columns = objectness.shape
    outside = (~cells_to_ignore(regions, images, rows, columns))[:, None].expand(objectness.shape)
    counted = torch.cat((outside.flatten(), outside.new_ones(1))).to(objectness.dtype)
    counted.index_fill_(0, _positions(m, objectness.shape), 1.0)
    return counted[:-1].view(objectness.shape)


def _objectness_target(objectness: Tensor, m: Assignment, iou: Tensor) -> Tensor:
    """The IoU of each match at its prediction, 0 elsewhere.

    If several targets match one prediction, the last match is used on every device: a plain indexed write would leave
    the order to the device.
    """
    if not len(m):
        return torch.zeros_like(objectness)
    target = objectness.new_zeros(objectness.numel() + 1)  # the last one for what is no match
    position = _positions(m, objectness.shape)
    last = torch.full(target.shape, -1, dtype=torch.int64, device=target.device)
    last.scatter_reduce_(0, position, torch.arange(len(m), device=target.device), "amax")
    target[position] = iou[last[position]]  # equal positions get equal values, so their order has no effect
    return target[:-1].view(objectness.shape)
