"""The class names of a data.yaml: `names` and `nc`, or a file with one name per line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolo_cli.errors import UserError
from yolo_cli.io.text_file import read_lines

MAX_CLASSES = 100_000
NAMES_FILES = (
    "classes.txt",
    "obj.names",
    "_darknet.labels",
)  # as annotation tools export them, beside images or labels


def parse_names(raw: Mapping[str, Any], source: Path) -> tuple[str, ...]:
    """The class names that a data.yaml states; empty where it states none. Raises UserError for invalid ones."""
    names, count = raw.get("names"), raw.get("nc")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_CLASSES):
        raise UserError(f"nc: a whole number from 1 to {MAX_CLASSES} is expected, not {count!r}", where=source)
    if names is None:
        return ()
    if isinstance(names, str) and Path(names).suffix in (".names", ".txt", ".labels"):
        names = list(read_names(source.parent / Path(names).expanduser()))
    if isinstance(names, dict):
        if any(not isinstance(key, int) or isinstance(key, bool) for key in names):
            raise UserError("names: the keys must be class numbers", where=source)
        if sorted(names) != list(range(len(names))):
            missing = next(i for i in range(len(names)) if i not in names)
            raise UserError(f"names: numbers must run from 0 without a gap; {missing} is missing", where=source)
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError("names: a list, or a map from class number to name, is expected", where=source)
    if len(names) > MAX_CLASSES:
        raise UserError(f"names: {len(names)} names, but at most {MAX_CLASSES} are supported", where=source)
    if any(isinstance(name, list | dict) or name is None for name in names):
        raise UserError("names: every class needs a name", where=source)
    if flags := [name for name in names if isinstance(name, bool)]:
        what = f"names: YAML reads a bare yes, no, on or off as {str(flags[0]).lower()}"
        raise UserError(what, where=source, fix="put the name in quotes")
    if count is not None and count != len(names):
        raise UserError(f"nc is {count}, but there are {len(names)} names", where=source, fix="leave nc out")
    return tuple(str(name) for name in names)


def read_names(path: Path) -> tuple[str, ...]:
    """The class names of a Darknet .names file or classes.txt, one per line. Raises UserError where there are none."""
    names = tuple(read_lines(path))
    if not names:
        raise UserError("has no class names", where=path)
    if len(names) > MAX_CLASSES:
        raise UserError(f"{len(names)} names, but at most {MAX_CLASSES} are supported", where=path)
    return names
