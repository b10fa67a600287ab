"""When a training writes checkpoints, and what is in them."""

import time
from typing import TYPE_CHECKING, Never

from yolo_cli.io.atomic import remove_leftovers
from yolo_cli.train.resume import LAST, PREVIOUS, fingerprint, options
from yolo_cli.train.signals import StoppedError
from yolo_cli.train.state import capture
from yolo_cli.weights import checkpoint

if TYPE_CHECKING:
    from yolo_cli.train.loop import Trainer


class CheckpointManager:
    """Writes last.pt (weights and the state to continue from), best.pt and the periodic ones (weights alone).

    best.pt and results.csv are written before last.pt: a run that is killed in between continues from the last.pt
    before, and does both again.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self._trainer = trainer
        if trainer.world.is_main:
            remove_leftovers(trainer.folder / "weights")
        self._saved = time.monotonic()

    def epoch_done(self, epoch: int, *, better: bool, ended: bool) -> None:
        """Write what the end of an epoch asks for."""
        config = self._trainer.config
        if not self._trainer.world.is_main or (config.nosave and not ended):
            return
        if better or config.nosave:
            self._weights("best.pt", epoch)
        if config.save_period > 0 and (epoch + 1) % config.save_period == 0:
            self._weights(f"epoch{epoch + 1}.pt", epoch)
        self.save(epoch, ended=ended)

    def is_due(self, step: int) -> bool:
        """Whether --save-every or --save-minutes ask for a state after this step."""
        config = self._trainer.config
        if not self._trainer.world.is_main:
            return False
        by_count = config.save_every > 0 and (step + 1) % config.save_every == 0
        return by_count or (config.save_minutes > 0 and time.monotonic() - self._saved >= 60 * config.save_minutes)

    def mid_epoch(self, stopped_by: int) -> None:
        """Write the state between two batches; end the training where a signal of that number asked for it."""
        if stopped_by:
            self.stop(stopped_by)
        self.save(self._trainer.progress.epoch)

    def stop(self, number: int, *, ended: bool = False) -> Never:
        """Save, say how to go on, and raise StoppedError for the signal of that number.

        Where the run has `ended`, that is saved already; its best weights are still to be judged.
        """
        progress = self._trainer.progress
        if not ended:
            self.save(progress.epoch)
        place = f"in epoch {progress.epoch + 1} after batch {progress.batch} of {self._trainer.batches_per_epoch}"
        self.say_stopped("after the last epoch" if ended else place)
        raise StoppedError(number)

    def say_stopped(self, place: str) -> None:
        """How to go on from what is saved."""
        trainer = self._trainer
        command = f"yolo train --resume {trainer.folder}{_devices(trainer.config.device)}"
        trainer.reporter.info(f"stopped {place}, saved; go on with: {command}")

    def save(self, epoch: int, *, ended: bool = False) -> None:
        """Write last.pt, keeping the one before it."""
        trainer = self._trainer
        if not trainer.world.is_main:  # one process writes
            return
        state = capture(
            trainer.progress,
            trainer.model,
            trainer.ema,
            trainer.optimizer,
            trainer.scaler,
            options=options(trainer.config),
            hyp={name: getattr(trainer.hyp, name) for name in trainer.hyp.__dataclass_fields__},
            data=fingerprint(trainer.data),
            ended=ended,
            batches=trainer.batches_per_epoch,
        )
        self._write(LAST, epoch, training=state)
        self._saved = time.monotonic()

    def _weights(self, name: str, epoch: int) -> None:
        self._write(name, epoch)

    def _write(self, name: str, epoch: int, **extra: object) -> None:
        trainer = self._trainer
        folder = trainer.folder / "weights"
        checkpoint.save(
            folder / name,
            trainer.ema.model,
            epoch=epoch,
            extra={"fitness": float(trainer.progress.best_fitness), "img": list(trainer.img), **extra},
            previous=folder / PREVIOUS if name == LAST else None,
        )


def _devices(request: str) -> str:
    return f" --device {request}" if "," in request else ""
