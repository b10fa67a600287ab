"""When a training writes checkpoints, and what they contain."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolo_cli.config import TrainConfig
from yolo_cli.io.atomic import remove_leftovers
from yolo_cli.train.resume import LAST, PREVIOUS
from yolo_cli.train.state import TrainState
from yolo_cli.weights import checkpoint


class CheckpointManager:
    """Writes last.pt (weights and the state to resume from), and best.pt and the periodic ones (weights only).

    best.pt and results.csv are written before last.pt: a run that is killed in between resumes from the previous
    last.pt and writes both again.

    Args:
        folder: of the run; files are written to its subfolder `weights`.
        config: decides which checkpoints are written, and when.
        state: what is saved, as it is at the time of saving.
        identity: plain data that identifies the run, saved with the state.
        base_license: of the weights that the training began with, saved with every checkpoint.
        enabled: False in all processes but the main one, which then write nothing.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        state: TrainState,
        identity: Mapping[str, Any],
        *,
        base_license: str = "",
        enabled: bool = True,
    ) -> None:
        self._folder, self._config, self._state, self.identity = folder / "weights", config, state, identity
        self._base_license, self._enabled = base_license, enabled
        if enabled:
            remove_leftovers(self._folder)
        self._saved = time.monotonic()

    def save_epoch(self, epoch: int, *, better: bool, ended: bool) -> None:
        """Write the checkpoints that are due after an epoch."""
        config = self._config
        if not self._enabled or (config.nosave and not ended):
            return
        if better or config.nosave:
            self._write("best.pt", epoch)
        if config.save_period > 0 and (epoch + 1) % config.save_period == 0:
            self._write(f"epoch{epoch + 1}.pt", epoch)
        self.save(ended=ended)

    def is_due_by_count(self, step: int) -> bool:
        """Whether --save-every requires a state after this step; the same in all processes."""
        return self._config.save_every > 0 and (step + 1) % self._config.save_every == 0

    def is_due(self, step: int) -> bool:
        """Whether --save-every or --save-minutes require a state after this step."""
        minutes = self._config.save_minutes
        by_time = minutes > 0 and time.monotonic() - self._saved >= 60 * minutes
        return self._enabled and (by_time or self.is_due_by_count(step))

    def save(self, *, ended: bool = False) -> None:
        """Write last.pt and keep the previous one."""
        if not self._enabled:
            return
        progress = self._state.progress
        epoch = progress.epoch if progress.batch else progress.epoch - 1
        self._write(LAST, epoch, training={**self._state.state_dict(), **self.identity, "ended": ended})
        self._saved = time.monotonic()

    def _write(self, name: str, epoch: int, **extra: object) -> None:
        progress = self._state.progress
        checkpoint.save(
            self._folder / name,
            self._state.ema.model,
            epoch=epoch,
            base_license=self._base_license,
            extra={"fitness": float(progress.best_fitness), "img": list(self._config.img), **extra},
            previous=self._folder / PREVIOUS if name == LAST else None,
        )
