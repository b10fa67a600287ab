"""Options of `yolo detect`."""

from dataclasses import dataclass

from yolo_cli.config.checks import check_at_least, check_fractions, check_img, check_save_conf, check_tile
from yolo_cli.config.thresholds import DEFAULT, check_conf


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
