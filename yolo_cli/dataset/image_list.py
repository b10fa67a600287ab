"""A list that selects some of the images of a folder or an annotation file."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from yolo_cli.io.text_file import read_lines

_VOC_FLAG = re.compile(r"\s+-?[01]$")  # whether the image has the class of the list, in VOC's ImageSets/Main


class ImageList:
    """Lines of a txt list: each is the path of an image, the end of its path, or either without the suffix."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines: dict[str, str] = {}  # the line of each key
        for line in lines:
            for key in (line, _VOC_FLAG.sub("", line)):
                self._lines.setdefault(_key(key), line)
        self._depth = max((key.count("/") + 1 for key in self._lines), default=0)
        self._found: set[str] = set()

    def selects(self, file: str) -> bool:
        """Whether an image is in the list."""
        parts = Path(file).parts
        tails = ["/".join(parts[-n:]) for n in range(1, min(self._depth, len(parts) - 1) + 1)]
        keys = {file, *tails, *(os.path.splitext(tail)[0] for tail in tails)} & self._lines.keys()
        self._found.update(self._lines[key] for key in keys)
        return bool(keys)

    def not_found(self) -> list[str]:
        """The lines that selected no image, in order."""
        return [line for line in dict.fromkeys(self._lines.values()) if line not in self._found]


def read_image_list(listing: Path) -> tuple[str, ...]:
    """The lines of a list, with relative paths that exist made absolute. Raises UserError where it cannot be read."""
    lines = []
    for line in read_lines(listing):
        path = os.path.abspath(listing.parent / line)
        lines.append(path if os.path.isfile(path) else line)
    return tuple(lines)


def _key(line: str) -> str:
    line = line.replace("\\", "/")
    return line if os.path.isabs(line) else re.sub(r"^(\.{1,2}/)+", "", line)
