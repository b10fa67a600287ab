"""What happens when the loss of a batch is not finite, or a worker that loads images dies."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from yolo_cli.batch import Batch
from yolo_cli.distributed.elastic import PeerError
from yolo_cli.distributed.world import World
from yolo_cli.errors import UserError
from yolo_cli.progress import Reporter
from yolo_cli.torch_errors import dead_worker
from yolo_cli.train.setup import TrainSetup

MAX_SKIPPED = 10  # batches in a row, and at least an epoch, after which skipping cannot help any more


class NanGuard:
    """Stops the training at a loss that is not finite, or skips the batch, as --nan-policy requires.

    Either way the images of the batch are listed and drawn in the run folder.
    """

    def __init__(
        self, setup: TrainSetup, folder: Path, world: World, reporter: Reporter, *, batches_per_epoch: int
    ) -> None:
        self._policy, self._index, self._names = setup.config.nan_policy, setup.data.train.index, setup.model.names
        self._folder, self._rank, self._reporter = folder, world.rank, reporter
        self._batches, self._last, self._in_a_row = batches_per_epoch, -2, 0
        # A skipped batch must not change the running statistics of batch norm, which the forward pass updates.
        self._buffers = list(setup.model.buffers()) if self._policy == "skip" else []

    def save_statistics(self) -> list[Tensor]:
        """A copy of the running statistics before a batch; empty if no batch can be skipped."""
        return [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def handle(self, epoch: int, number: int, batch: Batch, statistics: list[Tensor], *, own: bool = True) -> None:
        """Write the batch's images to the run folder; restore `statistics`, or raise UserError to stop.

        With `own` False, the loss of another process is not finite. That process reports it; here the policy "stop"
        raises PeerError.
        """
        if own:
            self._report(epoch, number, batch)
        elif self._policy == "stop":
            raise PeerError("the loss is not finite")
        for buffer, old in zip(self._buffers, statistics, strict=True):
            buffer.copy_(old)
        step = epoch * self._batches + number
        self._in_a_row, self._last = (self._in_a_row + 1 if step == self._last + 1 else 1), step
        if self._in_a_row >= max(self._batches, MAX_SKIPPED):
            what = f"the loss of {self._in_a_row} batches in a row is not finite: the weights have diverged"
            raise UserError(what, fix="lower lr0 in the --hyp file, and start a new run")

    def _report(self, epoch: int, number: int, batch: Batch) -> None:
        name = f"not_finite_epoch{epoch + 1}_batch{number + 1}" + (f"_rank{self._rank}" if self._rank else "")
        files = [self._index.path(i) for i in batch.indices]
        (self._folder / f"{name}.txt").write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
        from yolo_cli.run.run_plots import draw_batch, label_rows  # noqa: PLC0415 - matplotlib is slow to import

        draw_batch(self._folder / f"{name}.jpg", batch, label_rows(batch), self._names, self._index)
        what = f"the loss is not finite in epoch {epoch + 1}, batch {number + 1}"
        where = f"its images are listed in {self._folder / name}.txt and drawn in {name}.jpg"
        if self._policy == "stop":
            raise UserError(what, fix=f"{where}; lower lr0 in the --hyp file, or give --nan-policy skip")
        self._reporter.warn(f"{what}: skipped; {where}")


@contextmanager
def explain_worker_failures(folder: Path) -> Iterator[None]:
    """Raise UserError if a worker that loads images dies. torch raises its error wherever the process happens to be."""
    try:
        yield
    except RuntimeError as error:
        if not (how := dead_worker(error)):
            raise
        # Frees the loaders with the frames. As long as they exist, torch raises the error again and again.
        traceback.clear_frames(error.__traceback__)
        if error.__context__:
            traceback.clear_frames(error.__context__.__traceback__)
        raise UserError(
            f"a worker that loads images {how}",
            fix="the usual cause is lack of memory: give fewer --workers or a smaller --batch, "
            f"and continue with yolo train --resume {folder}",
        ) from None
