"""What a reader of a dataset format returns: images with their boxes in pixels."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

# Notes: what is read in another way than it is written. A key is printed with its number.
ENCLOSED = "polygons and turned boxes, read as their enclosing boxes"
WITHOUT_BOX = "points and lines, which have no box and are left out"
CROWDS = "crowd regions, in which predictions are ignored"
DIFFICULT = "difficult objects, in which predictions are ignored"
NOT_LISTED = "images without an annotation, left out"

Box = tuple[float, float, float, float]  # cx, cy, w, h in pixels
NO_BOX: Box = (math.nan, math.nan, math.nan, math.nan)  # reported as a box that is not made of numbers
Row = tuple[int, int, float, float, float, float]  # number in its file, class, box


@dataclass(slots=True)
class AnnotatedImage:
    """An image file, the annotation file that describes it, and its rows.

    `size` is the (height, width) that the boxes refer to, None where the annotation does not state it. `difficult`
    are the numbers of the rows that VOC calls so.
    """

    file: str
    source: str
    size: tuple[int, int] | None
    rows: list[Row] = field(default_factory=list)
    difficult: tuple[int, ...] = ()


@dataclass(slots=True)
class Annotations:
    """The content of annotation files. Classes are positions in `names`.

    `declared`: the file lists its classes, and `names` are in that order; otherwise they are those that occur.
    A problem is (file, number of the row or 0, what).
    """

    names: list[str] = field(default_factory=list)
    declared: bool = False
    images: list[AnnotatedImage] = field(default_factory=list)
    problems: list[tuple[str, int, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    _numbers: dict[str, int] = field(default_factory=dict)

    def class_of(self, name: str) -> int:
        """The number of a class, which becomes the last one if it is new."""
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number


def number_of(value: object) -> float:
    """A coordinate from JSON or XML; nan for anything that is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    if isinstance(value, str) and "_" in value:  # Python reads 1_0 as ten
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def size_of(height: object, width: object) -> tuple[int, int] | None:
    """The (height, width) that a file states, None for anything that is no size."""
    h, w = number_of(height), number_of(width)
    return (int(h), int(w)) if 0 < h < 2**31 and 0 < w < 2**31 else None


def box_of_edges(x1: float, y1: float, x2: float, y2: float) -> Box:
    """The box between the left, top, right and bottom edge. Its sides are negative if they are exchanged."""
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def enclosing_box(xs: Iterable[float], ys: Iterable[float]) -> Box:
    """The smallest box around points; `NO_BOX` where there are none, or one is no number."""
    x, y = list(xs), list(ys)
    if not x or not y or not all(map(math.isfinite, (*x, *y))):
        return NO_BOX
    return box_of_edges(min(x), min(y), max(x), max(y))


def turned_box(box: Box, degrees: float) -> Box:
    """The smallest box around one that is turned about its center."""
    cx, cy, w, h = box
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    return cx, cy, w * cos + h * sin, w * sin + h * cos
