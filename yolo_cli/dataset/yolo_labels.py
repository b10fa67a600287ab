"""Parses one YOLO label file: text rows become classes and boxes, and every bad row is reported."""

import math
from array import array

from yolo_cli.dataset.ignore_regions import ANY_CLASS

TOLERANCE = 1e-4  # coordinates may exceed [0, 1] by this much (rounding by the tool that wrote them); they are clipped
MAX_BYTES = 64 * 2**20  # a larger file is not a label file
MAX_PROBLEMS = 1000  # listed one by one per file

Row = tuple[float, float, float, float, float]


def parse_labels(
    text: bytes, nc: int, classes: "array[int]", boxes: "array[float]", problems: list[tuple[int, str]]
) -> tuple[int, int]:
    """Append a label file's valid rows to `classes` and `boxes` (cx, cy, w, h as fractions).

    Returns their number, and how many of them are polygons.

    A row is `class cx cy w h`, or a polygon `class x1 y1 x2 y2 x3 y3 …`, which becomes its bounding box. Class −1 is a
    region to be ignored. An invalid or
    duplicate row is left out and added to `problems` as (line, what). Any bytes are accepted; nothing is raised.
    """
    if text.startswith(b"\xef\xbb\xbf"):
        text = text[3:]
    if len(text) > MAX_BYTES:
        problems.append((0, f"label file larger than {MAX_BYTES >> 20} MiB"))
        return 0, 0
    seen: set[Row] = set()
    bad = polygons = 0
    # Python reads 1_0 as ten, the label format does not: such a file is parsed by `parse_row` alone.
    has_underscore = b"_" in text
    for number, line in enumerate(text.splitlines(), 1):
        tokens = line.split()
        if not tokens:
            continue
        row = None if has_underscore else _parse_valid_box(tokens, nc)
        parsed = row or parse_row(tokens, nc)
        if not isinstance(parsed, str) and parsed in seen:
            parsed = "duplicate row"
        if isinstance(parsed, str):
            bad += 1
            if bad <= MAX_PROBLEMS:
                problems.append((number, parsed))
            continue
        seen.add(parsed)
        polygons += len(tokens) > 5
        classes.append(int(parsed[0]))
        boxes.extend(parsed[1:])
    if bad > MAX_PROBLEMS:
        problems.append((0, f"{bad - MAX_PROBLEMS} more bad rows in this file"))
    return len(seen), polygons


def _parse_valid_box(tokens: list[bytes], nc: int) -> Row | None:
    """The values of a valid box row, fast; None for any other row, which `parse_row` handles."""
    try:
        c, x, y, w, h = map(float, tokens)
    except ValueError:
        return None
    # Every comparison is false for nan, and inf is out of range.
    if 0 <= c < nc and c == int(c) and 0 <= x <= 1 and 0 <= y <= 1 and 0 < w <= 1 and 0 < h <= 1:
        return c, x, y, w, h
    return None


def parse_row(tokens: list[bytes], nc: int) -> Row | str:
    """A row's values (class, cx, cy, w, h), or a message about what is wrong with it."""
    count = len(tokens)
    if count != 5 and (count < 7 or count % 2 == 0):
        return f"{count} values where 5 (a box) or an odd number from 7 up (a polygon) are expected"
    values = [_number(token) for token in tokens]
    invalid = next((token for token, value in zip(tokens, values, strict=True) if not math.isfinite(value)), None)
    if invalid is not None:
        return f"not a number: {invalid[:40].decode('ascii', 'backslashreplace')}"
    c, *rest = values
    if error := _class_error(c, nc):
        return error
    outside = next((value for value in rest if not -TOLERANCE <= value <= 1 + TOLERANCE), None)
    if outside is not None:
        return f"coordinate {outside:g} is outside 0 … 1 (fractions of the image are expected)"
    rest = [min(max(value, 0.0), 1.0) for value in rest]
    if count > 5:
        left, right, top, bottom = min(rest[::2]), max(rest[::2]), min(rest[1::2]), max(rest[1::2])
        rest = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    x, y, w, h = rest
    return (c, x, y, w, h) if w > 0 and h > 0 else "box without width or height"


def _number(token: bytes) -> float:
    try:
        return math.nan if b"_" in token else float(token)
    except ValueError:
        return math.nan


def _class_error(c: float, nc: int) -> str:
    if c != int(c):
        return f"class {c:g} is not a whole number"
    if c < 0 and c != ANY_CLASS:
        return f"class {c:.0f} is negative"
    return f"class {c:.0f} is out of range for {nc} classes" if c >= nc else ""
