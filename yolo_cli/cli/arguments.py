"""The field's habits that option parsers do not know: values that repeat, values that may be left out."""

import re
from collections.abc import Sequence

import typer

# Options that take one or several whole numbers: `--img 640 384`, `--freeze 0 1 2`.
_SEVERAL = {"--img": 2, "--imgsz": 2, "--img-size": 2, "--freeze": 10_000, "--classes": 10_000}
# Options whose value may be left out, and what that means.
_OPTIONAL = {"--cache": "ram", "--resume": "newest", "--tile": "-1"}


def normalise(args: Sequence[str]) -> list[str]:
    """Arguments in the form that the parser takes: several numbers joined by commas, left-out values filled in."""
    result: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        result.append(word)
        if word in _SEVERAL:
            numbers: list[str] = []
            while rest and len(numbers) < _SEVERAL[word] and re.fullmatch(r"\d+", rest[0]):
                numbers.append(rest.pop(0))
            if numbers:
                result.append(",".join(numbers))
        elif word in _OPTIONAL and (not rest or _is_option(rest[0])):
            result.append(_OPTIONAL[word])
    return result


def _is_option(word: str) -> bool:
    """Whether a word is an option rather than a value; `-1` is a value."""
    return word.startswith("-") and not re.fullmatch(r"-\d+", word)


class Numbers(tuple[int, ...]):
    """Whole numbers of one option, a type of its own because typer splits plain tuples itself."""


def parse_img(value: object) -> Numbers:
    """`640`, `640,384` or `640x384` as (height, width)."""
    numbers = parse_numbers(value if isinstance(value, tuple) else str(value).replace("x", ","))
    if len(numbers) not in (1, 2):
        raise typer.BadParameter("give one number, or height and width")
    return Numbers((numbers[0], numbers[-1]))


def parse_numbers(value: object) -> Numbers:
    """Whole numbers joined by commas; nothing at all is none."""
    if isinstance(value, tuple):
        return Numbers(value)
    text = str(value).strip().strip("()")
    try:
        return Numbers(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a whole number, or several") from None
