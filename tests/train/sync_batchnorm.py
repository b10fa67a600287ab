"""Synchronized batch norm on the CPU, for the test that several processes train as one does.

torch's own `SyncBatchNorm` needs GPUs.
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """The sum over the processes. So is its gradient: the loss of each process depends on every summand."""

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


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` with the mean and variance of the whole batch, over all processes.

    Its state has the names and values of `BatchNorm2d`. In eval mode it needs no other process.
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        if not self.training:
            return super().forward(x)
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums, total = _Sum.apply(torch.cat((x.sum((0, 2, 3)), count))).split((x.shape[1], 1))
        mean, total = sums / total.detach(), total.detach()
        centered = x - mean[:, None, None]
        # In two passes: E[x²] − E[x]² loses the variance of large values to rounding.
        variance = _Sum.apply(centered.square().sum((0, 2, 3))) / total
        self._update_statistics(mean.detach(), variance.detach(), float(total))
        scale = self.weight * (variance + self.eps).rsqrt()
        return centered * scale[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Update the running statistics, as in torch with the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)


def synchronize_norms(model: nn.Module) -> None:
    """Replace every batch norm of a model; parameters and buffers stay the same objects."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, _synchronized(child))


def _synchronized(norm: nn.BatchNorm2d) -> SyncBatchNorm2d:
    made = SyncBatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    made.num_batches_tracked = norm.num_batches_tracked
    return made.train(norm.training)
