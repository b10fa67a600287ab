"""Options of `yolo compare`."""

import math
from dataclasses import dataclass

from yolo_cli.config.checks import (
    SPLITS,
    check_at_least,
    check_choice,
    check_fractions,
    check_img,
    check_resamples,
    check_seed,
)
from yolo_cli.errors import UserError


@dataclass(frozen=True, slots=True)
class CompareConfig:
    """Arguments and options of `yolo compare`."""

    recipes: tuple[str, ...]  # each a weight file, a run folder, predictions.json, or a quoted glob of these
    data: str = ""
    task: str = "val"
    batch: int = 32
    img: tuple[int, int] = (640, 640)
    iou: float = 0.6
    max_det: int = 300
    device: str = ""
    workers: int = -1
    resamples: int = 1000
    seed: int = 0
    min_gain: float | None = None  # in points of AP
    verbose: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, batch=1, max_det=1, workers=-1)
        check_resamples(self.resamples)
        check_fractions(self, "iou")
        check_img(self.img)
        check_seed(self.seed)
        check_choice(self, "task", SPLITS)
        if len(self.recipes) < 2:
            raise UserError("two models are needed", where="yolo compare", fix="name the base first, then the others")
        if self.min_gain is not None and not math.isfinite(self.min_gain):
            raise UserError("must be a number", where=f"--min-gain {self.min_gain}")
