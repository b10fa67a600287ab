"""Text and numbers as a report shows them."""

import math

from yolo_cli.evaluation.comparison import Difference, Score, interval_text
from yolo_cli.report.intervals import Proportion

MAX_NAME = 80
UNKNOWN = "–"


def shortened(text: str, length: int = MAX_NAME) -> str:
    """Text of at most `length` characters on one line. Bytes of a file name that are no text become escapes."""
    valid = text.encode("utf-8", "backslashreplace").decode("utf-8")
    line = "".join(c if c.isprintable() else " " for c in valid)
    return line if len(line) <= length else f"{line[: length - 1]}…"


def count_of(number: int, one: str, many: str) -> str:
    """A number of things."""
    return f"{number:,} {one if number == 1 else many}"


def percent(value: float) -> str:
    """0 … 1 as 0 … 100 with one decimal."""
    return UNKNOWN if math.isnan(value) else f"{100 * value:.1f}"


def decimals(value: float, digits: int = 2) -> str:
    return UNKNOWN if math.isnan(value) else f"{value:.{digits}f}"


def sortable(value: float) -> str:
    """A number for the page's sorting; empty where it is unknown."""
    return "" if math.isnan(value) else f"{value:.5g}"


def score(value: Score) -> str:
    """A metric with its standard error."""
    return with_error(value.value, value.standard_error)


def with_error(value: float, standard_error: float) -> str:
    """A value of 0 … 1 as 0 … 100, with its standard error where that is known."""
    error = "" if math.isnan(value) or math.isnan(standard_error) else f" ± {100 * standard_error:.1f}"
    return f"{percent(value)}{error}"


def change(difference: Difference) -> str:
    """A difference with its interval."""
    return UNKNOWN if math.isnan(difference.value) else interval_text(difference)


def proportion(value: Proportion | None) -> str:
    """A proportion with its interval."""
    if value is None or not value.count:
        return UNKNOWN
    low, high = value.interval
    return f"{100 * value.value:.0f} ({100 * low:.0f} to {100 * high:.0f})"
