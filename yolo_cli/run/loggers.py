"""Metric loggers: one small protocol, and the two that a run writes."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from yolo_cli.errors import UserError

COLUMNS = (
    "epoch",
    "train/box_loss",
    "train/obj_loss",
    "train/cls_loss",
    "metrics/precision",
    "metrics/recall",
    "metrics/mAP_0.5",
    "metrics/mAP_0.5:0.95",
    "val/box_loss",
    "val/obj_loss",
    "val/cls_loss",
    "x/lr0",
    "x/lr1",
    "x/lr2",
)


@runtime_checkable
class MetricLogger(Protocol):
    """Takes one mapping of named numbers per epoch."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record an epoch."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...


class CsvLogger:
    """results.csv: a row an epoch, the columns of COLUMNS; a number that was not measured is left empty.

    `rows` are those of a run that is continued; whatever else the file holds was logged after the state was saved.
    """

    def __init__(self, path: Path, rows: Sequence[Sequence[str]] = ()) -> None:
        self.path = path
        self.rows = [list(row) for row in rows]
        self._write([COLUMNS, *self.rows], "w")

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Append a row."""
        cells = (f"{values[name]:.6g}" if name in values else "" for name in COLUMNS[1:])
        self.rows.append([str(epoch), *cells])
        self._write(self.rows[-1:], "a")

    def _write(self, rows: Sequence[Sequence[str]], mode: str) -> None:
        try:
            with self.path.open(mode, newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
        except OSError as error:
            raise UserError(f"cannot be written ({error.strerror})", where=self.path) from None

    def close(self) -> None:
        """Nothing is held open."""


class TensorBoardLogger:
    """TensorBoard events in the run folder."""

    def __init__(self, folder: Path, first: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - slow to import, wanted by training alone

        # Of a run that is continued, what was logged from this epoch on is shown no more.
        self._writer = SummaryWriter(str(folder), purge_step=first or None)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write every number as a scalar."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        """Flush the events."""
        self._writer.close()
