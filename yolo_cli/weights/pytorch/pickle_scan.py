"""Pickles checked opcode by opcode, before anything is built from them."""

import pickletools
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path
from typing import IO, cast

from yolo_cli.weights.pytorch.allowlist import not_allowed

MAX_MEMO = 10_000_000  # a larger memo index would only serve to fill memory


def scan_pickle(path: Path, file: BufferedIOBase, size: int, is_allowed: Callable[[str], bool]) -> int:
    """Check the pickle at the current position of `file` and move behind it; returns the position where it began.

    Raises UserError for a name that is not allowed, ValueError for lengths beyond `size` bytes. `path` is for messages.
    """
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", _BoundedReader(file, size))):
        name = opcode.name
        if name == "GLOBAL":
            full = str(argument).replace(" ", ".", 1)
            if not is_allowed(full):
                raise not_allowed(path, full)
        elif name in ("INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"):
            raise not_allowed(path, str(argument or name).replace(" ", ".", 1))
        elif name == "FRAME" or name.endswith("PUT"):
            limit = size if name == "FRAME" else MAX_MEMO
            if int(argument or 0) > limit:
                raise ValueError(f"an absurd pickle: {name} {argument}")
    return start


class _BoundedReader:
    """A file whose `read` refuses more bytes than the file has: Python allocates the memory before it reads."""

    def __init__(self, file: BufferedIOBase, size: int) -> None:
        self.size, self.file = size, file
        self.tell, self.readline = file.tell, file.readline

    def read(self, count: int) -> bytes:
        if count > self.size:
            raise ValueError(f"claims {count} bytes, more than the file has")
        return self.file.read(count)
