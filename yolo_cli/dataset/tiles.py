"""Tiles of large images for training: which part of an image a sample shows, and which boxes are in it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from yolo_cli.dataset.ignore_regions import ANY_CLASS

WHOLE = 0.2  # share of the samples that show the whole image, as detection in tiles also looks at it
BACKGROUND = 0.1  # share of the samples whose tile lies anywhere; the others show at least one box
MIN_VISIBLE = 0.25  # fraction of a box's area: the part of a box of which a tile shows less is ignored


@dataclass(frozen=True, slots=True)
class Window:
    """A part of an image, in pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left


def choose_window(
    random: np.random.Generator, size: tuple[int, int], boxes_cxcywhn: Float32[np.ndarray, "n 4"], side: int
) -> Window | None:
    """A tile of at most `side` pixels of an image of `size` (height, width); None for the whole image.

    Images that fit into a tile are shown whole. The center of a random box is in the tile, but for the share BACKGROUND
    and for images without boxes.
    """
    height, width = size
    if height <= side and width <= side:
        return None
    kind = random.random()
    if kind < WHOLE:
        return None
    tile = np.minimum(side, (width, height))
    last = np.array([width, height]) - tile  # of left and top
    low, high = np.zeros(2, np.int64), last
    if kind >= WHOLE + BACKGROUND and len(boxes_cxcywhn):
        center = boxes_cxcywhn[random.integers(len(boxes_cxcywhn)), :2].astype(np.float64) * (width, height)
        low = np.clip(np.ceil(center - tile), 0, last).astype(np.int64)
        high = np.clip(np.floor(center), low, last).astype(np.int64)
    left, top = (int(v) for v in random.integers(low, high, endpoint=True))
    return Window(left, top, left + int(tile[0]), top + int(tile[1]))


def rows_in_window(
    rows: Float32[np.ndarray, "n 5"], window: Window, size: tuple[int, int]
) -> Float32[np.ndarray, "m 5"]:
    """The labels (class, cx, cy, w, h as fractions) of an image of `size`, as fractions of the window and cut by it.

    What is left of a box that is mostly outside is neither an object nor background: a row of class −1.
    """
    scale = np.array([size[1], size[0]], np.float64)
    offset, extent = np.array([window.left, window.top]), np.array(window.size[::-1])
    center, half = rows[:, 1:3] * scale - offset, rows[:, 3:5] * scale / 2
    low, high = center - half, center + half
    cut_low, cut_high = np.clip(low, 0, extent), np.clip(high, 0, extent)
    visible = np.prod(cut_high - cut_low, axis=1)
    whole = visible >= MIN_VISIBLE * np.maximum(np.prod(high - low, axis=1), 1e-9)
    keep = whole | (visible > 0)
    boxes = np.concatenate([(cut_low + cut_high) / 2 / extent, (cut_high - cut_low) / extent], axis=1)
    classes = np.where(whole, rows[:, 0], ANY_CLASS)
    return np.concatenate([classes[keep, None], boxes[keep]], axis=1).astype(np.float32)
