"""The text of a .cfg: [sections] of key = value lines. Every value keeps its line number for error messages."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_cli.errors import UserError
from yolo_cli.io.text_file import read_text
from yolo_cli.model.plan import integer

MAX_BYTES = 4 * 2**20  # the largest published networks take 30 kB
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Value:
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Section:
    """One [section]. Its methods return typed values and raise UserError with file and line."""

    path: Path
    kind: str
    line: int
    values: Mapping[str, Value]

    def where(self, key: str = "") -> str:
        """File and line of a key; of the section where it has no such key."""
        return f"{self.path}:{self.values[key].line if key in self.values else self.line}"

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """An integer from `low` to `high`."""
        value = self._number(key)
        try:
            return integer(default if value is None else value, key, low, high)
        except UserError as error:
            raise UserError(error.what, where=self.where(key)) from None

    def real(self, key: str, default: float) -> float:
        value = self._number(key)
        return default if value is None else value

    def flag(self, key: str, default: bool = False) -> bool:
        """Whether a number is not 0."""
        value = self._number(key)
        return default if value is None else bool(value)

    def word(self, key: str, default: str, known: Sequence[str]) -> str:
        """One of the words in `known`."""
        value = self.values[key].text if key in self.values else default
        if value not in known:
            fix = f"known are {', '.join(known)}"
            raise UserError(f"unknown {key} {value!r}", where=self.where(key), fix=fix)
        return value

    def numbers(self, key: str) -> list[int | float]:
        """Numbers separated by commas; an empty list where the key is missing."""
        if key not in self.values:
            return []
        parts = [part for part in self.values[key].text.split(",") if part]
        return [_parse(part, key, self.where(key)) for part in parts]

    def integers(self, key: str) -> list[int]:
        """Integers separated by commas; an empty list where the key is missing."""
        numbers = self.numbers(key)
        if bad := [n for n in numbers if not isinstance(n, int)]:
            raise UserError(f"{key} must be whole numbers, not {bad[0]!r}", where=self.where(key))
        return [int(n) for n in numbers]

    def _number(self, key: str) -> Any:
        return _parse(self.values[key].text, key, self.where(key)) if key in self.values else None


def read_sections(path: Path) -> list[Section]:
    """All sections of a file, in order. Raises UserError with the line that is malformed."""
    sections: list[Section] = []
    values: dict[str, Value] = {}
    for number, line in enumerate(read_text(path, kind=".cfg", max_bytes=MAX_BYTES).splitlines(), start=1):
        # Darknet ignores all white space.
        text = "".join(re.split(r"[#;]", line, maxsplit=1)[0].split())
        if not text:
            continue
        place = f"{path}:{number}"
        if text.startswith("["):
            if not text.endswith("]"):
                raise UserError(f"not a section name: {text[:40]!r}", where=place)
            values = {}
            sections.append(Section(path, text[1:-1], number, values))
            continue
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"neither a [section] nor key=value: {text[:40]!r}", where=place)
        if not sections:
            raise UserError("a value before the first [section]", where=place)
        values.setdefault(key, Value(value, number))  # Darknet takes the first value of a repeated key
    return sections


def _parse(text: str, key: str, where: str) -> int | float:
    if len(text) > 40 or not _NUMBER.fullmatch(text):
        raise UserError(f"{key} must be a number, not {text[:40]!r}", where=where)
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
