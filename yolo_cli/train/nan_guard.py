"""What happens when the loss of a batch is not finite, or a worker that loads images dies."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from yolo_cli.dataset.loader import BatchLoader
from yolo_cli.distributed.elastic import PeerError
from yolo_cli.distributed.world import World
from yolo_cli.errors import UserError
from yolo_cli.progress import Reporter
from yolo_cli.torch_errors import dead_worker
from yolo_cli.train.device_values import StepValues
from yolo_cli.train.setup import TrainSetup

MAX_SKIPPED = 10  # batches in a row, and at least an epoch, after which skipping cannot help any more


class NanGuard:
    """Stops the training at a loss or gradient that is not finite, or leaves the batch out, as --nan-policy requires.

    Either way the images of the batch are listed and drawn in the run folder. No such value reaches the weights: the
    device leaves out the update, also before the host has read the values. See `TrainStep`.

    Args:
        setup: of the training.
        folder: of the run.
        world: the processes that train together.
        reporter: for warnings.
        batches: the training batches.
    """

    def __init__(self, setup: TrainSetup, folder: Path, world: World, reporter: Reporter, batches: BatchLoader) -> None:
        self._policy, self._index, self._names = setup.config.nan_policy, setup.data.train.index, setup.model.names
        self._folder, self._rank, self._reporter = folder, world.rank, reporter
        self._loader, self._batches, self._last, self._in_a_row = batches, len(batches.batches), -2, 0
        # A batch that is left out must not change the running statistics of batch norm, which the forward pass updates.
        self._buffers = list(setup.model.buffers()) if self._policy == "skip" else []

    def save_statistics(self) -> list[Tensor]:
        """A copy of the running statistics before a batch; empty if no batch can be skipped."""
        return [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def restore_statistics(self, statistics: list[Tensor], finite: Bool[Tensor, ""]) -> None:
        """Go back to what `save_statistics` returned, unless the loss is finite."""
        for buffer, old in zip(self._buffers, statistics, strict=True):
            buffer.copy_(torch.where(finite, buffer, old))

    def handle(self, step: StepValues) -> None:
        """Write the images of a batch with a value that is not finite to the run folder; raise UserError to stop.

        If the value is another process's, that process reports it; here the policy "stop" raises PeerError.
        """
        if step.own:
            self._report(step)
        elif self._policy == "stop":
            raise PeerError("the loss is not finite")
        position = step.epoch * self._batches + step.number
        self._in_a_row, self._last = (self._in_a_row + 1 if position == self._last + 1 else 1), position
        if self._in_a_row >= max(self._batches, MAX_SKIPPED):
            what = f"the loss of {self._in_a_row} batches in a row is not finite: the weights have diverged"
            raise UserError(what, fix="lower lr0 in the --hyp file, and start a new run")

    def _report(self, step: StepValues) -> None:
        epoch, number = step.epoch, step.number
        name = f"not_finite_epoch{epoch + 1}_batch{number + 1}" + (f"_rank{self._rank}" if self._rank else "")
        batch = self._loader.batch(number)
        files = [self._index.path(i) for i in batch.indices]
        (self._folder / f"{name}.txt").write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
        from yolo_cli.run.run_plots import draw_batch, label_rows  # noqa: PLC0415 - matplotlib is slow to import

        draw_batch(self._folder / f"{name}.jpg", batch, label_rows(batch), self._names, self._index)
        value = "gradient" if step.gradient else "loss"
        what = f"the {value} is not finite in epoch {epoch + 1}, batch {number + 1}"
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
