"""Fusing for inference: batch norms and parallel branches folded into convolutions, auxiliary outputs dropped."""

import copy
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from yolo_cli.model.build import DetectionModel


@runtime_checkable
class Fusible(Protocol):
    """A block that can fold itself into fewer operations."""

    def fuse(self) -> None:
        """Fold in place; eval mode only."""
        ...


@torch.no_grad()
def fuse(model: DetectionModel) -> DetectionModel:
    """A fused copy in eval mode, equal to the model within rounding; the model itself stays as it is."""
    if model.fused:
        return model
    fused = copy.deepcopy(model).eval()
    for module in list(fused.modules()):
        if isinstance(module, Fusible):
            module.fuse()
    for index in range(len(fused.model)):
        if index not in fused.inference_layers:
            fused.model[index] = nn.Identity()  # it fed an auxiliary output; the others keep their numbers
    fused.fused = True
    return fused.requires_grad_(False)
