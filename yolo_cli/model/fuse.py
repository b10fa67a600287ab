"""Fusing for inference: batch norms and parallel branches become convolutions, auxiliary outputs are removed."""

import copy
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from yolo_cli.model.build import DetectionModel


@runtime_checkable
class Fusible(Protocol):
    """A block that can replace its layers by fewer, equivalent ones."""

    def fuse(self) -> None:
        """Fuse in place; valid in eval mode only."""
        ...


@torch.no_grad()
def fuse(model: DetectionModel) -> DetectionModel:
    """A fused copy in eval mode with the model's outputs within rounding. The model itself is not changed."""
    if model.fused:
        return model
    fused = copy.deepcopy(model).eval()
    for module in list(fused.modules()):
        if isinstance(module, Fusible):
            module.fuse()
    for index in range(len(fused.model)):
        if index not in fused.inference_layers:
            fused.model[index] = nn.Identity()  # used by auxiliary outputs only; the other layers keep their indices
    fused.fused = True
    return fused.requires_grad_(False)
