"""What happens when a batch gives no finite loss, or the processes that load images are lost."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from yolo_cli.batch import Batch
from yolo_cli.config import TrainConfig
from yolo_cli.dataset.labels import LabelIndex
from yolo_cli.distributed.elastic import PeerError
from yolo_cli.errors import UserError
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Reporter

GIVE_UP = 10  # batches that are left out in a row, and an epoch at least, after which leaving out is no remedy


class NanGuard:
    """Stops at a loss that is not finite, or leaves the batch out; either way its images are kept for inspection."""

    def __init__(
        self,
        config: TrainConfig,
        model: DetectionModel,
        index: LabelIndex,
        folder: Path,
        reporter: Reporter,
        rank: int = 0,
        *,
        batches: int = 1,
    ) -> None:
        """`batches` are those of an epoch."""
        self._policy, self._index, self._folder, self._reporter = config.nan_policy, index, folder, reporter
        self._names, self._rank = model.names, rank
        self._batches, self._last, self._in_a_row = batches, -2, 0
        # Parameters wait for the update, but batch norm's running statistics take in a batch as it passes.
        self._buffers = list(model.buffers()) if self._policy == "skip" else []

    def statistics(self) -> list[Tensor]:
        """Running statistics as they are before a batch, where it may have to be undone."""
        return [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def not_finite(self, epoch: int, number: int, batch: Batch, before: list[Tensor], *, mine: bool = True) -> None:
        """Keep the batch's images and list; undo what it did, or raise UserError, as --nan-policy says.

        Where it is the batch of another process (not `mine`), that one tells; raises PeerError instead.
        """
        if mine:
            self._tell(epoch, number, batch)
        elif self._policy == "stop":
            raise PeerError("the loss is not finite")
        for buffer, old in zip(self._buffers, before, strict=True):
            buffer.copy_(old)
        step = epoch * self._batches + number
        self._in_a_row, self._last = (self._in_a_row + 1 if step == self._last + 1 else 1), step
        if self._in_a_row >= max(self._batches, GIVE_UP):
            what = f"{self._in_a_row} batches in a row gave no finite loss: the weights are spoilt"
            raise UserError(what, fix="lower lr0 in the --hyp file, and start anew")

    def _tell(self, epoch: int, number: int, batch: Batch) -> None:
        name = f"not_finite_epoch{epoch + 1}_batch{number + 1}" + (f"_rank{self._rank}" if self._rank else "")
        files = [self._index.path(i) for i in batch.indices]
        (self._folder / f"{name}.txt").write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
        from yolo_cli.run.run_plots import draw_batch, label_rows  # noqa: PLC0415 - matplotlib is slow to import

        draw_batch(self._folder / f"{name}.jpg", batch, label_rows(batch), self._names, self._index)
        what = f"the loss is not finite in epoch {epoch + 1}, batch {number + 1}"
        where = f"its images are listed in {self._folder / name}.txt and drawn in {name}.jpg"
        if self._policy == "stop":
            fix = f"{where}; lower lr0 in the --hyp file, or give --nan-policy skip"
            raise UserError(what, fix=fix)
        self._reporter.warn(f"{what}: left out; {where}")


@contextmanager
def explain_worker_failures(folder: Path) -> Iterator[None]:
    """A UserError where a process that loads images dies, which torch notices wherever it is."""
    try:
        yield
    except RuntimeError as error:
        said = re.search(r"DataLoader worker \(pid.*?\d\) (is killed by signal: \w+|exited unexpectedly)", str(error))
        if not said:
            raise
        # With the frames go the loaders; while they are there, torch says it again wherever the process is.
        traceback.clear_frames(error.__traceback__)
        if error.__context__:
            traceback.clear_frames(error.__context__.__traceback__)
        raise UserError(
            f"a process that loads images {said[1]}",
            fix="lack of memory is the usual cause: give fewer --workers or a smaller --batch, "
            f"and go on with yolo train --resume {folder}",
        ) from None
