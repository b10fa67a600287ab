"""Fusing for inference: batch norms folded into the convolutions before them."""

import copy
from typing import Protocol, runtime_checkable

import torch

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
    fused.fused = True
    return fused.requires_grad_(False)
