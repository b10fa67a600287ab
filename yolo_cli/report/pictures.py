"""Thumbnails of images and of parts of them, with boxes to draw on top."""

import base64
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8

from yolo_cli.errors import UserError

# Tried in turn until all pictures fit: a factor of their size, and the JPEG quality.
_LEVELS = ((1.0, 75), (0.8, 65), (0.6, 55), (0.45, 45))
_MAX_LABELS = 12  # per picture; more would cover the image
_LETTER, _LINE = 7.0, 14  # mean width of a letter and height of a line of labels, in pixels
_MAX_ENLARGEMENT = 3.0  # of a small part of an image


@runtime_checkable
class ImageSource(Protocol):
    """Where pictures get their pixels from."""

    def size_of(self, i: int) -> tuple[int, int]:
        """(height, width) of image i."""
        ...

    def image(self, i: int, min_size: tuple[int, int] | None = None) -> np.ndarray:
        """RGB pixels of image i, not below `min_size` (height, width). Raises UserError."""
        ...


@dataclass(frozen=True, slots=True)
class Overlay:
    """A box to draw, in pixels of the image file."""

    x: float
    y: float
    width: float
    height: float
    style: str  # CSS class
    label: str = ""


@dataclass(slots=True)
class Picture:
    """A region of an image, at most `side` pixels wide and high when shown.

    `width` and `height` are those of the picture; `uri` is empty where the file could not be read or had no room.
    """

    image: int  # of its source
    region: tuple[float, float, float, float]  # x, y, width, height in pixels of the image file
    side: int
    alt: str
    overlays: Sequence[Overlay] = ()
    uri: str = ""
    problem: str = ""
    pixels: np.ndarray | None = field(default=None, repr=False)

    @property
    def scale(self) -> float:
        """Pixels of the picture per pixel of the image file."""
        return min(self.side / max(self.region[2:]), _MAX_ENLARGEMENT)

    @property
    def width(self) -> int:
        return max(round(self.region[2] * self.scale), 1)

    @property
    def height(self) -> int:
        return max(round(self.region[3] * self.scale), 1)

    def outlines(self) -> dict[str, str]:
        """By style, the path of all its boxes in pixels of the picture."""
        paths: dict[str, str] = {}
        for box in self.overlays:
            x, y, width, height = self._placed(box)
            paths[box.style] = paths.get(box.style, "") + f"M{x} {y}h{width}v{height}h{-width}z"
        return paths

    def labels(self) -> list[tuple[str, int, int, str]]:
        """Style, place (x, baseline) and text of the labels; one that would cover another one is left out."""
        rows: list[tuple[str, int, int, str]] = []
        taken: list[tuple[float, int, float]] = []  # left, baseline, right
        for box in self.overlays:
            if not box.label or len(rows) == _MAX_LABELS:
                continue
            x, y, _, _ = self._placed(box)
            length = _LETTER * len(box.label)
            left, baseline = max(min(x, round(self.width - length)), 2), y - 3 if y > _LINE else y + _LINE - 2
            if all(abs(baseline - y) >= _LINE or left + length <= x0 or left >= x1 for x0, y, x1 in taken):
                rows.append((box.style, left, baseline, box.label))
                taken.append((left, baseline, left + length))
        return rows

    def _placed(self, box: Overlay) -> tuple[int, int, int, int]:
        """A box in whole pixels of the picture, and inside of it so that its line is visible."""
        left, top = (box.x - self.region[0]) * self.scale, (box.y - self.region[1]) * self.scale
        right, bottom = left + box.width * self.scale, top + box.height * self.scale
        x0, x1 = (min(max(round(v), 1), max(self.width - 1, 1)) for v in (left, right))
        y0, y1 = (min(max(round(v), 1), max(self.height - 1, 1)) for v in (top, bottom))
        return x0, y0, x1 - x0, y1 - y0


def around(boxes: Sequence[Sequence[float]], size: Sequence[int]) -> tuple[float, float, float, float]:
    """A region (x, y, width, height) of an image of `size` (height, width) with some of what is around the boxes."""
    rows = np.asarray(boxes, dtype=np.float64)
    low, high = rows[:, :2].min(axis=0), (rows[:, :2] + rows[:, 2:]).max(axis=0)
    margin = np.maximum((high - low).max() * 0.3, 12)
    limit = np.array([size[1], size[0]], dtype=np.float64)
    low, high = np.clip(np.floor(low - margin), 0, limit - 1), np.clip(np.ceil(high + margin), 1, limit)
    extent = np.maximum(high - low, 1)
    return float(low[0]), float(low[1]), float(extent[0]), float(extent[1])


def read_pixels(pictures: Sequence[Picture], source: ImageSource) -> list[str]:
    """Read the images of all pictures, each once; returns one line for each that cannot be read."""
    by_image: dict[int, list[Picture]] = {}
    for picture in pictures:
        by_image.setdefault(picture.image, []).append(picture)

    def read(item: tuple[int, list[Picture]]) -> str:
        image, wanted = item
        size = source.size_of(image)
        scale = max(picture.scale for picture in wanted)
        height, width = (math.ceil(side * scale) for side in size)
        try:
            pixels = source.image(image, (height, width))
        except UserError as error:
            for picture in wanted:
                picture.problem = error.what
            return str(error)
        for picture in wanted:
            picture.pixels = _cut(pixels, picture, pixels.shape[1] / size[1])
        return ""

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return [problem for problem in pool.map(read, by_image.items()) if problem]


def embed(pictures: Sequence[Picture], budget: int) -> int:
    """Encode pictures as data: URIs of at most `budget` characters in all; returns how many had no room.

    All become smaller before the last ones are left out.
    """
    for factor, quality in _LEVELS:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            uris = list(pool.map(partial(_uri, factor=factor, quality=quality), pictures))
        if sum(map(len, uris)) <= budget:
            break
    left, dropped = budget, 0
    for picture, uri in zip(pictures, uris, strict=True):
        if len(uri) <= left:
            picture.uri, left = uri, left - len(uri)
        else:
            picture.problem, dropped = "left out to keep this file small", dropped + 1
        picture.pixels = None
    return dropped


def boxes_of(rows: Iterable[tuple[Sequence[float], str, str]]) -> list[Overlay]:
    """Overlays of (box, style, label) rows; boxes are left, top, width, height."""
    return [Overlay(box[0], box[1], box[2], box[3], style, label) for box, style, label in rows]


def _cut(pixels: UInt8[np.ndarray, "h w 3"], picture: Picture, gain: float) -> UInt8[np.ndarray, "ph pw 3"]:
    """The picture's region; `gain` is the number of these pixels per pixel of the image file."""
    x, y, width, height = (round(v * gain) for v in picture.region)
    part = pixels[y : y + max(height, 1), x : x + max(width, 1)]
    size = (picture.width, picture.height)
    smaller = size[0] < part.shape[1]
    return cv2.resize(part, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def _uri(picture: Picture, *, factor: float, quality: int) -> str:
    pixels = picture.pixels
    if pixels is None:
        return ""
    if factor < 1:
        height, width = (max(round(side * factor), 1) for side in pixels.shape[:2])
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, colorspace="RGB", colorsubsampling="420")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
