"""Boxes with labels on an image."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from yolo_cli.drawing.palette import class_color

FONT = cv2.FONT_HERSHEY_SIMPLEX
_HATCH_COLOR, _HATCH_STEP = (150, 150, 150), 10
JPEG_QUALITY = 95  # of drawn images, for thin lines and letters

Image = UInt8[np.ndarray, "h w 3"]
_Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels, right and bottom exclusive


@dataclass(frozen=True, slots=True)
class Style:
    """How boxes are drawn.

    The size of text and lines depends on the image's shorter side, or on `side` if that is smaller: objects detected
    in tiles of a large image are small, and text for the whole image would cover them.
    """

    line: int = 0  # width in pixels; 0 selects it by the image size
    labels: bool = True
    confidence: bool = True  # whether labels have the confidence
    side: int = 0  # in pixels; 0 for the image's own
    bgr: bool = False  # whether the image is BGR instead of RGB


def draw_boxes(
    image: Image, boxes: Float[Tensor, "n columns"], names: Sequence[str], style: Style | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of the image with boxes and labels.

    Args:
        image: RGB, or BGR with `style.bgr`.
        boxes: class, x1, y1, x2, y2 in pixels, and optionally confidence. A negative class is a region to be ignored,
            which is hatched.
        names: class names.
        style: sizes and what to draw.

    Labels are placed inside the image, those of the most confident boxes first. A label that would cover another one
    is left out. Boxes that are not finite are left out.
    """
    style = style or Style()
    image = image.copy()
    height, width = image.shape[:2]
    short = min(height, width, style.side or height)
    line = min(style.line, short) or max(1 if short < 200 else 2, round(short / 320))
    # Text is larger in a larger image, and thicker from about one megapixel.
    size = float(np.clip(short / 900, 0.38, 4.0))
    rows = boxes[torch.isfinite(boxes).all(dim=1)].cpu()
    if rows.shape[1] > 5:
        rows = rows[rows[:, 5].argsort(descending=True, stable=True)]
    for row in rows[rows[:, 0] < 0].tolist():
        _hatch(image, _corners(row, width, height), max(1, line // 2))
    rows = rows[rows[:, 0] >= 0]
    for row in reversed(rows.tolist()):
        cv2.rectangle(image, *_corners(row, width, height), _color(int(row[0]), style), line, cv2.LINE_AA)
    if style.labels:
        _draw_labels(image, rows.tolist(), names, size, style)
    return image


def encode(image: Image, suffix: str, *, bgr: bool = False) -> bytes:
    """Encode an image by file suffix (".jpg", ".png", …). Raises ValueError for formats that OpenCV cannot write."""
    if suffix.lower() in (".jpg", ".jpeg", ".jpe"):
        order = "BGR" if bgr else "RGB"
        return simplejpeg.encode_jpeg(
            np.ascontiguousarray(image), JPEG_QUALITY, colorspace=order, colorsubsampling="420"
        )
    try:
        done, data = cv2.imencode(suffix, image if bgr else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise ValueError(f"{suffix} images cannot be written: {error.err}") from None
    if not done:
        raise ValueError(f"{suffix} images cannot be written")
    return data.tobytes()


def fitted_text(text: str, size: float, width: int, thickness: int = 1) -> str:
    """The text, shortened to `width` pixels."""
    if cv2.getTextSize(text, FONT, size, thickness)[0][0] <= width:
        return text
    while text and cv2.getTextSize(text + "..", FONT, size, thickness)[0][0] > width:
        text = text[:-1]
    return text + ".." if text else ""


def _hatch(image: Image, corners: tuple[tuple[int, int], tuple[int, int]], line: int) -> None:
    """Diagonal gray lines in a rectangle, in place."""
    (left, top), (right, bottom) = corners
    part = image[top : bottom + 1, left : right + 1]
    height, width = part.shape[:2]
    for start in range(-height, width, _HATCH_STEP * line):
        cv2.line(part, (start, height), (start + height, 0), _HATCH_COLOR, line, cv2.LINE_AA)
    cv2.rectangle(image, (left, top), (right, bottom), _HATCH_COLOR, line, cv2.LINE_AA)


def _draw_labels(
    image: Image, rows: Sequence[Sequence[float]], names: Sequence[str], size: float, style: Style
) -> None:
    height, width = image.shape[:2]
    thickness = max(1, round(size * 1.4))
    placed = np.zeros((len(rows), 4), np.int64)
    texts: list[tuple[str, int]] = []
    for row in rows:
        class_id = int(row[0])
        name = names[class_id] if class_id < len(names) else str(class_id)
        with_number = len(row) > 5 and style.confidence
        text = fitted_text(f"{name} {row[5]:.2f}" if with_number else name, size, width - 4, thickness)
        corners = _corners(row, width, height)
        place = _label_place(corners, text, size, thickness, (width, height), placed[: len(texts)])
        if place is not None and text:
            placed[len(texts)] = place
            texts.append((text, class_id))
    for (text, class_id), (x1, y1, x2, y2) in zip(texts, placed.tolist(), strict=False):
        _draw_label(image, (x1, y1, x2, y2), text, size, thickness, _color(class_id, style))


def _color(class_id: int, style: Style) -> tuple[int, int, int]:
    red, green, blue = class_color(class_id)
    return (blue, green, red) if style.bgr else (red, green, blue)


def _corners(row: Sequence[float], width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    x1, y1, x2, y2 = (round(min(max(v, 0), limit - 1)) for v, limit in zip(row[1:5], (width, height) * 2, strict=True))
    return (x1, y1), (x2, y2)


def _label_place(
    corners: tuple[tuple[int, int], tuple[int, int]],
    text: str,
    size: float,
    thickness: int,
    image_size: tuple[int, int],
    taken: Int[np.ndarray, "k 4"],
) -> _Rectangle | None:
    """A place for a box's label that covers no other: above the box, inside at its top or bottom, or below it.

    None if there is none, or if the label is higher than the image.
    """
    (left, top), (right, bottom) = corners
    (text_w, text_h), below = cv2.getTextSize(text, FONT, size, thickness)
    w, h = min(text_w + 4, image_size[0]), text_h + below + 2
    if h > image_size[1]:
        return None
    for y in (top - h, top, bottom - h, bottom + 1):
        for x in (left, right - w):
            x1, y1 = max(0, min(x, image_size[0] - w)), max(0, min(y, image_size[1] - h))
            x2, y2 = x1 + w, y1 + h
            across = (x1 < taken[:, 2]) & (taken[:, 0] < x2) & (y1 < taken[:, 3]) & (taken[:, 1] < y2)
            if not across.any():
                return x1, y1, x2, y2
    return None


def _draw_label(
    image: Image, place: _Rectangle, text: str, size: float, thickness: int, color: tuple[int, int, int]
) -> None:
    """Draw black or white text on the class color."""
    x1, y1, x2, y2 = place
    _, below = cv2.getTextSize(text, FONT, size, thickness)
    cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), color, -1)
    first, green, last = color
    # Red and blue have the same weight here, so that the order of the channels does not matter.
    bright = 0.2 * first + 0.6 * green + 0.2 * last > 130
    text_color = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(image, text, (x1 + 2, y2 - below - 1), FONT, size, text_color, thickness, cv2.LINE_AA)
