"""Grids of images with boxes."""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from yolo_cli.drawing import draw_boxes, encode, fitted_text

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GAP = 4  # pixels between images
_BACKGROUND = 245


def image_grid(
    images: UInt8[Tensor, "b 3 h w"],
    boxes: Sequence[Float[Tensor, "_ columns"]],
    names: Sequence[str],
    out: Path,
    *,
    captions: Sequence[str] = (),
    max_images: int = 16,
    width: int = 1920,
    min_confidence: float = 0.25,
) -> None:
    """Write a grid of images with their boxes.

    Args:
        images: RGB.
        boxes: per image class, x1, y1, x2, y2 in pixels, and optionally confidence.
        names: class names.
        out: file to write.
        captions: texts below the images, such as file names.
        max_images: number of images to draw at most.
        width: maximum width of the grid in pixels.
        min_confidence: confidence threshold of boxes that have a confidence.

    Raises:
        OSError: the file cannot be written.
    """
    shown = min(len(images), max_images)
    columns = max(1, math.ceil(math.sqrt(shown)))
    rows = max(1, math.ceil(shown / columns))
    height, image_width = images.shape[2:] if shown else (240, 320)
    scale = min(1.0, ((width - _GAP) / columns - _GAP) / image_width)
    cell_w, cell_h = max(1, int(image_width * scale)), max(1, int(height * scale))
    strip = 22 if captions else 0
    step_x, step_y = cell_w + _GAP, cell_h + strip + _GAP
    grid = np.full((rows * step_y + _GAP, columns * step_x + _GAP, 3), _BACKGROUND, dtype=np.uint8)
    for i in range(shown):
        # Draw boxes after scaling, so that lines and text keep their size.
        image = images[i].permute(1, 2, 0).cpu().numpy()
        cell = cv2.resize(image, (cell_w, cell_h), interpolation=cv2.INTER_AREA)
        drawn = draw_boxes(np.ascontiguousarray(cell), _confident(boxes[i], min_confidence, scale), names)
        x, y = _GAP + i % columns * step_x, _GAP + i // columns * step_y
        grid[y : y + cell_h, x : x + cell_w] = drawn
        if i < len(captions):
            text = fitted_text(captions[i], 0.45, cell_w - 4)
            cv2.putText(grid, text, (x + 2, y + cell_h + 15), _FONT, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    if not shown:
        cv2.putText(grid, "no images", (20, 60), _FONT, 0.8, (120, 120, 120), 1, cv2.LINE_AA)
    out.write_bytes(encode(grid, out.suffix))


def _confident(boxes: Float[Tensor, "n columns"], min_confidence: float, scale: float) -> Float[Tensor, "k columns"]:
    kept = boxes[boxes[:, 5] >= min_confidence] if boxes.shape[1] > 5 else boxes
    kept = kept.clone()
    kept[:, 1:5] *= scale
    return kept
