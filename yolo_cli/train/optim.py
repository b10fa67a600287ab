"""Optimizer, schedule, moving average of weights, and frozen layers."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from yolo_cli.config import OPTIMIZERS, Hyperparameters
from yolo_cli.errors import UserError
from yolo_cli.model.build import DetectionModel

# Scales and offsets per channel that are not stored as vectors: implicit knowledge, and the weights of OREPA's terms.
PER_CHANNEL = (".implicit", ".vector")
GROUPS = ("weights", "norms", "biases")  # in this order in the optimizer; weight decay applies to weights only


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Each parameter in one group: weights, norm scales (and other vectors), biases."""
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in GROUPS}
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            groups["biases"].append(parameter)
        elif parameter.ndim <= 1 or name.endswith(PER_CHANNEL):
            groups["norms"].append(parameter)
        else:
            groups["weights"].append(parameter)
    return groups


def build_optimizer(model: nn.Module, name: str, hyp: Hyperparameters, batch: int) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, Adam or AdamW over the three groups.

    Weight decay is for `hyp.nominal_batch` images per update, and scaled to the actual number. Raises UserError for
    another name.
    """
    known = {optimizer.lower(): optimizer for optimizer in OPTIMIZERS}
    if name.lower() not in known:
        raise UserError("unknown optimizer", where=f"--optimizer {name}", fix=f"give one of {', '.join(OPTIMIZERS)}")
    decay = hyp.weight_decay * batch * accumulation(hyp, batch) / hyp.nominal_batch
    groups: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": decay if group == "weights" else 0.0}
        for group, parameters in parameter_groups(model).items()
    ]
    # A fused optimizer updates all parameters in one operation, which can leave the update out without the host.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in model.parameters())
    how: dict[str, Any] = {"fused": True} if fused else {"foreach": True}
    if known[name.lower()] != "SGD":
        adam = torch.optim.Adam if known[name.lower()] == "Adam" else torch.optim.AdamW
        return adam(groups, lr=hyp.lr0, betas=(hyp.momentum, 0.999), **how)
    optimizer = torch.optim.SGD(groups, lr=hyp.lr0, momentum=hyp.momentum, nesterov=hyp.momentum > 0, **how)
    if hyp.momentum > 0:
        # Otherwise the first update creates them, without values if it is left out.
        for parameter in (p for group in groups for p in group["params"] if p.requires_grad):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


@torch.no_grad()
def step_if_finite(optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
    """Update the parameters, unless the norm of their gradient is NaN or infinite.

    A fused optimizer decides on the device, as torch's GradScaler has it do; for others the norm is read.
    """
    if not optimizer.defaults.get("fused"):
        if norm.isfinite():
            optimizer.step()
        return
    fused: Any = optimizer
    fused.grad_scale, fused.found_inf = None, (~norm.isfinite()).float()
    optimizer.step()
    del fused.grad_scale, fused.found_inf


def accumulation(hyp: Hyperparameters, batch: int) -> int:
    """Batches whose gradients are accumulated per update, after the warm-up."""
    return max(round(hyp.nominal_batch / batch), 1)


@dataclass(frozen=True, slots=True)
class StepSettings:
    """The settings of one step; learning rates in the order of GROUPS."""

    lrs: tuple[float, float, float]
    momentum: float
    accumulate: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rates, momentum and gradient accumulation as a pure function of the step."""

    hyp: Hyperparameters
    epochs: int
    batches: int  # per epoch
    batch: int
    cosine: bool = False

    @property
    def warmup_steps(self) -> int:
        if self.hyp.warmup_epochs <= 0:
            return 0
        # A run shorter than this ends during the warm-up, so that a short fine-tuning cannot destroy the weights.
        return max(round(self.hyp.warmup_epochs * self.batches), self.hyp.warmup_min_steps)

    @property
    def closing_epoch(self) -> int:
        """The first epoch without mosaic and mixup."""
        return self.epochs - self.hyp.close_mosaic

    def decay(self, epoch: float) -> float:
        """Learning rate at a time, in epochs, relative to lr0: linear, or cosine (Loshchilov & Hutter 2017).

        It stays at 1 for the fraction `flat` of the epochs, as in RTMDet (Lyu et al. 2022).
        """
        x = max(epoch / self.epochs - self.hyp.flat, 0.0) / (1 - self.hyp.flat)
        remaining = (1 + math.cos(math.pi * x)) / 2 if self.cosine else 1 - x
        return remaining * (1 - self.hyp.lrf) + self.hyp.lrf

    def at(self, step: int) -> StepSettings:
        """Settings of a step, counted from 0 at the start of the run."""
        epoch = step / self.batches if self.hyp.lr_per_batch else step // self.batches
        target = self.hyp.lr0 * self.decay(epoch)
        warm = min(step / self.warmup_steps, 1.0) if self.warmup_steps else 1.0
        rising = target * warm
        falling = self.hyp.warmup_bias_lr + (target - self.hyp.warmup_bias_lr) * warm
        momentum = self.hyp.warmup_momentum + (self.hyp.momentum - self.hyp.warmup_momentum) * warm
        accumulate = max(1, round(1 + (self.hyp.nominal_batch / self.batch - 1) * warm))
        return StepSettings((rising, rising, falling), momentum, accumulate)


def apply_settings(optimizer: torch.optim.Optimizer, settings: StepSettings) -> None:
    """Set the learning rates, and the momentum of SGD, in the optimizer.

    Adam's beta1 stays as it is: the bias correction assumes that it is constant.
    """
    for group, lr in zip(optimizer.param_groups, settings.lrs, strict=True):
        group["lr"] = lr
        if "momentum" in group:
            group["momentum"] = settings.momentum


class ModelEMA:
    """Exponential moving average of parameters and buffers (Polyak & Juditsky 1992).

    The decay rises from 0 to `decay` over about `ramp` updates.
    """

    def __init__(self, model: DetectionModel, decay: float, ramp: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.ramp, self.updates = decay, ramp, 0
        # Pairs are looked up once, so that an update is a fused call over flat lists.
        own, theirs = self.model.state_dict(), model.state_dict()
        self._floats = [(own[k], theirs[k]) for k in own if own[k].is_floating_point()]
        self._others = [(own[k], theirs[k]) for k in own if not own[k].is_floating_point()]

    @property
    def current_decay(self) -> float:
        """The decay of the latest update."""
        return self.decay * (1 - math.exp(-self.updates / self.ramp)) if self.ramp > 0 else self.decay

    @torch.no_grad()
    def update(self) -> None:
        """Move toward the model by 1 − d, d = decay · (1 − e^(−updates / ramp))."""
        self.updates += 1
        d = self.current_decay
        mine, theirs = [a for a, _ in self._floats], [b for _, b in self._floats]
        torch._foreach_lerp_(mine, theirs, 1 - d)
        for a, b in self._others:
            a.copy_(b)


def frozen_layers(freeze: Sequence[int]) -> set[int]:
    """The layers that `--freeze` names: a single number n means the first n, several numbers mean themselves."""
    return set(range(freeze[0])) if len(freeze) == 1 else set(freeze)


def freeze_layers(model: DetectionModel, freeze: Sequence[int]) -> list[str]:
    """Exclude the parameters of the frozen layers from training; returns their names."""
    prefixes = tuple(f"model.{i}." for i in frozen_layers(freeze))
    names = []
    for name, parameter in model.named_parameters():
        if prefixes and name.startswith(prefixes):
            parameter.requires_grad_(False)
            names.append(name)
    return names


def set_train_mode(model: DetectionModel, freeze: Sequence[int]) -> None:
    """Put the model into training mode, except the batch norms of frozen layers.

    Those use their running statistics and leave them unchanged.
    """
    model.train()
    for layer in frozen_layers(freeze):
        for module in model.model[layer].modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
