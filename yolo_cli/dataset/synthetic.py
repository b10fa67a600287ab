"""The built-in dataset `shapes`: colored circles, squares and triangles on noise, the same on every machine."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

VERSION = 1  # part of the cache folder's name; raise it with any change of the pixels
NAMES = ("circle", "square", "triangle")
TRAIN_IMAGES, VAL_IMAGES = 320, 96

_SEED = 20240229
_SIDES = ((160, 160), (160, 128), (128, 160), (160, 192), (192, 160))  # height, width
_BACKGROUND_EVERY = 20  # one in this many images has no object
_MAX_OBJECTS = 5
_MAX_OVERLAP = 0.15  # of two shapes' boxes, as a fraction of the smaller


def generate(folder: Path) -> None:
    """Draw the dataset into `folder`: `images/{train,val}/*.png` and `labels/{train,val}/*.txt`.

    Raises OSError where it cannot be written.
    """
    for number, (split, count) in enumerate((("train", TRAIN_IMAGES), ("val", VAL_IMAGES))):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for i in range(count):
            image, rows = draw(number, i)
            packed = cv2.imencode(".png", image[:, :, ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 1))[1]
            (images / f"{i:04d}.png").write_bytes(packed.tobytes())
            if len(rows):
                text = "".join("{:.0f} {:.6f} {:.6f} {:.6f} {:.6f}\n".format(*row) for row in rows)
                (labels / f"{i:04d}.txt").write_text(text, encoding="ascii")


def draw(split: int, i: int) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "k 5"]]:
    """Draw image i of split 0 (train) or 1 (val): RGB, and rows (class, cx, cy, w, h as fractions).

    The result is the same on every machine: only integers are drawn from the generator, and the Philox stream is fixed
    by its definition (Salmon et al. 2011).
    """
    random = np.random.Generator(np.random.Philox(key=(_SEED << 32) + (split << 24) + i))
    height, width = _SIDES[int(random.integers(len(_SIDES)))]
    image = _background(random, height, width)
    boxes: list[tuple[int, int, int]] = []
    rows: list[tuple[float, ...]] = []
    target = 0 if i % _BACKGROUND_EVERY == _BACKGROUND_EVERY - 1 else int(random.integers(1, _MAX_OBJECTS + 1))
    for _ in range(target * 4):
        if len(rows) == target:
            break
        # The product of two draws makes small shapes about as frequent as large ones.
        side = 18 + int(random.integers(0, 73)) * int(random.integers(30, 101)) // 100
        left, top = int(random.integers(0, width - side)), int(random.integers(0, height - side))
        if any(_overlap((left, top, side), box) > _MAX_OVERLAP for box in boxes):
            continue
        kind = int(random.integers(len(NAMES)))
        mask = _mask(kind, side, bool(random.integers(2)))
        patch = image[top : top + side, left : left + side]
        color = _distinct_color(random, patch.reshape(-1, 3).mean(0))
        noise = random.integers(-12, 13, (side, side, 1))
        patch[mask] = np.clip(color + noise, 0, 255).astype(np.uint8)[mask]
        boxes.append((left, top, side))
        ys, xs = np.nonzero(mask)
        x1, y1, x2, y2 = left + xs.min(), top + ys.min(), left + xs.max() + 1, top + ys.max() + 1
        rows.append((kind, (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height))
    return image, np.array(rows, np.float64).reshape(-1, 5)


def _background(random: np.random.Generator, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """A gradient between four corner colors, with noise. It has no edges, which could look like squares."""
    corners = random.integers(40, 216, 3) + random.integers(-40, 41, (2, 2, 3))
    y, x = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
    top = corners[0, 0] * (width - x) + corners[0, 1] * x
    bottom = corners[1, 0] * (width - x) + corners[1, 1] * x
    smooth = (top * (height - y) + bottom * y) // (height * width)
    noisy = smooth + random.integers(-14, 15, (height, width, 1))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _distinct_color(random: np.random.Generator, background: Float[np.ndarray, " 3"]) -> np.ndarray:
    """A random color that differs clearly from the background's."""
    while True:
        color = random.integers(0, 256, 3)
        if np.abs(color - np.round(background)).sum() > 180:
            return color


def _overlap(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    """The overlap of two squares (left, top, side) as a fraction of the smaller one."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[2], b[1] + b[2]) - max(a[1], b[1])
    return max(w, 0) * max(h, 0) / min(a[2], b[2]) ** 2


def _mask(kind: int, side: int, flipped: bool) -> Bool[np.ndarray, "s s"]:
    """The mask of a circle, square or triangle that fills its box; coordinates are doubled to stay integers."""
    y, x = np.mgrid[1 : 2 * side : 2, 1 : 2 * side : 2] - side
    if kind == 0:
        return x * x + y * y <= side * side
    if kind == 1:
        return np.ones((side, side), bool)
    rows = -y if flipped else y
    return 2 * np.abs(x) <= side + rows
