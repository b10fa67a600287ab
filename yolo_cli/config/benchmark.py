"""Options of `yolo benchmark`."""

from dataclasses import dataclass

from yolo_cli.config.checks import check_at_least, check_img, check_precision


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
