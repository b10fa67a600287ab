"""Every option and every hyperparameter, with its default: frozen dataclasses whose fields carry the option names."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What `data/hyp/*.yaml` holds. Gains are for three scales, 80 classes and 640 pixels; the loss scales them."""

    lr0: float = 0.01  # initial learning rate
    lrf: float = 0.01  # final learning rate as a fraction of lr0
    momentum: float = 0.937  # SGD momentum, or Adam's beta1
    weight_decay: float = 0.0005
    warmup_epochs: float = 3.0
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1
    nominal_batch: int = 64  # gradients are accumulated up to about this many images
    clip_grad_norm: float = 10.0  # 0 leaves gradients as they are
    ema_decay: float = 0.9999
    ema_ramp: float = 2000.0  # updates over which the decay rises
    box: float = 0.05  # gains of the three parts of the loss
    obj: float = 1.0
    cls: float = 0.5
    obj_pw: float = 1.0  # weight of the positives in objectness
    cls_pw: float = 1.0  # weight of the positives in classification
    fl_gamma: float = 0.0  # focal loss gamma; 0 is plain cross-entropy
    anchor_t: float = 4.0  # largest side ratio at which an anchor matches a box
    hsv_h: float = 0.015  # augmentation: fractions of hue, saturation, value
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    degrees: float = 0.0  # ± rotation
    translate: float = 0.1  # ± fraction of the image
    scale: float = 0.5  # ± gain
    shear: float = 0.0  # ± degrees
    perspective: float = 0.0  # ± fraction, at most 0.001
    flipud: float = 0.0  # probabilities from here on
    fliplr: float = 0.5
    mosaic: float = 1.0
    mixup: float = 0.0


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
    loss: str = "anchor"
    workers: int = -1
    project: str = "runs"
    name: str = "exp"
    exist_ok: bool = False
    cos_lr: bool = False
    label_smoothing: float = 0.0
    patience: int = 100
    freeze: tuple[int, ...] = ()
    save_period: int = -1
    save_every: int = 0  # batches; 0: at the end of epochs
    save_minutes: float = 0.0
    nan_policy: str = "stop"
    seed: int = 0
    strict: bool = False


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
    save_txt: bool = False
    save_conf: bool = False
    save_json: bool = False
    referee: bool = False
    half: bool = False
    plots: bool = True
    strict: bool = False
    project: str = "runs"
    name: str = "exp"
    exist_ok: bool = False


@dataclass(frozen=True, slots=True)
class InfoConfig:
    """Options of `yolo info`."""

    cfg: str = ""
    weights: str = ""
    img: tuple[int, int] = (640, 640)


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
    include: str = "onnx"  # formats, with commas between them
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
    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 300
    device: str = "cpu"
    verify: bool = True
    project: str = "runs"
    name: str = "exp"
    exist_ok: bool = False


@dataclass(frozen=True, slots=True)
class BenchmarkConfig:
    """Options of `yolo benchmark`."""

    weights: str = ""
    data: str = "coco128"
    include: str = ""  # left out: every format that runs here
    cfg: str = ""
    img: tuple[int, int] = (640, 640)
    half: bool = False
    int8: bool = False
    images: int = 64
    device: str = "cpu"
    project: str = "runs"
    name: str = "exp"
    exist_ok: bool = False


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


@dataclass(frozen=True, slots=True)
class DetectConfig:
    """Options of `yolo detect`."""

    source: str = ""
    weights: str = ""
    img: tuple[int, int] = (640, 640)
    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 1000
    classes: tuple[int, ...] = ()
    agnostic_nms: bool = False
    augment: bool = False
    tile: int = 0  # pixels of the source a tile; 0: whole images, -1: the side of --img
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
    line_thickness: int = 0  # 0: as suits the picture
    hide_labels: bool = False
    hide_conf: bool = False
    visualize: bool = False
    project: str = "runs"
    name: str = "exp"
    exist_ok: bool = False
