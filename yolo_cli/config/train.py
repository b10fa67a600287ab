"""Options of `yolo train`."""

from dataclasses import dataclass

from yolo_cli.config.checks import check_at_least, check_choice, check_img, check_seed, check_tile, parse_duration
from yolo_cli.errors import UserError

LOSSES = ("anchor", "ota", "simota", "tal")  # `--loss`
OPTIMIZERS = ("SGD", "Adam", "AdamW")
NAN_POLICIES = ("stop", "skip")
CACHES = ("ram", "disk")
AUTO_BATCH = -1  # `--batch -1`: as many images as fit into the GPU's memory


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Options of `yolo train`."""

    weights: str = ""
    cfg: str = ""
    data: str = "shapes"
    hyp: str = "auto"
    epochs: int = 100
    time: str = ""  # a budget instead of epochs, as parse_duration reads it
    batch: int = 16
    img: tuple[int, int] = (640, 640)
    rect: bool = False
    tile: int = 0  # side in pixels of the images; 0: no tiles, -1: the larger side of --img
    resume: str = ""
    noval: bool = False
    nosave: bool = False
    noautoanchor: bool = False
    noplots: bool = False
    cache: str = ""
    shuffle_window: int = -1  # in tar shards; 0: all of them, -1: 8 if they are at URLs, else all
    image_weights: bool = False
    device: str = ""
    multi_scale: bool = False
    sync_bn: bool = False
    compile: bool = False  # the network, with torch.compile
    single_cls: bool = False
    optimizer: str = ""  # that of --hyp auto, or SGD
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
        check_at_least(
            self,
            epochs=1,
            repeats=1,
            workers=-1,
            shuffle_window=-1,
            patience=0,
            save_period=-1,
            save_every=0,
            save_minutes=0,
        )
        check_img(self.img)
        check_seed(self.seed)
        if self.loss:
            check_choice(self, "loss", LOSSES)
        check_choice(self, "nan_policy", NAN_POLICIES)
        if self.cache:
            check_choice(self, "cache", CACHES)
        if self.time:
            parse_duration(self.time)
        if self.optimizer and self.optimizer.lower() not in [name.lower() for name in OPTIMIZERS]:
            check_choice(self, "optimizer", OPTIMIZERS)
        if not 0 <= self.label_smoothing < 1:
            raise UserError("must be from 0 to below 1", where=f"--label-smoothing {self.label_smoothing}")
        if self.image_weights and self.rect:
            what = "rectangular batches cannot be weighted"
            raise UserError(what, where="--image-weights --rect", fix="leave one out")
        if self.compile and (self.multi_scale or self.rect):
            other = "--multi-scale" if self.multi_scale else "--rect"
            what = "the network is compiled for one size of images, but they vary"
            raise UserError(what, where=f"--compile {other}", fix="leave one out")
        check_tile(self.tile)
        if self.tile and (self.rect or self.cache):
            other, what = ("--rect", "batches whole images") if self.rect else ("--cache", "keeps scaled images")
            raise UserError(f"tiles need all pixels, but {other} {what}", where=f"--tile {other}", fix="leave one out")
        if any(layer < 0 for layer in self.freeze):
            raise UserError("layers are numbered from 0", where="--freeze")
