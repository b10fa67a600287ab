"""Options of `yolo report`."""

from dataclasses import dataclass

from yolo_cli.config.checks import check_at_least, check_resamples, check_seed


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """Argument and options of `yolo report`."""

    run: str  # a run folder of val or train
    base: str = ""  # another one, on the same images
    output: str = ""  # report.html in the run folder
    resamples: int = 1000
    seed: int = 0
    batch: int = 32  # of a run that has to be evaluated again
    device: str = ""
    workers: int = -1

    def __post_init__(self) -> None:
        check_at_least(self, batch=1, workers=-1)
        check_resamples(self.resamples)
        check_seed(self.seed)
