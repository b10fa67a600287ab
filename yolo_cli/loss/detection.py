"""The detection loss: complete IoU for boxes, binary cross-entropy for objectness and class."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from yolo_cli.boxes.iou import complete_iou
from yolo_cli.config import Hyperparameters
from yolo_cli.distributed.world import SINGLE_PROCESS, World
from yolo_cli.loss.assign import Assignment, assign
from yolo_cli.loss.simota import transport
from yolo_cli.model.heads import Boxes, Head, RawMaps, sigmoid_boxes

FOCAL_ALPHA = 0.25
MATCHINGS = ("anchor", "ota")
# Auxiliary outputs (Wang et al. 2023, "YOLOv7", section 4.2) learn from wider matches, with less weight; and beside
# them the optimal transport looks at more overlaps.
AUXILIARY_WEIGHT = 0.25
MAIN_REACH, AUXILIARY_REACH = 0.5, 1.0
BEST_IOUS, BEST_IOUS_WITH_AUXILIARY = 10, 20


@dataclass(frozen=True, slots=True)
class LossOutput:
    """`total` is what to minimise (a sum over the batch); the parts are means, times their gains."""

    # In one of several processes: its part of what the mean over the processes comes to, and of the parts' sums.
    total: Float[Tensor, ""]
    box: Float[Tensor, ""]
    obj: Float[Tensor, ""]
    cls: Float[Tensor, ""]

    def values(self) -> Float[Tensor, "3"]:
        """Box, objectness and class parts, detached."""
        return torch.stack((self.box, self.obj, self.cls)).detach()


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights of the three parts."""

    box: float
    obj: float
    cls: float


def scaled_loss_weights(hyp: Hyperparameters, scales: int, nc: int, img: tuple[int, int]) -> LossWeights:
    """Gains for this model and image size; those of the file are for three scales, 80 classes, 640×640."""
    per_scale = 3 / scales
    area = img[0] * img[1] / 640**2
    return LossWeights(hyp.box * per_scale, hyp.obj * area * per_scale, hyp.cls * nc / 80 * per_scale)


def scale_balance(scales: int) -> tuple[float, ...]:
    """Weight of each scale's objectness: fine grids have many more cells, and fewer of them hold an object."""
    if scales == 3:
        return (4.0, 1.0, 0.4)
    published = (4.0, 1.0, 0.25, 0.06, 0.02)
    return (published + (published[-1],) * scales)[:scales]


class DetectionLoss:
    """Loss of raw maps against targets (Jocher et al., YOLOv5): the same for any number of scales.

    Which predictions answer for a target is settled by anchor sides alone ("anchor"), or by optimal transport among
    those ("ota"; Wang et al. 2023, YOLOv7). Auxiliary maps, where there are any after the main ones, are matched by
    what the main ones predict, and add to all parts.
    """

    def __init__(
        self,
        anchors: Float[Tensor, "s a 2"],
        nc: int,
        hyp: Hyperparameters,
        gains: LossWeights,
        label_smoothing: float = 0.0,
        *,
        matching: str = "anchor",
        auxiliary: bool = False,
        boxes: Boxes = lambda values, anchor_wh, scale: sigmoid_boxes(values, anchor_wh),
        strides: Sequence[int] = (),
        world: World = SINGLE_PROCESS,
    ) -> None:
        """`anchors` are in cells of their scales; `gains` as they are to be applied (see `scaled_gains`).

        `auxiliary` says whether the model has auxiliary outputs, also where it is in evaluation and leaves them out.
        `boxes` is how the head codes boxes; `strides` say which scale is the finest, the first where they are left out.
        Of several processes, `world`, each takes its part of a batch: means are over the whole of it.
        """
        if matching not in MATCHINGS:
            raise ValueError(f"matching must be one of {', '.join(MATCHINGS)}, not {matching!r}")
        self.matching, self.best = matching, BEST_IOUS_WITH_AUXILIARY if auxiliary else BEST_IOUS
        self.anchors, self.nc, self.hyp, self.gains, self.boxes = anchors, nc, hyp, gains, boxes
        self.world = world
        from_fine = sorted(range(len(anchors)), key=lambda i: strides[i] if strides else i)
        weights = dict(zip(from_fine, scale_balance(len(anchors)), strict=True))
        self.balance = tuple(weights[i] for i in range(len(anchors)))
        self.positive, self.negative = 1 - label_smoothing / 2, label_smoothing / 2

    @classmethod
    def of(
        cls,
        head: Head,
        hyp: Hyperparameters,
        gains: LossWeights,
        label_smoothing: float = 0.0,
        *,
        matching: str = "anchor",
        auxiliary: bool = False,
        world: World = SINGLE_PROCESS,
    ) -> "DetectionLoss":
        """The loss of a head: its anchors (as they are now and as they may be moved), classes and code of boxes."""
        return cls(
            head.anchors,
            head.nc,
            hyp,
            gains,
            label_smoothing,
            matching=matching,
            auxiliary=auxiliary,
            boxes=head.boxes,
            strides=head.strides,
            world=world,
        )

    def __call__(self, raw: RawMaps, targets: Float[Tensor, "n 6"]) -> LossOutput:
        """Loss of a batch. `targets` rows: image, class, cx, cy, w, h as fractions of the canvas."""
        main, auxiliary = raw[: len(self.anchors)], raw[len(self.anchors) :]
        parts = self._parts(main, self.matches(main, targets, MAIN_REACH))
        if auxiliary:
            parts = parts + AUXILIARY_WEIGHT * self._parts(auxiliary, self.matches(main, targets, AUXILIARY_REACH))
        box, obj, cls = parts.unbind()
        box, obj, cls = box * self.gains.box, obj * self.gains.obj, cls * self.gains.cls
        total = (box + obj + cls) * raw[0].shape[0]
        if self.world.size > 1:  # for all images, and the mean over the processes undone: this is a part of a sum
            total = total / self.world.share_of_sum([raw[0].shape[0]], raw[0].device)[0] * self.world.size
        return LossOutput(total, box, obj, cls)

    def matches(self, raw: RawMaps, targets: Float[Tensor, "n 6"], reach: float) -> list[Assignment]:
        """Per scale, which predictions answer for which target; `reach` is the bias towards neighbouring cells."""
        candidates = [
            assign(targets, anchors, (y.shape[2], y.shape[3]), anchor_t=self.hyp.anchor_t, neighbour_bias=reach)
            for y, anchors in zip(raw, self.anchors, strict=True)
        ]
        return transport(raw, candidates, targets, self.boxes, best=self.best) if self.matching == "ota" else candidates

    def _parts(self, raw: RawMaps, matched: Sequence[Assignment]) -> Tensor:
        """Box, objectness and class losses of all scales, before their gains."""
        box = obj = cls = raw[0].new_zeros((), dtype=torch.float32)
        counts = [len(m) for m in matched] + [y[..., 4].numel() for y in raw]
        of_matches, of_cells = self.world.share_of_sum(counts, raw[0].device).split(len(raw))
        for scale, (prediction, matches, balance) in enumerate(zip(raw, matched, self.balance, strict=True)):
            quality, scale_box, scale_cls = self._matched(prediction, matches, scale)
            box, cls = box + of_matches[scale] * scale_box, cls + of_matches[scale] * scale_cls
            objectness = prediction[..., 4].float()
            wanted = torch.zeros_like(objectness)
            # Where several targets claim a prediction, the last in order counts, on every device.
            wanted = _put_last(wanted, matches, quality)
            obj = obj + balance * of_cells[scale] * self._cross_entropy(objectness, wanted, self.hyp.obj_pw)
        return torch.stack((box, obj, cls))

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
