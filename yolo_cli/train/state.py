"""Everything that a training is made of at one moment, as plain data: what `last.pt` holds beside the weights.

The order of images, their augmentation, learning rates and accumulation are pure functions of (seed, epoch, batch), so
the position says them all. What remains is written down here; a run that continues from it gives the same bits.
"""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolo_cli.errors import UserError
from yolo_cli.train.optim import ModelEMA


@dataclass(slots=True)
class Progress:
    """How far a training is, and what it has seen so far."""

    epoch: int = 0
    batch: int = 0  # of the epoch, the next one; all of them done where it equals their number
    last_update: int = -1  # step of the last optimizer update
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # sums over this epoch's batches
    skipped: int = 0  # of them, left out because their loss was not finite
    best_fitness: float = -1.0
    best_epoch: int = -1
    fitness: float | None = None  # of the last validation
    per_class: list[list[float]] = field(default_factory=list)  # of the last validation: class, mAP@0.5:0.95
    rows: list[list[str]] = field(default_factory=list)  # of results.csv


def rescale(progress: Progress, before: int, now: int) -> None:
    """The same place in a training whose epochs have another number of batches.

    Rectangular batches hold one canvas each, so another number of processes makes others.
    """
    place = progress.batch / before
    since = progress.epoch * before + progress.batch - 1 - progress.last_update  # a wait for so many batches
    progress.batch, progress.skipped = round(place * now), round(progress.skipped * now / before)
    progress.losses = [loss * now / before for loss in progress.losses]
    progress.last_update = progress.epoch * now + progress.batch - 1 - since


def capture(
    progress: Progress,
    model: nn.Module,
    ema: ModelEMA,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    **about: Any,
) -> dict[str, Any]:
    """The state as plain data and tensors; `about` is what identifies the run: options, hyperparameters, data."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {
        "progress": asdict(progress),
        "model": model.state_dict(),
        "ema_updates": ema.updates,
        "gradients": gradients,  # summed, and waiting for their update
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "random": _random_state(),
        **about,
    }


def restore(
    state: Mapping[str, Any],
    model: nn.Module,
    ema: ModelEMA,
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> Progress:
    """Put a captured state back; `average` is the moving average's own. Raises UserError where it does not fit."""
    try:
        model.load_state_dict(state["model"])
        ema.model.load_state_dict(average)
        ema.updates = int(state["ema_updates"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        parameters = dict(model.named_parameters())
        for name, gradient in state["gradients"].items():
            parameters[name].grad = gradient.to(parameters[name].device)
        _set_random_state(state["random"])
        return Progress(**state["progress"])
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"the saved state does not fit ({detail})", fix="start from its weights: --weights") from None


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
