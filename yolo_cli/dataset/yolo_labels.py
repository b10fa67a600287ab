"""One label file: text rows to classes and boxes, every bad row named."""

import math
from array import array

TOLERANCE = 1e-4  # coordinates may leave [0, 1] by this much (rounding of the tool that wrote them); they are cut to it
MAX_BYTES = 64 * 2**20  # a larger "label file" is something else
MAX_PROBLEMS = 1000  # of one file that are listed one by one

Row = tuple[float, float, float, float, float]


def parse_labels(
    text: bytes, nc: int, classes: "array[int]", boxes: "array[float]", problems: list[tuple[int, str]]
) -> int:
    """Append a label file's good rows to `classes` and `boxes` (cx, cy, w, h as fractions); returns their number.

    A row is `class cx cy w h`, or a polygon `class x1 y1 x2 y2 x3 y3 …` that is reduced to its box. A bad row is left
    out and named in `problems` as (line, what); any bytes at all are accepted, nothing is raised.
    """
    if text.startswith(b"\xef\xbb\xbf"):
        text = text[3:]
    if len(text) > MAX_BYTES:
        problems.append((0, f"label file of more than {MAX_BYTES >> 20} MiB, larger than any real one"))
        return 0
    seen: set[Row] = set()
    bad = 0
    # Python reads 1_0 as ten; the label format does not, so such a file takes the careful way throughout.
    careful = b"_" in text
    for number, line in enumerate(text.splitlines(), 1):
        tokens = line.split()
        if not tokens:
            continue
        row = None if careful else _plain_row(tokens, nc)
        checked = row or parse_row(tokens, nc)
        if not isinstance(checked, str) and checked in seen:
            checked = "duplicate row"
        if isinstance(checked, str):
            bad += 1
            if bad <= MAX_PROBLEMS:
                problems.append((number, checked))
            continue
        seen.add(checked)
        classes.append(int(checked[0]))
        boxes.extend(checked[1:])
    if bad > MAX_PROBLEMS:
        problems.append((0, f"{bad - MAX_PROBLEMS} more bad rows in this file"))
    return len(seen)


def _plain_row(tokens: list[bytes], nc: int) -> Row | None:
    """The values of a faultless box row, fast; None asks `parse_row`."""
    try:
        c, x, y, w, h = map(float, tokens)
    except ValueError:
        return None
    # Every comparison is false for nan, and inf is out of range.
    if 0 <= c < nc and c == int(c) and 0 <= x <= 1 and 0 <= y <= 1 and 0 < w <= 1 and 0 < h <= 1:
        return c, x, y, w, h
    return None


def parse_row(tokens: list[bytes], nc: int) -> Row | str:
    """A row's values (class, cx, cy, w, h), or what is wrong with it."""
    count = len(tokens)
    if count != 5 and (count < 7 or count % 2 == 0):
        return f"{count} values where 5 (a box) or an odd number from 7 up (a polygon) are expected"
    values = [_number(token) for token in tokens]
    wrong = next((token for token, value in zip(tokens, values, strict=True) if not math.isfinite(value)), None)
    if wrong is not None:
        return f"not a number: {wrong[:40].decode('ascii', 'backslashreplace')}"
    c, *rest = values
    if complaint := _class_complaint(c, nc):
        return complaint
    outside = next((value for value in rest if not -TOLERANCE <= value <= 1 + TOLERANCE), None)
    if outside is not None:
        return f"coordinate {outside:g} is outside 0 … 1 (fractions of the image are expected)"
    rest = [min(max(value, 0.0), 1.0) for value in rest]
    if count > 5:
        left, right, top, bottom = min(rest[::2]), max(rest[::2]), min(rest[1::2]), max(rest[1::2])
        rest = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    x, y, w, h = rest
    return (c, x, y, w, h) if w > 0 and h > 0 else "box of no size"


def _number(token: bytes) -> float:
    try:
        return math.nan if b"_" in token else float(token)
    except ValueError:
        return math.nan


def _class_complaint(c: float, nc: int) -> str:
    if c != int(c):
        return f"class {c:g} is not a whole number"
    if c < 0:
        return f"class {c:.0f} is negative"
    return f"class {c:.0f} is not below the number of classes, {nc}" if c >= nc else ""
