"""Darknet's .data files: `train = list`, `valid = list`, `names = file`, one per line."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from yolo_cli.errors import UserError
from yolo_cli.io.text_file import read_lines

SUFFIX = ".data"
KEYS = {"train": "train", "val": "valid", "test": "test"}  # of the file, by split
_LEVELS = 4  # folders above the file from which Darknet may have been started


def read_darknet_data(path: Path) -> Mapping[str, str]:
    """The keys of a .data file; paths that exist are absolute. Raises UserError for a line of another form."""
    keys = {}
    for line in read_lines(path):
        if line.startswith(("#", ";")):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise UserError(f"a line `key = value` is expected, not {line[:40]!r}", where=path)
        keys[key] = value
    for key in ("train", "valid", "test", "names"):
        if key in keys:
            keys[key] = os.path.join(base_of([keys[key]], path.parent), os.path.expanduser(keys[key]))
    return keys


def base_of(paths: Sequence[str], folder: Path) -> str:
    """The folder to which paths in a file in `folder` are relative: `folder`, else one above it, else the working one.

    Darknet's paths are relative to the folder that it is started in.
    """
    folder = Path(os.path.abspath(folder))
    first = next((path for path in paths if not os.path.isabs(os.path.expanduser(path))), None)
    if first is not None:
        for base in (folder, *list(folder.parents)[:_LEVELS], Path.cwd()):
            if os.path.exists(base / first):
                return str(base)
    return str(folder)
