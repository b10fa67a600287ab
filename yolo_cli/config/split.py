"""Options of `yolo split`."""

import re
from dataclasses import dataclass

from yolo_cli.config.checks import check_at_least, check_fractions, check_seed
from yolo_cli.errors import UserError

MAX_FOLDS = 100


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """Argument and options of `yolo split`."""

    images: str
    output: str = "splits"
    val: float = 0.2
    test: float = 0.0
    folds: int = 0
    group: str = ""
    stratify: bool = False
    ignore_duplicates: bool = False
    seed: int = 0
    workers: int = -1

    def __post_init__(self) -> None:
        check_at_least(self, workers=-1)
        check_fractions(self, "val", "test")
        check_seed(self.seed)
        if self.folds and not 2 <= self.folds <= MAX_FOLDS:
            raise UserError(f"must be from 2 to {MAX_FOLDS}, or 0 for no folds", where=f"--folds {self.folds}")
        if self.test >= 1 or (not self.folds and self.val + self.test >= 1):
            raise UserError("leave no images for training", where=f"--val {self.val} --test {self.test}")
        if not self.folds and not self.val + self.test:
            raise UserError("leave nothing to split off", where=f"--val {self.val} --test {self.test}")
        try:
            re.compile(self.group)
        except re.error as error:
            raise UserError(f"is no regular expression ({error})", where=f"--group {self.group}") from None
