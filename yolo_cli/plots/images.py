"""Boxes drawn on images, and mosaics of such images."""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from yolo_cli.plots.palette import palette

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GAP = 4  # pixels between images
_PAPER = 245

_Frame = tuple[int, int, int, int]  # left, top, right, bottom in pixels; the last two are outside


def image_grid(
    images: UInt8[Tensor, "b 3 h w"],
    boxes: Sequence[Float[Tensor, "_ columns"]],
    names: Sequence[str],
    out: Path,
    *,
    captions: Sequence[str] = (),
    most_images: int = 16,
    width: int = 1920,
    min_confidence: float = 0.25,
) -> None:
    """Write a mosaic of up to `most_images` RGB images with their boxes, at most `width` pixels wide.

    Rows of `boxes` are (class, x1, y1, x2, y2) or (class, x1, y1, x2, y2, confidence) in pixels of the images; boxes
    below `min_confidence` are left out. Captions, such as file names, stand below the images. Raises `OSError` where
    the file cannot be written.
    """
    shown = min(len(images), most_images)
    columns = max(1, math.ceil(math.sqrt(shown)))
    rows = max(1, math.ceil(shown / columns))
    height, image_width = images.shape[2:] if shown else (240, 320)
    scale = min(1.0, ((width - _GAP) / columns - _GAP) / image_width)
    cell_w, cell_h = max(1, int(image_width * scale)), max(1, int(height * scale))
    strip = 22 if captions else 0
    step_x, step_y = cell_w + _GAP, cell_h + strip + _GAP
    sheet = np.full((rows * step_y + _GAP, columns * step_x + _GAP, 3), _PAPER, dtype=np.uint8)
    for i in range(shown):
        # Boxes are drawn after scaling, so that lines and letters keep their size.
        picture = images[i].permute(1, 2, 0).cpu().numpy()
        cell = cv2.resize(picture, (cell_w, cell_h), interpolation=cv2.INTER_AREA)
        drawn = draw_boxes(np.ascontiguousarray(cell), _sure(boxes[i], min_confidence, scale), names)
        x, y = _GAP + i % columns * step_x, _GAP + i // columns * step_y
        sheet[y : y + cell_h, x : x + cell_w] = drawn
        if i < len(captions):
            text = _fitted(captions[i], 0.45, cell_w - 4)
            cv2.putText(sheet, text, (x + 2, y + cell_h + 15), _FONT, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    if not shown:
        cv2.putText(sheet, "no images", (20, 60), _FONT, 0.8, (120, 120, 120), 1, cv2.LINE_AA)
    options = [cv2.IMWRITE_JPEG_QUALITY, 90] if out.suffix.lower() in (".jpg", ".jpeg") else []
    _, data = cv2.imencode(out.suffix, sheet[..., ::-1], options)
    out.write_bytes(data.tobytes())


def draw_boxes(
    image: UInt8[np.ndarray, "h w 3"], boxes: Float[Tensor, "n columns"], names: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of the RGB image with boxes and their class names, all inside the picture.

    Rows are (class, x1, y1, x2, y2) or with a confidence as sixth, which is written behind the name. The more confident
    boxes are named first; a name that would cover another is left out.
    """
    image = image.copy()
    height, width = image.shape[:2]
    short = min(height, width)
    line = max(1 if short < 200 else 2, round(short / 320))
    size = float(np.clip(short / 900, 0.38, 1.0))
    rows = boxes[torch.isfinite(boxes).all(dim=1)].cpu()
    if rows.shape[1] > 5:
        rows = rows[rows[:, 5].argsort(descending=True, stable=True)]
    placed: list[tuple[_Frame, str, int]] = []
    for row in reversed(rows.tolist()):
        cv2.rectangle(image, *_corners(row, width, height), palette(int(row[0])), line, cv2.LINE_AA)
    for row in rows.tolist():
        class_id = int(row[0])
        name = names[class_id] if class_id < len(names) else str(class_id)
        text = _fitted(f"{name} {row[5]:.2f}" if len(row) > 5 else name, size, width - 4)
        frame = _free_place(
            _corners(row, width, height), text, size, (width, height), [other for other, _, _ in placed]
        )
        if frame is not None and text:
            placed.append((frame, text, class_id))
    for frame, text, class_id in placed:
        _write(image, frame, text, size, palette(class_id))
    return image


def _corners(row: Sequence[float], width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    x1, y1, x2, y2 = (round(min(max(v, 0), limit - 1)) for v, limit in zip(row[1:5], (width, height) * 2, strict=True))
    return (x1, y1), (x2, y2)


def _free_place(
    corners: tuple[tuple[int, int], tuple[int, int]],
    text: str,
    size: float,
    picture: tuple[int, int],
    taken: Sequence[_Frame],
) -> _Frame | None:
    """Where a box's name fits without covering another: above the box, inside it at its top or bottom, below it."""
    (left, top), (right, bottom) = corners
    (text_w, text_h), below = cv2.getTextSize(text, _FONT, size, 1)
    w, h = text_w + 4, text_h + below + 2
    for y in (top - h, top, bottom - h, bottom + 1):
        for x in (left, right - w):
            x1, y1 = max(0, min(x, picture[0] - w)), max(0, min(y, picture[1] - h))
            frame = (x1, y1, x1 + w, y1 + h)
            if not any(x1 < c and a < x1 + w and y1 < d and b < y1 + h for a, b, c, d in taken):
                return frame
    return None


def _write(
    image: UInt8[np.ndarray, "h w 3"], frame: _Frame, text: str, size: float, colour: tuple[int, int, int]
) -> None:
    """Text on a ground of the class's colour, in whichever of black and white stands out from it."""
    x1, y1, x2, y2 = frame
    _, below = cv2.getTextSize(text, _FONT, size, 1)
    cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), colour, -1)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(image, text, (x1 + 2, y2 - below - 1), _FONT, size, ink, 1, cv2.LINE_AA)


def _fitted(text: str, size: float, width: int) -> str:
    """The text, or as much of its beginning as `width` pixels hold."""
    if cv2.getTextSize(text, _FONT, size, 1)[0][0] <= width:
        return text
    while text and cv2.getTextSize(text + "..", _FONT, size, 1)[0][0] > width:
        text = text[:-1]
    return text + ".." if text else ""


def _sure(boxes: Float[Tensor, "n columns"], min_confidence: float, scale: float) -> Float[Tensor, "k columns"]:
    kept = boxes[boxes[:, 5] >= min_confidence] if boxes.shape[1] > 5 else boxes
    kept = kept.clone()
    kept[:, 1:5] *= scale
    return kept
