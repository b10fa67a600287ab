"""`--hyp auto`: hyperparameters and optimizer, chosen by the amount of training and by what it starts from.

docs/recipes.md has the measurements behind the values.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from yolo_cli.config import Hyperparameters
from yolo_cli.errors import UserError
from yolo_cli.train.hyperparameters import HypChoice, describe_hyperparameters

# Up to this many batches in the whole run, AdamW without accumulation is used; above, the published recipe.
SHORT_RUN = 20_000
_EMA_FRACTION = 0.05  # of a short run: horizon of the moving average
_WARMUP_FRACTION = 0.1  # of a short run, at most _WARMUP_EPOCHS
_WARMUP_EPOCHS = 3.0
_CLASSES = 24  # a short run from weights has at least the class weight that the published recipe has with so many
_NEIGHBORS = 512  # `mosaic_window` of datasets that are at least twice as large, where an image is then decoded once
_CLOSING_EPOCHS = 15  # of a long run without mosaic, at most a tenth; as many as YOLOX's published schedule has

# What depends on the number of epochs. --time sets it again when the first epochs are measured.
SCHEDULED = (
    "lr0",
    "lrf",
    "lr_per_batch",
    "flat",
    "momentum",
    "warmup_epochs",
    "warmup_min_steps",
    "warmup_bias_lr",
    "nominal_batch",
    "ema_decay",
    "ema_ramp",
    "close_mosaic",
)


@dataclass(frozen=True, slots=True)
class Workload:
    """What a recipe is chosen for."""

    images: int
    batch: int  # images per batch, summed over all devices
    epochs: int
    pretrained: bool
    classes: int = 0  # of a loss whose class weight is scaled by their number, else 0

    @property
    def batches(self) -> int:
        """The batches of the whole run."""
        return math.ceil(self.images / self.batch) * self.epochs


@dataclass(frozen=True, slots=True)
class Recipe:
    """What `--hyp auto` chose."""

    hyp: Hyperparameters
    optimizer: str
    reason: str

    def describe(self) -> str:
        """The choice and the reason for it, in one line."""
        values = describe_hyperparameters(self.hyp)
        return f"hyperparameters: {self.reason} → {self.optimizer}, {values or 'defaults'}"


def choose_recipe(choice: HypChoice, workload: Workload, optimizer: str = "") -> Recipe:
    """The recipe for a workload, unless `--hyp` names a file; explicit values and `optimizer` win over the choice.

    Raises UserError if the explicit values do not go together.
    """
    if not choice.automatic:
        return Recipe(choice.with_defaults(), optimizer or "SGD", "given by --hyp")
    start = "pretrained weights" if workload.pretrained else "scratch"
    if workload.batches > SHORT_RUN:
        name = optimizer or "SGD"
        chosen = _long_run(workload, name)
        reason = f"{workload.batches:,} batches from {start}, a long run"
    else:
        name = optimizer or "AdamW"
        chosen = _short_run(workload, name)
        reason = f"{workload.batches:,} batches from {start}, a short run"
    if workload.images >= 2 * _NEIGHBORS:
        chosen["mosaic_window"] = _NEIGHBORS
    if name.lower() != "sgd" and "lr0" in choice.values:
        chosen["warmup_bias_lr"] = choice.values["lr0"]  # biases warm up as all others do
    try:
        return Recipe(replace(Hyperparameters(), **{**chosen, **choice.values}), name, reason)
    except UserError as error:
        raise UserError(error.what, where="--hyp") from None


def _short_run(workload: Workload, optimizer: str) -> dict[str, Any]:
    """Few batches: one update per batch, a short warm-up, and a moving average with a short horizon."""
    adam = optimizer.lower() != "sgd"
    # Pretrained weights are easily destroyed, random ones are not. More images per update allow larger steps: with the
    # root of the batch size, as Malladi et al. (2022) derive for Adam.
    lr0 = (0.001 if workload.pretrained else 0.003) if adam else 0.01
    lr0 = round(lr0 * min(max(workload.batch / 16, 0.25), 4.0) ** 0.5, 6)
    # A new network learns little from mosaics of tiny objects in a few hundred steps.
    augmentation = {} if workload.pretrained else {"mosaic": 0.5, "scale": 0.4}
    horizon = max(_EMA_FRACTION * workload.batches, 10.0)
    return {
        "lr0": lr0,
        "lrf": 0.02,
        "lr_per_batch": 1,
        "momentum": 0.9 if adam else 0.937,
        "warmup_epochs": round(min(_WARMUP_FRACTION * workload.epochs, _WARMUP_EPOCHS), 2),
        "warmup_min_steps": 0,
        "warmup_bias_lr": lr0 if adam else 0.1,
        "nominal_batch": workload.batch,
        "ema_decay": round(1 - 1 / horizon, 6),
        "ema_ramp": round(horizon, 1),
        **_class_weight(workload),
        **augmentation,
    }


def _class_weight(workload: Workload) -> dict[str, float]:
    """The loss multiplies `cls` by the number of classes ÷ 80, which leaves little of it where there are few."""
    if not workload.pretrained or not 1 < workload.classes < _CLASSES:
        return {}
    return {"cls": round(Hyperparameters().cls * _CLASSES / workload.classes, 3)}


def _long_run(workload: Workload, optimizer: str) -> dict[str, Any]:
    """Many batches: the published recipe, with the last epochs free of mosaic."""
    adam = {"lr0": 0.001, "momentum": 0.9, "warmup_bias_lr": 0.001} if optimizer.lower() != "sgd" else {}
    return {**adam, "close_mosaic": min(workload.epochs // 10, _CLOSING_EPOCHS)}
