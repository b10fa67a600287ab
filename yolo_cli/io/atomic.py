"""Files that are written whole or not at all."""

import errno
import os
from pathlib import Path

from yolo_cli.errors import UserError


def write_whole(path: Path, data: bytes | memoryview, *, what: str, previous: Path | None = None) -> None:
    """Write to a temporary file beside `path`, flushed to the device, then renamed over it.

    With `previous` the older file is kept under that name; at every moment one of the two is whole.
    Raises UserError, naming `what`, when the device is full or the folder cannot be written; an older file stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:  # what a killed process of the same number has left is written over
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fix = f"{'free some space; ' if full else ''}what was saved before is intact"
        raise UserError(f"{what} cannot be written ({error.strerror})", where=path, fix=fix) from None
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left in a folder that is ours alone."""
    for left in folder.glob(".*.pt.*"):
        left.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Renames survive a crash of the machine once the folder is flushed, where the system lets folders be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems refuse; the rename is done all the same
    finally:
        os.close(handle)
