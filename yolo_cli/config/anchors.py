"""Options of `yolo anchors`."""

from dataclasses import dataclass

from yolo_cli.config.checks import SPLITS, check_at_least, check_choice, check_img, check_seed
from yolo_cli.errors import UserError

_MAX_ANCHORS = 1000


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
