"""Boxes with their names on one picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from yolo_cli.drawing.palette import palette

FONT = cv2.FONT_HERSHEY_SIMPLEX
JPEG_QUALITY = 95  # of drawn pictures: thin lines and letters stay clean

Picture = UInt8[np.ndarray, "h w 3"]
_Frame = tuple[int, int, int, int]  # left, top, right, bottom in pixels; the last two are outside


@dataclass(frozen=True, slots=True)
class Style:
    """How boxes are drawn. `line` is their thickness in pixels, 0 for one that suits the picture.

    Letters and lines suit the picture's shorter side, or `side` pixels where that is less: what was found in tiles of a
    large picture is small, and would vanish under letters of the picture's size.
    """

    line: int = 0
    labels: bool = True
    confidence: bool = True
    side: int = 0
    bgr: bool = False  # order of the picture's channels: OpenCV's instead of RGB


def draw_boxes(
    image: Picture, boxes: Float[Tensor, "n columns"], names: Sequence[str], style: Style | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of the image with boxes and their class names, all inside the picture.

    Rows are (class, x1, y1, x2, y2) or with a confidence as sixth, which is written behind the name. The more confident
    boxes are named first; a name that would cover another is left out.
    """
    style = style or Style()
    image = image.copy()
    height, width = image.shape[:2]
    short = min(height, width, style.side or height)
    line = min(style.line, short) or max(1 if short < 200 else 2, round(short / 320))
    # A larger picture gets larger letters, and from about one megapixel on also thicker ones.
    size = float(np.clip(short / 900, 0.38, 4.0))
    rows = boxes[torch.isfinite(boxes).all(dim=1)].cpu()
    if rows.shape[1] > 5:
        rows = rows[rows[:, 5].argsort(descending=True, stable=True)]
    for row in reversed(rows.tolist()):
        cv2.rectangle(image, *_corners(row, width, height), _color(int(row[0]), style), line, cv2.LINE_AA)
    if style.labels:
        _draw_names(image, rows.tolist(), names, size, style)
    return image


def encode(image: Picture, suffix: str, *, bgr: bool = False) -> bytes:
    """The picture as a file of that suffix (".jpg", ".png", …). Raises ValueError where OpenCV cannot write it."""
    if suffix.lower() in (".jpg", ".jpeg", ".jpe"):
        order = "BGR" if bgr else "RGB"
        packed: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(image), JPEG_QUALITY, colorspace=order, colorsubsampling="420"
        )
        return packed
    try:
        done, data = cv2.imencode(suffix, image if bgr else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise ValueError(f"{suffix} pictures cannot be written: {error.err}") from None
    if not done:
        raise ValueError(f"{suffix} pictures cannot be written")
    return data.tobytes()


def fitted_text(text: str, size: float, width: int, thickness: int = 1) -> str:
    """The text, or as much of its beginning as `width` pixels hold."""
    if cv2.getTextSize(text, FONT, size, thickness)[0][0] <= width:
        return text
    while text and cv2.getTextSize(text + "..", FONT, size, thickness)[0][0] > width:
        text = text[:-1]
    return text + ".." if text else ""


def _draw_names(
    image: Picture, rows: Sequence[Sequence[float]], names: Sequence[str], size: float, style: Style
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
        frame = _free_place(corners, text, size, thickness, (width, height), placed[: len(texts)])
        if frame is not None and text:
            placed[len(texts)] = frame
            texts.append((text, class_id))
    for (text, class_id), (x1, y1, x2, y2) in zip(texts, placed.tolist(), strict=False):
        _write(image, (x1, y1, x2, y2), text, size, thickness, _color(class_id, style))


def _color(class_id: int, style: Style) -> tuple[int, int, int]:
    red, green, blue = palette(class_id)
    return (blue, green, red) if style.bgr else (red, green, blue)


def _corners(row: Sequence[float], width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    x1, y1, x2, y2 = (round(min(max(v, 0), limit - 1)) for v, limit in zip(row[1:5], (width, height) * 2, strict=True))
    return (x1, y1), (x2, y2)


def _free_place(
    corners: tuple[tuple[int, int], tuple[int, int]],
    text: str,
    size: float,
    thickness: int,
    picture: tuple[int, int],
    taken: Int[np.ndarray, "k 4"],
) -> _Frame | None:
    """Where a box's name fits without covering another: above the box, inside it at its top or bottom, below it.

    None where it does not, or where the picture is lower than the name.
    """
    (left, top), (right, bottom) = corners
    (text_w, text_h), below = cv2.getTextSize(text, FONT, size, thickness)
    w, h = min(text_w + 4, picture[0]), text_h + below + 2
    if h > picture[1]:
        return None
    for y in (top - h, top, bottom - h, bottom + 1):
        for x in (left, right - w):
            x1, y1 = max(0, min(x, picture[0] - w)), max(0, min(y, picture[1] - h))
            x2, y2 = x1 + w, y1 + h
            across = (x1 < taken[:, 2]) & (taken[:, 0] < x2) & (y1 < taken[:, 3]) & (taken[:, 1] < y2)
            if not across.any():
                return x1, y1, x2, y2
    return None


def _write(image: Picture, frame: _Frame, text: str, size: float, thickness: int, color: tuple[int, int, int]) -> None:
    """Text on a ground of the class's color, in whichever of black and white stands out from it."""
    x1, y1, x2, y2 = frame
    _, below = cv2.getTextSize(text, FONT, size, thickness)
    cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), color, -1)
    first, green, last = color
    # Red and blue weigh differently; which comes first does not matter enough to be asked for.
    bright = 0.2 * first + 0.6 * green + 0.2 * last > 130
    ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(image, text, (x1 + 2, y2 - below - 1), FONT, size, ink, thickness, cv2.LINE_AA)
