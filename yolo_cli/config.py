"""Every option and hyperparameter with its default and its limits, one frozen dataclass per command.

Field names equal option names. Values are checked when a config is made, on the command line or in Python: a bad one
raises a UserError that names the option.
"""

import math
from dataclasses import dataclass, fields

from yolo_cli.errors import UserError
from yolo_cli.option_checks import (
    check_at_least,
    check_choice,
    check_fractions,
    check_img,
    check_precision,
    check_resamples,
    check_save_conf,
    check_seed,
    check_threshold_choice,
    check_tile,
)
from yolo_cli.thresholds import DEFAULT, check_conf

SPLITS = ("train", "val", "test")
LOSSES = ("anchor", "ota", "simota")  # `--loss`
OPTIMIZERS = ("SGD", "Adam", "AdamW")
NAN_POLICIES = ("stop", "skip")
CACHES = ("ram", "disk")
AUTO_BATCH = -1  # `--batch -1`: as many images as fit into the GPU's memory
OPSETS = (17, 23)
_MAX_ANCHORS = 1000
_HYP_FRACTIONS = frozenset(
    ("lrf", "ema_decay", "hsv_h", "hsv_s", "hsv_v", "translate", "scale", "flipud", "fliplr", "mosaic", "mixup")
)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The values of `data/hyp/*.yaml`. Loss gains hold for 3 scales, 80 classes and 640 pixels."""

    lr0: float = 0.01  # initial learning rate
    lrf: float = 0.01  # final learning rate as a fraction of lr0
    momentum: float = 0.937  # SGD momentum, or Adam's beta1
    weight_decay: float = 0.0005
    warmup_epochs: float = 3.0
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1
    nominal_batch: int = 64  # images over which gradients are accumulated
    clip_grad_norm: float = 10.0  # 0: no clipping
    ema_decay: float = 0.9999
    ema_ramp: float = 2000.0  # time constant, in updates, of the rise of the decay
    box: float = 0.05  # gains of the box, objectness and class losses
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
    close_mosaic: int = 0  # epochs at the end without mosaic and mixup
    l1: float = 0.0  # weight of the L1 distance of boxes in these epochs, with --loss simota

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UserError(f"{name} must be a number from 0 up, not {value!r}")
            if name in ("momentum", "warmup_momentum") and value >= 1:
                raise UserError(f"{name} must be below 1, not {value!r}")
            if name in _HYP_FRACTIONS and value > 1:
                raise UserError(f"{name} must be from 0 to 1, not {value!r}")
        if self.nominal_batch < 1 or self.anchor_t <= 1:
            raise UserError("nominal_batch must be at least 1 and anchor_t above 1")
        if self.l1 and not self.close_mosaic:
            raise UserError("l1 is for the epochs without mosaic, but close_mosaic is 0")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Options of `yolo train`."""

    weights: str = ""
    cfg: str = ""
    data: str = "shapes"
    hyp: str = ""
    epochs: int = 100
    batch: int = 16
    img: tuple[int, int] = (640, 640)
    rect: bool = False
    resume: str = ""
    noval: bool = False
    nosave: bool = False
    noautoanchor: bool = False
    noplots: bool = False
    cache: str = ""
    image_weights: bool = False
    device: str = ""
    multi_scale: bool = False
    sync_bn: bool = False
    single_cls: bool = False
    optimizer: str = "SGD"
    loss: str = ""  # the model's own
    workers: int = -1
    project: str = "runs"
    name: str = "exp"
    exist_ok: bool = False
    cos_lr: bool = False
    label_smoothing: float = 0.0
    patience: int = 100
    freeze: tuple[int, ...] = ()
    save_period: int = -1
    save_every: int = 0  # in batches; 0: only at the end of epochs
    save_minutes: float = 0.0
    nan_policy: str = "stop"
    seed: int = 0
    repeats: int = 1
    strict: bool = False

    def __post_init__(self) -> None:
        if self.batch != AUTO_BATCH:
            check_at_least(self, batch=1)
        check_at_least(self, epochs=1, repeats=1, workers=-1, patience=0, save_period=-1, save_every=0, save_minutes=0)
        check_img(self.img)
        check_seed(self.seed)
        if self.loss:
            check_choice(self, "loss", LOSSES)
        check_choice(self, "nan_policy", NAN_POLICIES)
        if self.cache:
            check_choice(self, "cache", CACHES)
        if self.optimizer.lower() not in [name.lower() for name in OPTIMIZERS]:
            check_choice(self, "optimizer", OPTIMIZERS)
        if not 0 <= self.label_smoothing < 1:
            raise UserError("must be from 0 to below 1", where=f"--label-smoothing {self.label_smoothing}")
        if self.image_weights and self.rect:
            what = "rectangular batches cannot be weighted"
            raise UserError(what, where="--image-weights --rect", fix="leave one out")
        if any(layer < 0 for layer in self.freeze):
            raise UserError("layers are numbered from 0", where="--freeze")


@dataclass(frozen=True, slots=True)
class ValConfig:
    """Options of `yolo val`."""

    weights: str = ""
    cfg: str = ""
    data: str = "coco128"
    batch: int = 32
    img: tuple[int, int] = (640, 640)
    conf: float = 0.001
    iou: float = 0.6
    max_det: int = 300
    task: str = "val"
    device: str = ""
    workers: int = -1
    single_cls: bool = False
    verbose: bool = False
    beta: float = 1.0
    min_precision: float | None = None
    save_thresholds: bool = False
    save_txt: bool = False
    save_conf: bool = False
    save_json: bool = False
    pycocotools: bool = False
    half: bool = False
    plots: bool = True
    strict: bool = False
    project: str = "runs"
    name: str = "exp"
    exist_ok: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, batch=1, max_det=1, workers=-1)
        check_fractions(self, "conf", "iou")
        check_img(self.img)
        check_choice(self, "task", SPLITS)
        check_save_conf(save_conf=self.save_conf, save_txt=self.save_txt)
        check_threshold_choice(self.beta, self.min_precision)
        if self.save_thresholds and self.single_cls:
            what = "thresholds of one class do not fit a model of several"
            raise UserError(what, where="--save-thresholds --single-cls", fix="leave one out")


@dataclass(frozen=True, slots=True)
class CompareConfig:
    """Arguments and options of `yolo compare`."""

    recipes: tuple[str, ...]  # each a weight file, a run folder, predictions.json, or a quoted glob of these
    data: str = ""
    task: str = "val"
    batch: int = 32
    img: tuple[int, int] = (640, 640)
    iou: float = 0.6
    max_det: int = 300
    device: str = ""
    workers: int = -1
    resamples: int = 1000
    seed: int = 0
    min_gain: float | None = None  # in points of AP
    verbose: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, batch=1, max_det=1, workers=-1)
        check_resamples(self.resamples)
        check_fractions(self, "iou")
        check_img(self.img)
        check_seed(self.seed)
        check_choice(self, "task", SPLITS)
        if len(self.recipes) < 2:
            raise UserError("two models are needed", where="yolo compare", fix="name the base first, then the others")
        if self.min_gain is not None and not math.isfinite(self.min_gain):
            raise UserError("must be a number", where=f"--min-gain {self.min_gain}")


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """Argument and options of `yolo report`."""

    run: str  # a run folder of val or train
    base: str = ""  # another one, on the same images
    output: str = ""  # report.html in the run folder
    resamples: int = 1000
    seed: int = 0
    batch: int = 32  # of a run that has to be evaluated again
    device: str = ""
    workers: int = -1

    def __post_init__(self) -> None:
        check_at_least(self, batch=1, workers=-1)
        check_resamples(self.resamples)
        check_seed(self.seed)


@dataclass(frozen=True, slots=True)
class InfoConfig:
    """Options of `yolo info`."""

    cfg: str = ""
    weights: str = ""
    img: tuple[int, int] = (640, 640)

    def __post_init__(self) -> None:
        check_img(self.img)


@dataclass(frozen=True, slots=True)
class ConvertConfig:
    """Arguments and options of `yolo convert`."""

    source: str
    target: str
    cfg: str = ""


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """Options of `yolo export`."""

    weights: str = ""
    include: str = "onnx"  # formats, comma-separated
    cfg: str = ""
    img: tuple[int, int] = (640, 640)
    batch: int = 1
    dynamic: bool = False
    half: bool = False
    int8: bool = False
    data: str = ""
    simplify: bool = False
    opset: int = 18
    nms: bool = False
    conf: float | str = DEFAULT
    iou: float = 0.45
    max_det: int = 300
    device: str = "cpu"
    verify: bool = True
    project: str = "runs"
    name: str = "exp"
    exist_ok: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, batch=1, max_det=1)
        check_conf(self.conf)
        check_fractions(self, "iou")
        check_img(self.img)
        check_precision(half=self.half, int8=self.int8)
        if self.int8 and not self.data:
            raise UserError("needs images to calibrate on", where="--int8", fix="give --data, the training dataset")
        if not OPSETS[0] <= self.opset <= OPSETS[1]:
            raise UserError(f"must be from {OPSETS[0]} to {OPSETS[1]}", where=f"--opset {self.opset}")


@dataclass(frozen=True, slots=True)
class BenchmarkConfig:
    """Options of `yolo benchmark`."""

    weights: str = ""
    data: str = "coco128"
    include: str = ""  # "": every format that runs on this machine
    cfg: str = ""
    img: tuple[int, int] = (640, 640)
    half: bool = False
    int8: bool = False
    images: int = 64
    device: str = "cpu"
    project: str = "runs"
    name: str = "exp"
    exist_ok: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, images=1)
        check_img(self.img)
        check_precision(half=self.half, int8=self.int8)


@dataclass(frozen=True, slots=True)
class AnchorsConfig:
    """Options of `yolo anchors`."""

    data: str = "coco128"
    task: str = "train"
    n: int = 0
    img: tuple[int, int] = (640, 640)
    thr: float = 4.0
    gen: int = 60
    seed: int = 0
    weights: str = ""
    cfg: str = ""
    save: str = ""
    workers: int = -1
    strict: bool = False
    project: str = "runs"
    name: str = "exp"
    exist_ok: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, gen=0, workers=-1)
        check_img(self.img)
        check_seed(self.seed)
        check_choice(self, "task", SPLITS)
        if not 0 <= self.n <= _MAX_ANCHORS:
            raise UserError(f"must be from 1 to {_MAX_ANCHORS}, or 0", where=f"--n {self.n}")
        if not self.thr > 1:
            raise UserError("must be above 1", where=f"--thr {self.thr}")


@dataclass(frozen=True, slots=True)
class DetectConfig:
    """Options of `yolo detect`."""

    source: str = ""
    weights: str = ""
    img: tuple[int, int] = (640, 640)
    conf: float | str = DEFAULT
    iou: float = 0.45
    max_det: int = 1000
    classes: tuple[int, ...] = ()
    agnostic_nms: bool = False
    augment: bool = False
    tile: int = 0  # side of a tile in pixels of the source; 0: no tiles, -1: the larger side of --img
    half: bool = False
    device: str = ""
    batch: int = 0  # 0: 16 on a GPU, 1 on the CPU
    vid_stride: int = 1
    stream_buffer: bool = False
    save_txt: bool = False
    save_conf: bool = False
    save_crop: bool = False
    save_csv: bool = False
    save_json: bool = False
    nosave: bool = False
    json: bool = False
    view_img: bool = False
    line_thickness: int = 0  # 0: chosen by image size
    hide_labels: bool = False
    hide_conf: bool = False
    visualize: bool = False
    project: str = "runs"
    name: str = "exp"
    exist_ok: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, batch=0, max_det=1, vid_stride=1, line_thickness=0)
        check_conf(self.conf)
        check_fractions(self, "iou")
        check_img(self.img)
        check_tile(self.tile)
        check_save_conf(save_conf=self.save_conf, save_txt=self.save_txt)
