"""What a writer of a dataset format takes: images with their boxes, and pixel values that are short and exact."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32

_DIGITS = (0, 1, 2, 3, 4, 6, 8)

Values = Float64[np.ndarray, "k 4"]


@dataclass(frozen=True)
class Record:
    """An image of a split: its path below the split's folder of images, (height, width), classes and boxes.

    Boxes are cx, cy, w, h as fractions of the image, as the label index has them. A negative class is a region to be
    ignored: −1 for all classes, or a `crowd_code`.
    """

    name: str
    size: tuple[int, int]
    classes: Int32[np.ndarray, " k"]
    boxes: Float32[np.ndarray, "k 4"]


def pixel_values(
    record: Record, to_pixels: Callable[[Values], Values], to_centers: Callable[[Values], Values]
) -> list[list[int | float]]:
    """The boxes of a record in pixels, with as few decimals as give the same float32 fractions when they are read.

    `to_pixels` turns cx, cy, w, h into the format's four values, `to_centers` does the reverse as the reader does.
    """
    height, width = record.size
    extent = np.array([width, height, width, height], np.float64)
    exact = to_pixels(record.boxes.astype(np.float64) * extent)
    result = exact.copy()
    open_rows = np.ones(len(exact), bool)
    for digits in _DIGITS:
        rounded = np.round(exact, digits)
        same = (np.clip(to_centers(rounded) / extent, 0.0, 1.0).astype(np.float32) == record.boxes).all(1)
        chosen = open_rows & same
        result[chosen] = rounded[chosen]
        open_rows &= ~same
    return [[int(value) if value == int(value) else value for value in row] for row in result.tolist()]
