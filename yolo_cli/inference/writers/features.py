"""Feature maps of a network as images."""

import threading
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from yolo_cli.batch import prepare_images
from yolo_cli.inference.sources.frames import ModelInput
from yolo_cli.model.build import DetectionModel

MAX_CHANNELS = 32  # per sheet
_COLUMNS = 8
_CELL = 160  # pixels; the longer side of each map on its sheet
_LOCK = threading.Lock()


@torch.inference_mode()
def feature_sheets(
    model: DetectionModel, model_input: ModelInput, device: torch.device
) -> dict[str, UInt8[np.ndarray, "_ _"]]:
    """Gray sheets of the first channels of every layer but the head, by names such as `layer04_C3`."""
    sheets: dict[str, UInt8[np.ndarray, "_ _"]] = {}
    this_thread = threading.get_ident()  # other threads run the model meanwhile and trigger the same hooks

    def save_as(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if threading.get_ident() == this_thread and isinstance(output, Tensor) and output.ndim == 4:
                sheets[name] = _sheet(output[0].float().cpu())

        return hook

    half = next(model.parameters()).dtype == torch.float16
    with _LOCK:
        layers = list(model.model)[:-1]
        handles = [
            layer.register_forward_hook(save_as(f"layer{i:02d}_{type(layer).__name__}"))
            for i, layer in enumerate(layers)
        ]
        try:
            model(prepare_images(model_input.image[None], device, half=half))
        finally:
            for handle in handles:
                handle.remove()
    return sheets


def _sheet(maps: Tensor) -> UInt8[np.ndarray, "_ _"]:
    maps = maps[:MAX_CHANNELS]
    height, width = maps.shape[1:]
    scale = _CELL / max(height, width)
    h, w = max(round(height * scale), 1), max(round(width * scale), 1)
    rows = -(-len(maps) // _COLUMNS)
    sheet = np.full((rows * (h + 2), min(len(maps), _COLUMNS) * (w + 2)), 255, np.uint8)
    for i, one in enumerate(maps.numpy()):
        low, high = float(one.min()), float(one.max())
        gray = np.uint8((one - low) * (255 / (high - low)) if high > low else np.zeros_like(one))
        y, x = i // _COLUMNS * (h + 2), i % _COLUMNS * (w + 2)
        sheet[y : y + h, x : x + w] = cv2.resize(np.asarray(gray), (w, h), interpolation=cv2.INTER_NEAREST)
    return sheet
