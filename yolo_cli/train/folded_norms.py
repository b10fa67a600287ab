"""Batch norms that were folded into their convolutions get statistics again before training.

A file with folded norms is read back with norms that only add a bias. In training mode such a norm would divide by the
standard deviation of the batch, which the pretrained weights were never scaled for.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def is_folded(norm: nn.BatchNorm2d) -> bool:
    """Whether a norm only adds its bias in eval mode."""
    if norm.running_mean is None or norm.running_var is None:
        return False
    deviation = (norm.running_var + norm.eps).sqrt()
    return not bool(norm.running_mean.any()) and torch.allclose(
        norm.weight, deviation, rtol=1e-4
    )  # FP16 files are that exact


@torch.no_grad()
def restore_norms(model: nn.Module, batches: Iterable[Float[Tensor, "b 3 h w"]]) -> int:
    """Give folded norms the statistics of some batches, and the scales and biases that leave the eval output as it is.

    A norm that adds β gets mean μ, variance σ², scale √(σ² + ε) and bias β + μ. Returns their number.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d) and is_folded(module)]
    sums: dict[nn.Module, list[Tensor]] = {}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double()
        found = [x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), x.new_tensor(x[:, 0].numel())]
        sums[norm] = [a + b for a, b in zip(sums[norm], found, strict=True)] if norm in sums else found

    if not norms:
        return 0
    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    training = model.training
    model.eval()
    for images in batches:
        model(images)
    model.train(training)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        if norm not in sums or norm.running_mean is None or norm.running_var is None:
            continue  # of a layer for training only
        total, squares, count = sums[norm]
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(norm.bias.double() + mean)
    return len(norms)
