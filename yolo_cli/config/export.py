"""Options of `yolo export`."""

from dataclasses import dataclass

from yolo_cli.config.checks import check_at_least, check_fractions, check_img, check_precision
from yolo_cli.config.thresholds import DEFAULT, check_conf
from yolo_cli.errors import UserError

OPSETS = (17, 23)


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
