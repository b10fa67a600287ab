"""Memory and time of a training, from one step on this machine."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from yolo_cli.config import Hyperparameters
from yolo_cli.loss.losses import LossSettings, build_loss
from yolo_cli.model.build import DetectionModel
from yolo_cli.weights.networks import find_network

MODEL = "yolox-nano"  # what the README starts with
_IMAGES = 2
_COPIES = 5  # of the weights: gradients, the moving average and up to two moments of the optimizer


@dataclass(frozen=True)
class TrainingCost:
    """What a training of `model` costs. Loading images is not counted: workers do it at the same time."""

    model: str
    device: str
    seconds_per_image: float
    bytes_per_image: float
    fixed_bytes: float


def measure_training_cost(names: tuple[str, ...], img: tuple[int, int], device: torch.device) -> TrainingCost:
    """Run steps of MODEL on images of `img` (height, width). Memory is what autograd keeps for the backward pass."""
    architecture = find_network(MODEL)
    model = DetectionModel(architecture.with_classes(len(names)), names)
    model = model.to(device).to(memory_format=torch.channels_last).train()
    stride = max(model.strides)
    height, width = (-(-side // stride) * stride for side in img)
    loss = build_loss(architecture.loss or "anchor", model, LossSettings(Hyperparameters(), (height, width)))
    images = torch.zeros(_IMAGES, 3, height, width, device=device).to(memory_format=torch.channels_last)
    targets = torch.tensor([[i, 0, 0.5, 0.5, 0.3, 0.3] for i in range(_IMAGES)], device=device)

    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), images, targets)}
    kept: dict[int, int] = {}  # bytes by storage, so that views count once

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(model(images), targets).total.backward()
    start = time.perf_counter()
    loss(model(images), targets).total.backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = (time.perf_counter() - start) / _IMAGES
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    name = "this GPU" if device.type == "cuda" else f"this {device.type.upper()}"
    return TrainingCost(MODEL, name, seconds, sum(kept.values()) / _IMAGES, _COPIES * weights)
