"""Regions in which objects are not labeled one by one: they are neither objects nor background.

A row of a label file with class −1 is a region for all classes, a crowd of COCO one for its class. While files are
read, a region is a row with a negative class; the label index keeps them apart from the boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int32, Int64

ANY_CLASS = -1


def crowd_code(class_id: int) -> int:
    """What stands for a region of one class among the classes of rows."""
    return -2 - class_id


def classes_of(code: int, classes: int) -> Sequence[int]:
    """The classes of a row, for formats whose regions have one class: all `classes` for a region without one."""
    if code == ANY_CLASS:
        return range(classes)
    return [code if code >= 0 else crowd_code(code)]


@dataclass(frozen=True)
class IgnoreRegions:
    """The regions of the images of a split.

    `classes` are class ids, or ANY_CLASS. `boxes` and `offsets` are as in `LabelIndex`.
    """

    classes: Int32[np.ndarray, " r"]
    boxes: Float32[np.ndarray, "r 4"]
    offsets: Int64[np.ndarray, " n1"]

    def rows(self, i: int) -> Float32[np.ndarray, "k 5"]:
        """The rows (class or ANY_CLASS, cx, cy, w, h) of image i, with the box as fractions of the image."""
        rows = slice(self.offsets[i], self.offsets[i + 1])
        return np.concatenate([self.classes[rows, None].astype(np.float32), self.boxes[rows]], axis=1)

    def codes(self, i: int) -> Int32[np.ndarray, " k"]:
        """What stands for the regions of image i among the classes of rows: ANY_CLASS, or a `crowd_code`."""
        classes = self.classes[self.offsets[i] : self.offsets[i + 1]]
        return np.where(classes == ANY_CLASS, ANY_CLASS, -2 - classes).astype(np.int32)

    def single_cls(self) -> "IgnoreRegions":
        """The same regions; those of a class are of class 0."""
        return replace(self, classes=np.minimum(self.classes, 0))

    def renumbered(self, table: Int32[np.ndarray, " classes"]) -> "IgnoreRegions":
        """The same regions with the class numbers of a table."""
        of_class = self.classes >= 0
        classes = self.classes.copy()
        classes[of_class] = table[self.classes[of_class]]
        return replace(self, classes=classes)


def separate_regions(
    classes: Int32[np.ndarray, " m"], boxes: Float32[np.ndarray, "m 4"], offsets: Int64[np.ndarray, " n1"]
) -> tuple[Int32[np.ndarray, " b"], Float32[np.ndarray, "b 4"], Int64[np.ndarray, " n1"], IgnoreRegions | None]:
    """Rows of several images as boxes with their offsets, and the regions among them; None where there are none."""
    region = classes < 0
    if not region.any():
        return classes, boxes, offsets, None
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(region, dtype=np.int64)])[offsets]
    codes = classes[region]
    of_class = np.where(codes == ANY_CLASS, ANY_CLASS, -2 - codes).astype(np.int32)
    regions = IgnoreRegions(of_class, boxes[region], before)
    return classes[~region], boxes[~region], offsets - before, regions


def merge_regions(
    parts: Sequence[IgnoreRegions | None], counts: Sequence[int], order: Sequence[int]
) -> IgnoreRegions | None:
    """The regions of several indexes with `counts` images each, for the images in `order` of all of them."""
    if not any(parts):
        return None
    empty = np.zeros((0, 5), np.float32)
    rows = [part.rows(i) if part else empty for part, count in zip(parts, counts, strict=True) for i in range(count)]
    chosen = [rows[i] for i in order]
    table = np.concatenate([empty, *chosen])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(each) for each in chosen], dtype=np.int64)])
    return IgnoreRegions(table[:, 0].astype(np.int32), table[:, 1:], offsets)
