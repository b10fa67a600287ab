"""The detection loss: complete IoU for boxes, binary cross-entropy for objectness and class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from yolo_cli.boxes.iou import complete_iou
from yolo_cli.config import Hyperparameters
from yolo_cli.loss.assign import Assignment, assign
from yolo_cli.model.heads import Head, RawMaps, sigmoid_boxes

FOCAL_ALPHA = 0.25

Boxes = Callable[[Tensor, Tensor, int], Tensor]  # a head's `boxes`


@dataclass(frozen=True, slots=True)
class LossParts:
    """`total` is what to minimise (a sum over the batch); the parts are means, times their gains."""

    total: Float[Tensor, ""]
    box: Float[Tensor, ""]
    obj: Float[Tensor, ""]
    cls: Float[Tensor, ""]

    def values(self) -> Float[Tensor, "3"]:
        """Box, objectness and class parts, detached."""
        return torch.stack((self.box, self.obj, self.cls)).detach()


@dataclass(frozen=True, slots=True)
class Gains:
    """Weights of the three parts."""

    box: float
    obj: float
    cls: float


def scaled_gains(hyp: Hyperparameters, scales: int, nc: int, img: tuple[int, int]) -> Gains:
    """Gains for this model and image size; those of the file are for three scales, 80 classes, 640×640."""
    per_scale = 3 / scales
    area = img[0] * img[1] / 640**2
    return Gains(hyp.box * per_scale, hyp.obj * area * per_scale, hyp.cls * nc / 80 * per_scale)


def scale_balance(scales: int) -> tuple[float, ...]:
    """Weight of each scale's objectness: fine grids have many more cells, and fewer of them hold an object."""
    if scales == 3:
        return (4.0, 1.0, 0.4)
    published = (4.0, 1.0, 0.25, 0.06, 0.02)
    return (published + (published[-1],) * scales)[:scales]


class DetectionLoss:
    """Loss of raw maps against targets (Jocher et al., YOLOv5): the same for any number of scales."""

    def __init__(
        self,
        anchors: Float[Tensor, "s a 2"],
        nc: int,
        hyp: Hyperparameters,
        gains: Gains,
        label_smoothing: float = 0.0,
        *,
        boxes: Boxes = lambda values, anchor_wh, scale: sigmoid_boxes(values, anchor_wh),
        strides: Sequence[int] = (),
    ) -> None:
        """`anchors` are in cells of their scales; `gains` as they are to be applied (see `scaled_gains`).

        `boxes` is how the head codes boxes; `strides` say which scale is the finest, the first where they are left out.
        """
        self.anchors, self.nc, self.hyp, self.gains, self.boxes = anchors, nc, hyp, gains, boxes
        from_fine = sorted(range(len(anchors)), key=lambda i: strides[i] if strides else i)
        weights = dict(zip(from_fine, scale_balance(len(anchors)), strict=True))
        self.balance = tuple(weights[i] for i in range(len(anchors)))
        self.positive, self.negative = 1 - label_smoothing / 2, label_smoothing / 2

    @classmethod
    def of(cls, head: Head, hyp: Hyperparameters, gains: Gains, label_smoothing: float = 0.0) -> "DetectionLoss":
        """The loss of a head: its anchors (as they are now and as they may be moved), classes and code of boxes."""
        return cls(head.anchors, head.nc, hyp, gains, label_smoothing, boxes=head.boxes, strides=head.strides)

    def __call__(self, raw: RawMaps, targets: Float[Tensor, "n 6"]) -> LossParts:
        """Loss of a batch. `targets` rows: image, class, cx, cy, w, h as fractions of the canvas."""
        box = obj = cls = raw[0].new_zeros((), dtype=torch.float32)
        for scale, (prediction, anchors, balance) in enumerate(zip(raw, self.anchors, self.balance, strict=True)):
            grid = (prediction.shape[2], prediction.shape[3])
            matches = assign(targets, anchors, grid, anchor_t=self.hyp.anchor_t)
            quality, scale_box, scale_cls = self._matched(prediction, matches, scale)
            box, cls = box + scale_box, cls + scale_cls
            objectness = prediction[..., 4].float()
            wanted = torch.zeros_like(objectness)
            # Where several targets claim a prediction, the last in order counts, on every device.
            wanted = _put_last(wanted, matches, quality)
            obj = obj + balance * self._cross_entropy(objectness, wanted, self.hyp.obj_pw)
        box, obj, cls = box * self.gains.box, obj * self.gains.obj, cls * self.gains.cls
        return LossParts((box + obj + cls) * raw[0].shape[0], box, obj, cls)

    def _matched(self, prediction: Tensor, m: Assignment, scale: int) -> tuple[Tensor, Tensor, Tensor]:
        """Overlap of each match, and the box and class losses of one scale."""
        zero = prediction.new_zeros((), dtype=torch.float32)
        if not len(m):
            return zero.new_zeros(0), zero, zero
        chosen = prediction[m.image, m.anchor, m.row, m.column].float()
        iou = complete_iou(self.boxes(chosen[:, :4], m.anchor_wh, scale), m.box)
        cls = zero
        if self.nc > 1:  # one class needs no telling apart; objectness says it
            wanted = torch.full_like(chosen[:, 5:], self.negative)
            wanted[torch.arange(len(m), device=wanted.device), m.class_id] = self.positive
            cls = self._cross_entropy(chosen[:, 5:], wanted, self.hyp.cls_pw)
        return iou.detach().clamp(min=0), (1 - iou).mean(), cls

    def _cross_entropy(self, logits: Tensor, wanted: Tensor, positive_weight: float) -> Tensor:
        """Mean binary cross-entropy, focal where gamma is set (Lin et al. 2017, equation 5)."""
        weight = None if positive_weight == 1.0 else logits.new_tensor(positive_weight)
        if self.hyp.fl_gamma <= 0:
            return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight)
        loss = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight, reduction="none")
        p = logits.sigmoid()
        p_true = wanted * p + (1 - wanted) * (1 - p)
        alpha = wanted * FOCAL_ALPHA + (1 - wanted) * (1 - FOCAL_ALPHA)
        return (loss * alpha * (1 - p_true) ** self.hyp.fl_gamma).mean()


def _put_last(wanted: Tensor, m: Assignment, values: Tensor) -> Tensor:
    """Write values at the matches' places; of several for one place the last stays, deterministically."""
    if not len(m):
        return wanted
    _, a, h, w = wanted.shape
    place = ((m.image * a + m.anchor) * h + m.row) * w + m.column
    order = torch.full((wanted.numel(),), -1, dtype=torch.int64, device=wanted.device)
    order.scatter_reduce_(0, place, torch.arange(len(m), device=wanted.device), "amax")
    last = order[place]
    wanted.view(-1)[place] = values[last]  # equal values at equal places, so the order of writing cannot matter
    return wanted
