"""`yolo train --time`: how many epochs fit."""

import math
import time
from dataclasses import dataclass, field
from statistics import median

_PLANNING_FRACTION = 0.2  # of the epochs: until then the plan may also grow, afterwards it only shrinks
_FINAL_SECONDS = 5.0  # for plots and reports at the end, besides the validation of the best weights


@dataclass(slots=True)
class TimeBudget:
    """The time of a run, and what its epochs have taken so far.

    Attributes:
        seconds: the budget. Pauses between an interruption and a resume do not count.
        started: of this process, by `time.perf_counter()`.
        spent: seconds of earlier processes that this run was continued from.
    """

    seconds: float
    started: float
    spent: float = 0.0
    _training: list[float] = field(default_factory=list)
    _validation: list[float] = field(default_factory=list)

    def elapsed(self) -> float:
        """Seconds of the run so far."""
        return self.spent + time.perf_counter() - self.started

    def record(self, training: float, validation: float) -> None:
        """Note the seconds of a whole epoch."""
        self._training.append(training)
        self._validation.append(validation)

    @property
    def epoch_seconds(self) -> float:
        """The median of the recorded epochs with their validation."""
        return median(map(sum, zip(self._training, self._validation, strict=True)))

    def plan(self, done: int, planned: int) -> int:
        """The total number of epochs that fit, at least `done`.

        Args:
            done: finished epochs.
            planned: total number of epochs in the plan so far; 0 without a plan.
        """
        final = _FINAL_SECONDS + 1.5 * (max(self._validation) or max(self._training) / 4)
        left = self.seconds - self.elapsed() - final
        fitting = done + max(math.floor(left / self.epoch_seconds), 0)
        may_grow = not planned or done <= max(_PLANNING_FRACTION * planned, 2)
        return fitting if may_grow else min(fitting, planned)


class EpochTimer:
    """Measures an epoch of which `batches` of `total` are still to be trained."""

    def __init__(self, batches: int, total: int) -> None:
        self._scale = total / max(batches, 1)
        self._began = self._trained = time.perf_counter()

    def trained(self) -> None:
        """Note the end of the training, before the validation."""
        self._trained = time.perf_counter()

    def seconds(self) -> tuple[float, float]:
        """Seconds of the whole epoch's training, and of its validation until now."""
        return (self._trained - self._began) * self._scale, time.perf_counter() - self._trained
