"""Whether labels follow the EXIF orientation of their images."""

import numpy as np
from jaxtyping import Float, Float32, UInt8

from yolo_cli.dataset.image_header import SWAPS_AXES

_RING = 0.12  # width of the compared strips, as a fraction of the box


def as_stored_to_displayed(boxes: Float32[np.ndarray, "m 4"], orientation: int) -> Float32[np.ndarray, "m 4"]:
    """Boxes (cx, cy, w, h as fractions) of the stored pixels, moved to the image as its orientation displays it."""
    x, y, w, h = boxes.T
    if orientation in SWAPS_AXES:
        x, y, w, h = y, x, h, w
    if orientation in (3, 4, 7, 8):
        y = 1 - y
    if orientation in (2, 3, 6, 7):
        x = 1 - x
    return np.stack([x, y, w, h], axis=1)


def ring_contrasts(
    image: UInt8[np.ndarray, "h w 3"], boxes: Float32[np.ndarray, "m 4"], orientation: int
) -> tuple[float, float]:
    """Contrast across the sides of the boxes: where they are, and where they are if labels ignore the orientation.

    A box around an object has different colors on both sides of its border; a misplaced one has them less. nan
    without boxes.
    """
    if not len(boxes):
        return np.nan, np.nan
    sums = np.zeros((image.shape[0] + 1, image.shape[1] + 1, 3))
    sums[1:, 1:] = image.astype(np.float64).cumsum(axis=0).cumsum(axis=1)
    return _mean_contrast(sums, boxes), _mean_contrast(sums, as_stored_to_displayed(boxes, orientation))


def _mean_contrast(sums: Float[np.ndarray, "h w 3"], boxes: Float32[np.ndarray, "m 4"]) -> float:
    values = [value for box in boxes if not np.isnan(value := _contrast(sums, box))]
    return float(np.mean(values)) if values else np.nan


def _contrast(sums: Float[np.ndarray, "h w 3"], box: Float32[np.ndarray, " 4"]) -> float:
    """Mean difference of the colors inside and outside of a side, over the sides that have an outside."""
    height, width = sums.shape[0] - 1, sums.shape[1] - 1
    cx, cy, w, h = (float(v) for v in box * np.array([width, height, width, height]))
    dx, dy = max(_RING * w, 1.5), max(_RING * h, 1.5)
    left, right, top, bottom = cx - w / 2, cx + w / 2, cy - h / 2, cy + h / 2
    sides = (
        ((left, top, left + dx, bottom), (left - dx, top, left, bottom)),
        ((right - dx, top, right, bottom), (right, top, right + dx, bottom)),
        ((left, top, right, top + dy), (left, top - dy, right, top)),
        ((left, bottom - dy, right, bottom), (left, bottom, right, bottom + dy)),
    )
    means = [(_mean(sums, inside), _mean(sums, outside)) for inside, outside in sides]
    differences = [float(np.abs(a - b).mean()) for a, b in means if a is not None and b is not None]
    return float(np.mean(differences)) if differences else np.nan


def _mean(sums: Float[np.ndarray, "h w 3"], area: tuple[float, float, float, float]) -> Float[np.ndarray, " 3"] | None:
    height, width = sums.shape[0] - 1, sums.shape[1] - 1
    x0, x1 = (min(max(round(v), 0), width) for v in (area[0], area[2]))
    y0, y1 = (min(max(round(v), 0), height) for v in (area[1], area[3]))
    if x1 <= x0 or y1 <= y0:
        return None
    return (sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]) / ((x1 - x0) * (y1 - y0))
