"""Batch norm over the batches of all processes, on the processor; torch's own `SyncBatchNorm` is for GPUs alone."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """The sum over the processes; so is its gradient, as every process's loss depends on every summand."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose mean and variance are those of the whole batch, wherever its images lie.

    Names and values of its state are those of `BatchNorm2d`. In evaluation it needs no other process.
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Normalise; in training all processes have to take part."""
        if not self.training:
            return super().forward(x)
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums, total = _sum(torch.cat((x.sum((0, 2, 3)), count))).split((x.shape[1], 1))
        mean, total = sums / total.detach(), total.detach()
        centred = x - mean[:, None, None]
        # In two steps, as the variance of large values would not survive E[x²] − E[x]².
        variance = _sum(centred.square().sum((0, 2, 3))) / total
        self._remember(mean.detach(), variance.detach(), float(total))
        scale = self.weight * (variance + self.eps).rsqrt()
        result: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return result

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Move the running statistics; the variance, as torch has it, without bias."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)


def synchronize_norms(model: nn.Module, device: torch.device) -> None:
    """Make every batch norm of a model one over all processes; its parameters and buffers stay the same objects."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, _over_all(child))


def _over_all(norm: nn.BatchNorm2d) -> SyncBatchNorm2d:
    made = SyncBatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    made.num_batches_tracked = norm.num_batches_tracked
    return made.train(norm.training)
