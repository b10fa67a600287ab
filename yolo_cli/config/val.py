"""Options of `yolo val`."""

from dataclasses import dataclass

from yolo_cli.config.checks import (
    SPLITS,
    check_at_least,
    check_choice,
    check_fractions,
    check_img,
    check_save_conf,
    check_threshold_choice,
    check_tile,
)
from yolo_cli.errors import UserError


@dataclass(frozen=True, slots=True)
class ValConfig:
    """Options of `yolo val`."""

    weights: str = ""
    cfg: str = ""
    data: str = "coco128"
    batch: int = 32
    img: tuple[int, int] = (640, 640)
    conf: float = 0.001
    tile: int = 0  # side in pixels of the images; 0: no tiles, -1: the larger side of --img
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
        check_tile(self.tile)
        check_choice(self, "task", SPLITS)
        check_save_conf(save_conf=self.save_conf, save_txt=self.save_txt)
        check_threshold_choice(self.beta, self.min_precision)
        if self.save_thresholds and self.single_cls:
            what = "thresholds of one class do not fit a model of several"
            raise UserError(what, where="--save-thresholds --single-cls", fix="leave one out")
