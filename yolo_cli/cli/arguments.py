"""Command lines that the option parser does not accept by itself: aliases, repeated values, values left out."""

import re
from collections.abc import Sequence

import typer

# Other names of options. They are not listed by --help.
_ALIASES = {
    "--batch-size": "--batch",
    "--conf-thres": "--conf",
    "--img-size": "--img",
    "--imgsz": "--img",
    "--iou-thres": "--iou",
    "--referee": "--pycocotools",
    "--show": "--view-img",
}
# Options that take up to this many integers: `--img 640 384`, `--freeze 0 1 2`.
_SEVERAL = {"--img": 2, "--freeze": 10_000, "--classes": 10_000}
# The value of an option that is given without one.
_WITHOUT_VALUE = {"--cache": "ram", "--resume": "newest", "--tile": "-1"}


def normalize(args: Sequence[str]) -> list[str]:
    """Arguments as the parser takes them: aliases replaced, integers joined by commas, missing values filled in."""
    result: list[str] = []
    rest = list(args)
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        option = _ALIASES.get(option, option)
        result.append(option + equals + value)
        if equals:
            continue
        if option in _SEVERAL:
            numbers: list[str] = []
            while rest and len(numbers) < _SEVERAL[option] and re.fullmatch(r"\d+", rest[0]):
                numbers.append(rest.pop(0))
            if numbers:
                result.append(",".join(numbers))
        elif option in _WITHOUT_VALUE and (not rest or _is_option(rest[0])):
            result.append(_WITHOUT_VALUE[option])
    return result


def _is_option(word: str) -> bool:
    """Whether a word is an option rather than a value; `-1` is a value."""
    return word.startswith("-") and not re.fullmatch(r"-\d+", word)


class Numbers(tuple[int, ...]):
    """Integers of one option. Typer would treat a plain tuple as an option with several values."""


def parse_img(value: object) -> Numbers:
    """(height, width) from `640`, `640,384` or `640x384`."""
    numbers = parse_numbers(value if isinstance(value, tuple) else str(value).replace("x", ","))
    if len(numbers) not in (1, 2):
        raise typer.BadParameter("give one number, or height and width")
    return Numbers((numbers[0], numbers[-1]))


def parse_numbers(value: object) -> Numbers:
    """Integers from text such as `0,2,5`; empty text gives none."""
    if isinstance(value, tuple):
        return Numbers(value)
    text = str(value).strip().strip("()")
    try:
        return Numbers(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not an integer or a list of integers") from None
