"""The state of a training at one moment, as plain data: what `last.pt` holds besides the weights.

The order of images, their augmentation, learning rates and accumulation are pure functions of (seed, epoch, batch), so
the position determines them. Everything else is stored here, and a run that continues from it gives the same bits.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolo_cli.errors import UserError, first_line
from yolo_cli.train.optim import ModelEMA


@dataclass(slots=True)
class Progress:
    """The position of a training, and the results so far that later epochs depend on."""

    epoch: int = 0
    batch: int = 0  # the next one of the epoch; equal to their number when all are done
    last_update: int = -1  # step of the last optimizer update
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # sums over the batches of this epoch
    skipped: int = 0  # batches of this epoch that were skipped because their loss was not finite
    best_fitness: float = -1.0
    best_epoch: int = -1
    fitness: float | None = None  # of the last validation
    per_class: list[list[float]] = field(default_factory=list)  # of the last validation: class, mAP@0.5:0.95
    rows: list[list[str]] = field(default_factory=list)  # of results.csv
    seconds: float = 0.0  # of the budget of --time that are spent; 0 without it

    def add_losses(self, losses: Sequence[float]) -> None:
        """Add the losses of a batch to the sums of the epoch, in float32."""
        self.losses = np.add(self.losses, losses, dtype=np.float32).tolist()

    def mean_losses(self, batches: int) -> list[float]:
        """The mean over those of the first `batches` batches of the epoch that were not skipped."""
        return np.divide(self.losses, max(batches - self.skipped, 1), dtype=np.float32).tolist()


def rescale(progress: Progress, before: int, now: int) -> None:
    """Move `progress` to the same place in epochs of `now` instead of `before` batches.

    Each rectangular batch has one canvas, so another number of processes can change the number of batches.
    """
    place = progress.batch / before
    since = progress.epoch * before + progress.batch - 1 - progress.last_update  # batches since the last update
    progress.batch, progress.skipped = round(place * now), round(progress.skipped * now / before)
    progress.losses = [loss * now / before for loss in progress.losses]
    progress.last_update = progress.epoch * now + progress.batch - 1 - since


@dataclass(slots=True)
class TrainState:
    """The objects that change while a model is trained."""

    model: nn.Module
    ema: ModelEMA
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress = field(default_factory=Progress)

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data and tensors, without the weights of the moving average."""
        return {
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "ema_updates": self.ema.updates,
            # Accumulated, and not yet applied by an update.
            "gradients": {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": _random_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any], average: Mapping[str, Tensor]) -> None:
        """Restore a state; `average` holds the weights of the moving average.

        Raises UserError if the state does not fit the model or the optimizer.
        """
        try:
            self.model.load_state_dict(state["model"])
            self.ema.model.load_state_dict(average)
            self.ema.updates = int(state["ema_updates"])
            self.optimizer.load_state_dict(_as_on_this_device(state["optimizer"], self.optimizer))
            self.scaler.load_state_dict(state["scaler"])
            parameters = dict(self.model.named_parameters())
            for name, gradient in state["gradients"].items():
                parameters[name].grad = gradient.to(parameters[name].device)
            _set_random_state(state["random"])
            self.progress = Progress(**state["progress"])
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            what = f"the saved state does not fit ({first_line(error)})"
            raise UserError(what, fix="start from its weights: --weights") from None


def _as_on_this_device(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A saved state of an optimizer, with the implementation that is used here."""
    how = {name: optimizer.defaults[name] for name in ("foreach", "fused")}
    return {**saved, "param_groups": [{**group, **how} for group in saved["param_groups"]]}


def _random_state() -> dict[str, Any]:
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, gauss],
        "python": random.getstate(),
    }


def _set_random_state(saved: Mapping[str, Any]) -> None:
    torch.set_rng_state(saved["torch"].cpu())
    if saved["cuda"] and torch.cuda.device_count() == len(saved["cuda"]):
        torch.cuda.set_rng_state_all(saved["cuda"])
    name, keys, *rest = saved["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, inner, gauss = saved["python"]
    random.setstate((version, tuple(inner), gauss))
