"""What the layers of a network see: sheets of feature maps."""

import threading
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from yolo_cli.batch import prepare_images
from yolo_cli.inference.sources.frames import Canvas
from yolo_cli.model.build import DetectionModel

MOST = 32  # channels a sheet
_COLUMNS = 8
_CELL = 160  # pixels that a map's longer side is at most enlarged or shrunk to
_LOCK = threading.Lock()


@torch.inference_mode()
def feature_sheets(model: DetectionModel, canvas: Canvas, device: torch.device) -> dict[str, UInt8[np.ndarray, "_ _"]]:
    """Grey sheets of the first channels of every layer but the head, by names such as `layer04_C3`."""
    sheets: dict[str, UInt8[np.ndarray, "_ _"]] = {}
    mine = threading.get_ident()  # other threads use the model meanwhile, and run into the same hooks

    def keep(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if threading.get_ident() == mine and isinstance(output, Tensor) and output.ndim == 4:
                sheets[name] = _sheet(output[0].float().cpu())

        return hook

    half = next(model.parameters()).dtype == torch.float16
    with _LOCK:
        layers = list(model.model)[:-1]
        handles = [
            layer.register_forward_hook(keep(f"layer{i:02d}_{type(layer).__name__}")) for i, layer in enumerate(layers)
        ]
        try:
            model(prepare_images(canvas.image[None], device, half=half))
        finally:
            for handle in handles:
                handle.remove()
    return sheets


def _sheet(maps: Tensor) -> UInt8[np.ndarray, "_ _"]:
    maps = maps[:MOST]
    height, width = maps.shape[1:]
    scale = _CELL / max(height, width)
    h, w = max(round(height * scale), 1), max(round(width * scale), 1)
    rows = -(-len(maps) // _COLUMNS)
    sheet = np.full((rows * (h + 2), min(len(maps), _COLUMNS) * (w + 2)), 255, np.uint8)
    for i, one in enumerate(maps.numpy()):
        low, high = float(one.min()), float(one.max())
        grey = np.uint8((one - low) * (255 / (high - low)) if high > low else np.zeros_like(one))
        y, x = i // _COLUMNS * (h + 2), i % _COLUMNS * (w + 2)
        sheet[y : y + h, x : x + w] = cv2.resize(np.asarray(grey), (w, h), interpolation=cv2.INTER_NEAREST)
    return sheet
