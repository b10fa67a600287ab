"""Options of `yolo check`."""

from dataclasses import dataclass

from yolo_cli.config.checks import check_at_least, check_img


@dataclass(frozen=True, slots=True)
class CheckConfig:
    """Options of `yolo check`."""

    data: str = "coco128"
    weights: str = ""  # weight files or training runs, separated by commas, or globs
    img: tuple[int, int] = (640, 640)
    images: bool = True
    advice: bool = True
    fix: str = ""
    json: bool = False
    html: bool = True
    strict: bool = False
    batch: int = 32
    device: str = ""
    workers: int = -1
    project: str = "runs"
    name: str = "check"
    exist_ok: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, batch=1, workers=-1)
        check_img(self.img)
