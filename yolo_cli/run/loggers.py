"""Metric loggers: the protocol, and those for results.csv and TensorBoard."""

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
    "x/ema_decay",
    "x/mosaic",
)


@runtime_checkable
class MetricLogger(Protocol):
    """Records named numbers once per epoch."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def csv_row(epoch: int, values: Mapping[str, float]) -> list[str]:
    """The cells of an epoch in the order of COLUMNS; a number that was not measured is left empty."""
    return [str(epoch), *(f"{values[name]:.6g}" if name in values else "" for name in COLUMNS[1:])]


class CsvLogger:
    """Writes results.csv: one row per epoch, with the columns of COLUMNS.

    `rows` are those of a continued run. Other rows in the file were logged after its state was saved, and are removed.
    """

    def __init__(self, path: Path, rows: Sequence[Sequence[str]] = ()) -> None:
        self.path = path
        self._write([COLUMNS, *rows], "w")

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self._write([csv_row(epoch, values)], "a")

    def _write(self, rows: Sequence[Sequence[str]], mode: str) -> None:
        try:
            with self.path.open(mode, newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
        except OSError as error:
            raise UserError(f"cannot be written ({error.strerror})", where=self.path) from None

    def close(self) -> None:
        pass  # the file is closed after each row


class TensorBoardLogger:
    """Writes TensorBoard events to the run folder. A continued run begins with epoch `first`."""

    def __init__(self, folder: Path, first: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - slow to import, used by training only

        # Hides what a continued run had logged after its state was saved.
        self._writer = SummaryWriter(str(folder), purge_step=first or None)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        self._writer.close()
