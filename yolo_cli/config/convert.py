"""Options of `yolo convert`."""

from dataclasses import dataclass

from yolo_cli.config.checks import check_choice
from yolo_cli.errors import UserError

DATASET_FORMATS = ("yolo", "coco", "voc")


@dataclass(frozen=True, slots=True)
class ConvertConfig:
    """Arguments and options of `yolo convert`. With `to`, `source` is a dataset and `target` a new folder."""

    source: str
    target: str
    cfg: str = ""
    to: str = ""
    copy: bool = False

    def __post_init__(self) -> None:
        if self.to:
            check_choice(self, "to", DATASET_FORMATS)
            if self.cfg:
                raise UserError("only Darknet weights take a .cfg", where=f"--cfg {self.cfg}", fix="leave it out")
        elif self.copy:
            raise UserError("copies the images of a dataset", where="--copy", fix="give --to, too")
