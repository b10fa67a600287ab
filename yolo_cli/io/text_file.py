"""Text files of the user, with one clear error for each that cannot be read."""

import os
import stat
from pathlib import Path

from yolo_cli.errors import UserError

_MAX_LIST_BYTES = 2**30


def read_text(path: Path, *, kind: str, max_bytes: int) -> str:
    """The text of a UTF-8 file, without a byte order mark. `kind` (such as "YAML") is for error messages.

    Raises UserError for a file that is missing, unreadable, not text, or larger than `max_bytes`.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise UserError(f"too large for a {kind} file", where=path, fix="check the path")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError("no such file", where=path) from None
    except UnicodeDecodeError:
        raise UserError("not a text file", where=path, fix="check the path") from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=path) from None


def read_content(path: Path, *, kind: str, max_bytes: int) -> bytes:
    """The bytes of a file. `kind` (such as "JSON") is for error messages.

    Raises UserError for a file that is missing, unreadable, no regular file, or larger than `max_bytes`.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # reading a pipe might never end
            raise UserError("is a device, a pipe or a folder, not a file", where=path)
        if state.st_size > max_bytes:
            raise UserError(f"too large for a {kind} file", where=path, fix="check the path")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError("no such file", where=path) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=path) from None


def read_lines(path: Path) -> list[str]:
    """The lines of a txt list, stripped, without empty ones. Raises UserError where it cannot be read."""
    if not os.path.isfile(path):  # reading a pipe might never end
        raise UserError("cannot be read as a list (not a file)", where=path)
    lines = read_text(path, kind="list", max_bytes=_MAX_LIST_BYTES).splitlines()
    return [line.strip() for line in lines if line.strip()]
