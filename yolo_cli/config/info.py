"""Options of `yolo info`."""

from dataclasses import dataclass

from yolo_cli.config.checks import check_img


@dataclass(frozen=True, slots=True)
class InfoConfig:
    """Options of `yolo info`."""

    cfg: str = ""
    weights: str = ""
    img: tuple[int, int] = (640, 640)

    def __post_init__(self) -> None:
        check_img(self.img)
