"""Hyperparameters: their defaults and limits."""

import math
from dataclasses import dataclass, fields

from yolo_cli.errors import UserError

_FRACTIONS = frozenset(
    ("lrf", "ema_decay", "hsv_h", "hsv_s", "hsv_v", "translate", "scale", "flipud", "fliplr", "mosaic", "mixup")
)

MIN_WINDOW = 4  # as many images as a mosaic has


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The values of `data/hyp/*.yaml`. Loss gains hold for 3 scales, 80 classes and 640 pixels."""

    lr0: float = 0.01  # initial learning rate
    lrf: float = 0.01  # final learning rate as a fraction of lr0
    lr_per_batch: int = 0  # 1: the learning rate falls with every batch; 0: with every epoch
    flat: float = 0.0  # fraction of the epochs before the learning rate falls
    momentum: float = 0.937  # SGD momentum, or Adam's beta1
    weight_decay: float = 0.0005
    warmup_epochs: float = 3.0
    warmup_min_steps: int = 100  # a warm-up has at least so many batches
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1
    nominal_batch: int = 64  # images over which gradients are accumulated
    clip_grad_norm: float = 10.0  # 0: no clipping
    ema_decay: float = 0.9999
    ema_ramp: float = 2000.0  # time constant, in updates, of the rise of the decay
    box: float = 0.05  # gains of the box, objectness (--loss tal: distribution focal) and class losses
    obj: float = 1.0
    cls: float = 0.5
    obj_pw: float = 1.0  # weight of positives in the objectness loss
    cls_pw: float = 1.0  # weight of positives in the class loss
    fl_gamma: float = 0.0  # focal loss gamma; 0: cross-entropy
    anchor_t: float = 4.0  # maximum ratio of box and anchor sides for a match
    hsv_h: float = 0.015  # augmentation: ± fractions of hue, saturation and value
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    degrees: float = 0.0  # ± rotation in degrees
    translate: float = 0.1  # ± fraction of the image
    scale: float = 0.5  # ± gain
    shear: float = 0.0  # ± degrees
    perspective: float = 0.0  # ± fraction, at most 0.001
    flipud: float = 0.0  # flipud, fliplr, mosaic and mixup are probabilities
    fliplr: float = 0.5
    mosaic: float = 1.0
    mixup: float = 0.0
    mosaic_window: int = 0  # number of neighbors in an epoch's order that mosaics are made of; 0: all images
    close_mosaic: int = 0  # epochs at the end without mosaic and mixup
    l1: float = 0.0  # weight of the L1 distance of boxes in these epochs, with --loss simota

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UserError(f"{name} must be a number from 0 up, not {value!r}")
            if name in ("momentum", "warmup_momentum") and value >= 1:
                raise UserError(f"{name} must be below 1, not {value!r}")
            if name in _FRACTIONS and value > 1:
                raise UserError(f"{name} must be from 0 to 1, not {value!r}")
        if self.lr_per_batch > 1:
            raise UserError(f"lr_per_batch must be 0 or 1, not {self.lr_per_batch!r}")
        if self.flat >= 1:
            raise UserError(f"flat must be below 1, not {self.flat!r}")
        if self.nominal_batch < 1 or self.anchor_t <= 1:
            raise UserError("nominal_batch must be at least 1 and anchor_t above 1")
        if 0 < self.mosaic_window < MIN_WINDOW:
            raise UserError(f"mosaic_window must be 0 or at least {MIN_WINDOW}, not {self.mosaic_window!r}")
        if self.l1 and not self.close_mosaic:
            raise UserError("l1 is for the epochs without mosaic, but close_mosaic is 0")
